/* pictures.c: names of the output files. */
#include "pictures.h"
#include "output.h"
#include "png_file.h"

#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = 4400, MOST_NAMES = 10000 };

/* The last dot of the file's own name, or its end. */
static const char *extension(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    return dot && dot != name ? dot : path + strlen(path);
}

attune_code pictures_check(const char *output, attune_error *error) {
    static const char *const others[] = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"};
    char folder[PATH_SIZE] = ".";
    struct stat status;
    const char *slash = output ? strrchr(output, '/') : NULL;
    if (output && (!output[0] || strcmp(output, "-") == 0))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, "sample_host", "-o",
                           "-o needs a file name; /dev/stdout is standard output");
    for (size_t i = 0; output && i < sizeof others / sizeof others[0]; ++i)
        if (strcasecmp(extension(output), others[i]) == 0) {
            attune_fail(error, ATTUNE_INVALID_ARGUMENT, "sample_host", output,
                        "%s: pictures are written as PNG, not %s", output, others[i] + 1);
            attune_hint(error, "let the name end in .png");
            return ATTUNE_INVALID_ARGUMENT;
        }
    if (slash)
        (void)snprintf(folder, sizeof folder, "%.*s", (int)(slash - output) + 1, output);
    if (stat(folder, &status) != 0 || !S_ISDIR(status.st_mode)) {
        attune_fail(error, ATTUNE_NOT_FOUND, "sample_host", folder, "the output folder %s does not exist",
                    folder);
        attune_hint(error, "make it first: mkdir -p %s", folder);
        return ATTUNE_NOT_FOUND;
    }
    if (access(folder, W_OK) != 0)
        return output_errno(error, "write to folder", folder);
    return ATTUNE_OK;
}

attune_code pictures_write(const char *output, uint64_t index, uint64_t total, uint64_t seed,
                           const attune_image *image, const char *parameters, char *path,
                           attune_error *error) {
    if (output) {
        const char *dot = extension(output);
        if (total == 1)
            (void)snprintf(path, PATH_SIZE, "%s", output);
        else
            (void)snprintf(path, PATH_SIZE, "%.*s-%04llu%s", (int)(dot - output), output,
                           (unsigned long long)index + 1, dot);
        return png_write(path, image, parameters, 0, error);
    }
    attune_code code = ATTUNE_ALREADY_EXISTS;
    for (int copy = 1; code == ATTUNE_ALREADY_EXISTS && copy <= MOST_NAMES; ++copy) {
        if (copy == 1)
            (void)snprintf(path, PATH_SIZE, "./attune-%llu.png", (unsigned long long)seed);
        else
            (void)snprintf(path, PATH_SIZE, "./attune-%llu-%d.png", (unsigned long long)seed, copy);
        if (access(path, F_OK) != 0)
            code = png_write(path, image, parameters, 1, error);
    }
    if (code == ATTUNE_ALREADY_EXISTS)
        attune_fail(error, code, "sample_host", path, "%s and all its numbered names are taken", path);
    return code;
}
