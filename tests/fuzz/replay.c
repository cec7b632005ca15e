/* replay.c: a fuzz target without a fuzzer: run the files of the folders named as arguments through it. Each
 * path is printed before its file runs, so that the last one is the one that failed. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>

static void replay_file(const char *path) {
    struct stat about;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    FUZZ_CHECK(file >= 0 && fstat(file, &about) == 0 && S_ISREG(about.st_mode));
    size_t size = (size_t)about.st_size;
    /* exactly as large as the input, so that a sanitizer sees what lies beyond */
    uint8_t *data = malloc(size ? size : 1);
    FUZZ_CHECK(data && read(file, data, size) == (ssize_t)size);
    (void)close(file);
    (void)printf("%s\n", path);
    (void)fflush(stdout);
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
}

static int replay_folder(const char *folder) {
    struct dirent **names;
    int files = 0, entries = scandir(folder, &names, NULL, alphasort);
    if (entries < 0) {
        perror(folder);
        return 0;
    }
    for (int i = 0; i < entries; ++i) {
        char path[4500];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        if (names[i]->d_name[0] != '.') {
            replay_file(path);
            ++files;
        }
        free(names[i]);
    }
    free(names);
    return files;
}

int main(int count, char **folders) {
    for (int i = 1; i < count; ++i)
        if (replay_folder(folders[i]) == 0) {
            (void)fprintf(stderr, "%s: no inputs\n", folders[i]);
            return 1;
        }
    return 0;
}
