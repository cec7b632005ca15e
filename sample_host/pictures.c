/* pictures.c: names of the output files. */
#include "pictures.h"
#include "output.h"
#include "png_file.h"

#include <strings.h>
#include <unistd.h>

enum { PATH_SIZE = 4400, MOST_NAMES = 10000 };

/* The last dot of the file's own name, or its end. */
static const char *extension(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *dot = strrchr(name, '.');
    return dot && dot != name ? dot : path + strlen(path);
}

/* Image `index` of `total` where -o is given. */
static void name_picture(const char *output, uint64_t index, uint64_t total, char *path) {
    const char *dot = extension(output);
    if (total == 1)
        (void)snprintf(path, PATH_SIZE, "%s", output);
    else
        (void)snprintf(path, PATH_SIZE, "%.*s-%04llu%s", (int)(dot - output), output,
                       (unsigned long long)index + 1, dot);
}

attune_code pictures_check(const char *output, uint64_t total, attune_error *error) {
    static const char *const others[] = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"};
    char path[PATH_SIZE] = "./attune.png";
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
    if (output)
        name_picture(output, 0, total, path);
    return output_check(path, error);
}

attune_code pictures_write(const char *output, uint64_t index, uint64_t total, uint64_t seed,
                           const attune_image *image, const char *parameters, char *path,
                           attune_error *error) {
    if (output) {
        name_picture(output, index, total, path);
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
