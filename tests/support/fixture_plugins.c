/* fixture_plugins.c: fixture plugins in folders of their own, with true or lying manifests. */
#include "tests/support/fixture_plugins.h"
#include "tests/support/run.h"
#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <nettle/sha2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Static texts in turn, so that tests need not free paths. */
static char *next_text(void) {
    static char texts[128][PATH_MAX];
    static unsigned next;
    return texts[next++ % 128];
}

const char *fixture_folder(void) {
    char *path = next_text();
    (void)snprintf(path, PATH_MAX, "%s/plugins-XXXXXX", run_folder());
    ck_assert_ptr_nonnull(mkdtemp(path));
    ck_assert_int_eq(chmod(path, 0755), 0);
    return path;
}

#if defined(__x86_64__)
#define MACHINE "\"os\": \"linux\", \"arch\": \"x86_64\", \"isa_min\": \"x86-64\""
#else
#define MACHINE "\"os\": \"linux\", \"arch\": \"aarch64\", \"isa_min\": \"armv8-a\""
#endif

/* What every attention fixture says alike, with its own name, priority, masks, largest head, class and
 * arithmetic. */
#define ATTENTION(ID, ALIASES, PRIORITY, MASKS, HEAD, CLASS, ARITHMETIC)                                     \
    "{\"id\": \"" ID "\", \"aliases\": [" ALIASES "], \"priority\": " PRIORITY                               \
    ", \"devices\": [\"cpu\"], \"vendors\": [\"*\"], \"dtypes\": [\"float32\"], \"masks\": [" MASKS          \
    "], \"head_dim\": {\"min\": 1, \"max\": " HEAD "}, \"memory\": {\"min\": 0}, \"determinism\": \"" CLASS  \
    "\", \"arithmetic\": \"" ARITHMETIC "\"}"

#define ALL_MASKS "\"none\", \"bool\", \"float\", \"causal\""

static const struct {
    const char *name, *version, *interfaces, *attention, *samplers;
} known[] = {
    {"plain", "1.2.3", "\"attune.device/1\", \"attune.attention/1\"",
     ATTENTION("sdp-no-mem", "\"sdp_no_mem\"", "80", ALL_MASKS, "0", "portable",
               "fixture-f64-1") ", " ATTENTION("sdp", "\"scaled-dot-product\"", "70", ALL_MASKS, "0",
                                               "repeatable", "fixture-f64-2"),
     ""},
    {"racy", "1.0.0", "\"attune.attention/1\"", ATTENTION("racy", "", "60", ALL_MASKS, "0", "none", "racy-1"),
     ""},
    {"racers", "1.0.0", "\"attune.attention/1\"",
     ATTENTION("racy", "", "60", ALL_MASKS, "0", "none",
               "racy-1") ", " ATTENTION("boaster", "", "60", ALL_MASKS, "0", "repeatable", "racy-1"),
     ""},
    {"picky", "1.0.0", "\"attune.attention/1\"",
     ATTENTION("picky", "\"picky-attention\"", "100", "\"none\", \"float\"", "256", "repeatable",
               "fixture-f64-1"),
     ""},
    {"liar", "1.0.0", "\"attune.attention/1\"",
     ATTENTION("liar", "", "1000", "\"none\"", "0", "repeatable", "liar-1"), ""},
    {"nan", "1.0.0", "\"attune.attention/1\"",
     ATTENTION("nan", "", "55", "\"none\", \"causal\"", "0", "repeatable", "nan-1"), ""},
    {"older", "1.0.0", "\"attune.attention/1\"",
     ATTENTION("older", "", "50", "\"none\"", "0", "none", "older-1"), ""},
    {"older_device", "1.0.0", "\"attune.device/1\"", "", ""},
    {"newer", "1.0.0", "\"attune.attention/1\"", "", ""},
    {"nosymbol", "1.0.0", "\"attune.attention/1\"", "", ""},
    {"failing", "1.0.0", "\"attune.attention/1\"", "", ""},
    {"gpu", "1.0.0", "\"attune.device/1\", \"attune.attention/1\"",
     "{\"id\": \"sdp\", \"aliases\": [], \"priority\": 70, \"devices\": [\"cuda\"], \"vendors\": "
     "[\"NVIDIA\"], \"dtypes\": "
     "[\"float32\", \"float16\"], \"masks\": [\"none\"], \"head_dim\": {\"min\": 1, \"max\": 512}, "
     "\"memory\": {\"min\": "
     "1073741824}, \"determinism\": \"invariant\", \"arithmetic\": \"fixture-gpu-1\"}",
     ""},
    {"remote", "1.0.0", "\"attune.device/1\", \"attune.attention/1\"",
     "{\"id\": \"sdp\", \"aliases\": [], \"priority\": 70, \"devices\": [\"opencl\"], \"vendors\": [\"*\"], "
     "\"dtypes\": [\"float32\", \"float16\", \"bfloat16\"], \"masks\": [" ALL_MASKS
     "], \"head_dim\": {\"min\": 1, \"max\": 0}, \"memory\": {\"min\": 0}, \"determinism\": \"portable\", "
     "\"arithmetic\": \"fixture-remote-1\"}",
     ""},
    {"painter", "1.0.0", "\"attune.sampler/1\"", "",
     "{\"id\": \"painter\", \"devices\": [\"cpu\"], \"vendors\": [\"*\"], \"dtypes\": [\"float32\"], "
     "\"determinism\": "
     "\"repeatable\", \"arithmetic\": \"painter-1\"}"},
};

json_t *fixture_library(const char *name) {
    char text[4096], id[64];
    json_error_t problem;
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i) {
        if (strcmp(known[i].name, name) != 0)
            continue;
        (void)snprintf(id, sizeof id, "fixture-%s", name);
        if (strchr(id, '_'))
            *strchr(id, '_') = '-';
        (void)snprintf(text, sizeof text,
                       "{\"id\": \"%s\", \"version\": \"%s\", \"path\": \"%s.so\", " MACHINE
                       ", \"unload\": \"park\", \"requires\": [], \"interfaces\": [%s], \"attention\": [%s], "
                       "\"samplers\": [%s]}",
                       id, known[i].version, name, known[i].interfaces, known[i].attention,
                       known[i].samplers);
        json_t *library = json_loads(text, 0, &problem);
        ck_assert_msg(library != NULL, "%s: %s", name, problem.text);
        return library;
    }
    ck_abort_msg("no fixture \"%s\"", name);
    return NULL;
}

static json_t *manifest_of(const char *name, va_list names) {
    json_t *manifest = json_pack("{s:i, s:s, s:s, s:s, s:s, s:{s:i, s:i}, s:[]}", "format", 1, "id",
                                 "fixtures", "version", "1.0.0", "vendor", "Fixture", "licence", "Apache-2.0",
                                 "abi", "min", 1, "max", 1, "libraries");
    ck_assert_ptr_nonnull(manifest);
    for (; name; name = va_arg(names, const char *))
        ck_assert_int_eq(json_array_append_new(json_object_get(manifest, "libraries"), fixture_library(name)),
                         0);
    return manifest;
}

json_t *fixture_manifest(const char *name, ...) {
    va_list names;
    va_start(names, name);
    json_t *manifest = manifest_of(name, names);
    va_end(names);
    return manifest;
}

static void write_file(const char *path, const void *bytes, size_t size, mode_t mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    ck_assert_msg(fd >= 0, "cannot write %s", path);
    ck_assert_int_eq(write(fd, bytes, size), (ssize_t)size);
    ck_assert_int_eq(fchmod(fd, mode), 0);
    ck_assert_int_eq(close(fd), 0);
}

static void install_library(const char *folder, json_t *library) {
    char from[PATH_MAX], to[PATH_MAX], digest[2 * SHA256_DIGEST_SIZE + 1];
    uint8_t bytes[SHA256_DIGEST_SIZE];
    struct sha256_ctx context;
    size_t size;
    const char *path = json_string_value(json_object_get(library, "path"));
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    (void)snprintf(from, sizeof from, "%s/tests/fixtures/%s", run_build(), name);
    (void)snprintf(to, sizeof to, "%s/%s", folder, path);
    char *content = run_read(from, &size);
    write_file(to, content, size, 0755);
    sha256_init(&context);
    sha256_update(&context, size, (const uint8_t *)content);
    sha256_digest(&context, sizeof bytes, bytes);
    for (size_t i = 0; i < sizeof bytes; ++i)
        (void)snprintf(digest + 2 * i, 3, "%02x", bytes[i]);
    free(content);
    if (!json_object_get(library, "size"))
        (void)json_object_set_new(library, "size", json_integer((json_int_t)size));
    if (!json_object_get(library, "sha256"))
        (void)json_object_set_new(library, "sha256", json_string(digest));
}

const char *fixture_install(const char *folder, json_t *manifest) {
    char *path = next_text();
    size_t index;
    json_t *library;
    json_array_foreach(json_object_get(manifest, "libraries"), index, library)
        install_library(folder, library);
    char *text = json_dumps(manifest, JSON_INDENT(2));
    ck_assert_ptr_nonnull(text);
    ck_assert_int_lt(snprintf(path, PATH_MAX, "%s/manifest.json", folder), PATH_MAX);
    write_file(path, text, strlen(text), 0644);
    free(text);
    json_decref(manifest);
    return path;
}

const char *fixture_plugins(const char *name, ...) {
    va_list names;
    va_start(names, name);
    json_t *manifest = manifest_of(name, names);
    va_end(names);
    return fixture_install(fixture_folder(), manifest);
}

/* Walk a dotted path; `last` receives its last part. */
static json_t *walk(json_t *value, const char *path, char last[64]) {
    for (;;) {
        size_t length = strcspn(path, ".");
        (void)snprintf(last, 64, "%.*s", (int)length, path);
        if (!path[length])
            return value;
        value =
            json_is_array(value) ? json_array_get(value, (size_t)atoi(last)) : json_object_get(value, last);
        ck_assert_msg(value != NULL, "no \"%s\" in the manifest", last);
        path += length + 1;
    }
}

void fixture_set(json_t *manifest, const char *path, json_t *value) {
    char last[64];
    json_t *parent = walk(manifest, path, last);
    if (json_is_array(parent)) {
        size_t index = (size_t)atoi(last);
        ck_assert_int_eq(!value                            ? json_array_remove(parent, index)
                         : index < json_array_size(parent) ? json_array_set_new(parent, index, value)
                                                           : json_array_append_new(parent, value),
                         0);
    } else
        ck_assert_int_eq(value ? json_object_set_new(parent, last, value) : json_object_del(parent, last), 0);
}

json_t *fixture_get(json_t *manifest, const char *path) {
    char last[64];
    json_t *parent = walk(manifest, path, last);
    return json_is_array(parent) ? json_array_get(parent, (size_t)atoi(last)) : json_object_get(parent, last);
}
