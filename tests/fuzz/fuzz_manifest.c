/* fuzz_manifest.c: manifest.json as bytes. A manifest that parses keeps its limits; one that does not is
 * empty. */
#include "host_api/manifest.h"
#include "tests/fuzz/fuzz.h"

static void check_names(const attune_names *names, uint32_t least, uint32_t most) {
    FUZZ_CHECK(names->count >= least && names->count <= most && names->count <= ATTUNE_MANIFEST_NAMES);
    for (uint32_t i = 0; i < names->count; ++i) {
        FUZZ_CHECK(names->name[i][0] && fuzz_is_line(names->name[i], sizeof names->name[i]));
        for (uint32_t k = 0; k < i; ++k)
            FUZZ_CHECK(strcmp(names->name[i], names->name[k]) != 0);
    }
}

static void check_required(const attune_required *required) {
    FUZZ_CHECK(required->count <= ATTUNE_MANIFEST_REQUIRED);
    for (uint32_t i = 0; i < required->count; ++i) {
        FUZZ_CHECK(required->name[i][0] && fuzz_is_line(required->name[i], sizeof required->name[i]));
        for (uint32_t k = 0; k < i; ++k)
            FUZZ_CHECK(strcmp(required->name[i], required->name[k]) != 0);
    }
}

static void check_backends(const attune_manifest_backend *backends, uint32_t count) {
    FUZZ_CHECK(count <= ATTUNE_MANIFEST_BACKENDS);
    for (uint32_t i = 0; i < count; ++i) {
        const attune_manifest_backend *one = &backends[i];
        FUZZ_CHECK(one->id[0] && fuzz_is_line(one->id, sizeof one->id));
        FUZZ_CHECK(one->arithmetic[0] && fuzz_is_line(one->arithmetic, sizeof one->arithmetic));
        FUZZ_CHECK(attune_determinism_name(one->determinism) != NULL);
        FUZZ_CHECK(one->dtypes != 0 &&
                   one->head_dim_min <= (one->head_dim_max ? one->head_dim_max : UINT32_MAX));
        check_names(&one->devices, 1, 3);
        check_names(&one->vendors, 1, ATTUNE_MANIFEST_NAMES);
        check_names(&one->aliases, 0, ATTUNE_MAX_ALIASES);
        check_required(&one->required);
        for (uint32_t k = 0; k < i; ++k)
            FUZZ_CHECK(strcmp(one->id, backends[k].id) != 0);
    }
}

/* A path must stay beneath the manifest's folder. */
static void check_path(const char *path, size_t size) {
    FUZZ_CHECK(path[0] && path[0] != '/' && fuzz_is_line(path, size) && !strchr(path, '\\'));
    for (const char *part = path; part; part = strchr(part, '/')) {
        part += *part == '/';
        size_t length = strcspn(part, "/");
        FUZZ_CHECK(length > 0 && !(length <= 2 && strspn(part, ".") >= length));
    }
}

static void check_library(const attune_manifest_library *one) {
    FUZZ_CHECK(one->id[0] && fuzz_is_line(one->id, sizeof one->id));
    FUZZ_CHECK(one->version[0] && fuzz_is_line(one->version, sizeof one->version));
    FUZZ_CHECK(one->os[0] && fuzz_is_line(one->os, sizeof one->os));
    FUZZ_CHECK(one->arch[0] && fuzz_is_line(one->arch, sizeof one->arch));
    FUZZ_CHECK(one->isa_min[0] && fuzz_is_line(one->isa_min, sizeof one->isa_min));
    FUZZ_CHECK(one->size > 0 && (one->unload_safe == 0 || one->unload_safe == 1));
    check_path(one->path, sizeof one->path);
    check_required(&one->required);
    check_names(&one->interfaces, 1, ATTUNE_MANIFEST_NAMES);
    check_backends(one->attention, one->attention_count);
    check_backends(one->samplers, one->sampler_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    attune_manifest manifest;
    attune_error error;
    memset(&error, 0xff, sizeof error);
    attune_code code = attune_manifest_parse((const char *)data, size, "manifest.json", &manifest, &error);
    fuzz_check_error(code, &error);
    if (code != ATTUNE_OK) {
        FUZZ_CHECK(manifest.library == NULL && manifest.library_count == 0);
        return 0;
    }
    FUZZ_CHECK(size <= ATTUNE_MANIFEST_BYTES);
    FUZZ_CHECK(manifest.id[0] && fuzz_is_line(manifest.id, sizeof manifest.id));
    FUZZ_CHECK(manifest.vendor[0] && fuzz_is_line(manifest.vendor, sizeof manifest.vendor));
    FUZZ_CHECK(manifest.licence[0] && fuzz_is_line(manifest.licence, sizeof manifest.licence));
    FUZZ_CHECK(manifest.abi_min >= 1 && manifest.abi_min <= manifest.abi_max);
    FUZZ_CHECK(manifest.library_count >= 1 && manifest.library_count <= ATTUNE_MANIFEST_LIBRARIES);
    for (uint32_t i = 0; i < manifest.library_count; ++i)
        check_library(&manifest.library[i]);
    attune_manifest_free(&manifest);
    return 0;
}
