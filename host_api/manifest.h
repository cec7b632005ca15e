/*
 * manifest.h: manifest.json, what a host may know before it runs any plugin code. Format 1; ./manifest.json
 * is an example of every field. The manifest is a filter; the plugin's own tables are the truth (tables.h
 * compares them).
 */
#ifndef HOST_API_MANIFEST_H
#define HOST_API_MANIFEST_H

#include "attune/sampler.h"

#define ATTUNE_MANIFEST_BYTES     (1u << 20)
#define ATTUNE_MANIFEST_DEPTH     16
#define ATTUNE_MANIFEST_LIBRARIES 64
#define ATTUNE_MANIFEST_BACKENDS  32
#define ATTUNE_MANIFEST_NAMES     16
#define ATTUNE_MANIFEST_REQUIRED  64
/* Of a shared library's name with its NUL: a reason and an advice around it still fit attune_candidate. */
#define ATTUNE_LIBRARY_NAME 96

/* A short list of short names: vendors, interfaces. */
typedef struct attune_names {
    uint32_t count;
    char name[ATTUNE_MANIFEST_NAMES][32];
} attune_names;

/* What must be there: shared libraries, and interfaces where a whole library requires them. */
typedef struct attune_required {
    uint32_t count;
    char name[ATTUNE_MANIFEST_REQUIRED][ATTUNE_LIBRARY_NAME];
} attune_required;

/* One backend of `attention`, or (without the attention fields) one of `samplers`. */
typedef struct attune_manifest_backend {
    char id[32];
    char arithmetic[32];
    attune_names devices;     /* kinds: "cpu", "cuda", "opencl" */
    attune_names vendors;     /* of devices; "*" = any */
    attune_names aliases;     /* at most ATTUNE_MAX_ALIASES */
    attune_required required; /* shared libraries that it opens when it first runs: "libcublas.so.13" */
    uint32_t dtypes;          /* ATTUNE_DTYPE_BIT_… */
    uint32_t masks;           /* ATTUNE_MASK_BIT_… */
    uint32_t head_dim_min;
    uint32_t head_dim_max; /* 0 = no limit */
    int32_t priority;
    int32_t determinism;
    uint64_t memory_min; /* bytes of memory_total that the device must have */
} attune_manifest_backend;

typedef struct attune_manifest_library {
    char id[64];
    char version[32];
    char path[256]; /* relative, beneath the manifest's folder */
    char os[16];
    char arch[16];
    char isa_min[16];
    uint64_t size;
    uint8_t sha256[32];
    int32_t unload_safe;      /* "unload": "safe" (1) or "park" (0) */
    attune_required required; /* interfaces that the host must know, and shared libraries */
    attune_names interfaces;
    uint32_t attention_count;
    uint32_t sampler_count;
    attune_manifest_backend *attention;
    attune_manifest_backend *samplers;
} attune_manifest_library;

typedef struct attune_manifest {
    char id[64];
    char version[32];
    char vendor[64];
    char licence[64];
    uint32_t abi_min;
    uint32_t abi_max;
    uint32_t library_count;
    attune_manifest_library *library;
} attune_manifest;

/* [any] Parse `length` bytes of JSON; `file` names it in errors. `out` is the caller's, freed by
 * attune_manifest_free. Every error names the place as a JSON path and what was expected there. Errors:
 * INVALID_ARGUMENT (not JSON, a duplicate or unknown key, a wrong type or value), OUT_OF_RANGE (larger or
 * deeper than the limits), UNIMPLEMENTED (another format version), RESOURCE_EXHAUSTED. */
attune_code attune_manifest_parse(const char *text, size_t length, const char *file, attune_manifest *out,
                                  attune_error *error);
/* [any] Frees what `manifest` holds, not the struct; one that was cleared is allowed. */
void attune_manifest_free(attune_manifest *manifest);

/* [any] 1 where `names` has `name` (letter case ignored), or "*". */
int attune_names_match(const attune_names *names, const char *name);

#endif
