/* loader.c: the checks before dlopen, dlopen of the private copy, negotiation, create; and the way back. */
#include "loader.h"
#include "elf_check.h"
#include "find_library.h"
#include "structs.h"
#include <dlfcn.h>
#include <link.h>
#include <stdlib.h>
#include <sys/utsname.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCH "x86_64"
#elif defined(__aarch64__)
#define THIS_ARCH "aarch64"
#endif

/* The oldest ABI that this host still speaks. */
#define OLDEST_ABI 1u

static const char *const known_interfaces[] = {ATTUNE_DEVICE_INTERFACE, ATTUNE_ATTENTION_INTERFACE,
                                               ATTUNE_SAMPLER_INTERFACE};

/* Whether this processor has an instruction set level (x86-64 psABI, section 3.1.1); −1 = the name is not
 * known. */
static int has_level(const char *name, int *level) {
    *level = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    int v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("ssse3") &&
             __builtin_cpu_supports("popcnt");
    int v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    int v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl");
    const struct {
        const char *name;
        int has;
    } levels[] = {{"x86-64", 1}, {"x86-64-v2", v2}, {"x86-64-v3", v3}, {"x86-64-v4", v4}};
    for (int i = 0; i < 4; ++i)
        if (strcmp(levels[i].name, name) == 0) {
            *level = i;
            return levels[i].has;
        }
    return -1;
#else
    return strcmp(name, "armv8-a") == 0 ? 1 : -1;
#endif
}

/* Interfaces have a revision behind a slash, shared libraries have no slash. */
static bool is_interface(const char *required) {
    return strchr(required, '/') != NULL;
}

static attune_code check_interfaces(const attune_manifest_library *library, attune_error *error) {
    for (uint32_t i = 0; i < library->required.count; ++i) {
        bool known = !is_interface(library->required.name[i]);
        for (size_t k = 0; k < sizeof known_interfaces / sizeof *known_interfaces; ++k)
            known |= strcmp(library->required.name[i], known_interfaces[k]) == 0;
        if (!known)
            return attune_fail(error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, library->id,
                               "requires the interface %s, which this libattune (%s) does not know",
                               library->required.name[i], ATTUNE_VERSION);
    }
    return ATTUNE_OK;
}

const char *attune_loader_lacks(const attune_generation *generation, const attune_required *required) {
    const char *const where = generation->search_path_known ? generation->search_path : NULL;
    for (uint32_t i = 0; i < required->count; ++i)
        if (!is_interface(required->name[i]) &&
            attune_find_library(required->name[i], where) == ATTUNE_LIBRARY_MISSING)
            return required->name[i];
    return NULL;
}

/* What it needs is looked for before the linker does, which would run what it finds first. */
static attune_code check_libraries(attune_generation *generation, const attune_manifest_library *library,
                                   attune_error *error) {
    generation->stage = ATTUNE_STAGE_LIBRARIES;
    const char *const lacks = attune_loader_lacks(generation, &library->required);
    if (!lacks)
        return ATTUNE_OK;
    (void)attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, generation->path, "%s is not found", lacks);
    attune_hint(error, "%s", ATTUNE_FIND_ADVICE);
    return ATTUNE_UNAVAILABLE;
}

attune_code attune_loader_fits(const attune_manifest *manifest, const attune_manifest_library *library,
                               int *level, attune_error *error) {
    *level = 0;
    if (strcmp(library->os, "linux") != 0 || strcmp(library->arch, THIS_ARCH) != 0)
        return attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, library->id,
                           "is for %s %s; this machine is linux %s", library->os, library->arch, THIS_ARCH);
    int has = has_level(library->isa_min, level);
    if (has <= 0)
        return attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, library->id,
                           "needs the instruction set %s, which %s", library->isa_min,
                           has < 0 ? "this host does not know" : "this processor lacks");
    if (manifest->abi_min > ATTUNE_ABI_VERSION || manifest->abi_max < OLDEST_ABI) {
        (void)attune_fail(error, ATTUNE_UNIMPLEMENTED, ATTUNE_DOMAIN, library->id,
                          "speaks ABI %u to %u; this host speaks %u to %u", manifest->abi_min,
                          manifest->abi_max, OLDEST_ABI, ATTUNE_ABI_VERSION);
        attune_hint(error, "install a %s libattune",
                    manifest->abi_min > ATTUNE_ABI_VERSION ? "newer" : "older");
        return ATTUNE_UNIMPLEMENTED;
    }
    return check_interfaces(library, error);
}

/* Everything up to a copy whose bytes are known to be right, on a machine that has what it needs. */
attune_code attune_loader_check(attune_generation *generation, int folder, const char *folder_path,
                                const attune_manifest_library *library, attune_error *error) {
    generation->stage = "check";
    generation->unload_safe = library->unload_safe != 0;
    memcpy(generation->sha256, library->sha256, sizeof generation->sha256);
    int file;
    uint64_t size;
    const char *path = generation->path, *slash = strrchr(library->path, '/');
    attune_code code = attune_file_open(folder, folder_path, library->path, &file, &size, error);
    if (code)
        return code;
    if (size != library->size) {
        code = attune_fail(error, ATTUNE_DATA_LOSS, ATTUNE_DOMAIN, path,
                           "has %llu bytes, the manifest says %llu", (unsigned long long)size,
                           (unsigned long long)library->size);
        attune_hint(error, "install it again, or run tools/fill_manifest after a build");
    } else
        code =
            attune_copy_make(file, size, slash ? slash + 1 : library->path, path, &generation->copy, error);
    (void)close(file);
    if (!code)
        code = attune_copy_verify(&generation->copy, library->sha256, path, error);
    if (!code)
        code = attune_elf_check(generation->copy.bytes, size, library->arch, path, error);
    if (!code) {
        attune_elf_unload_risk(generation->copy.bytes, size, generation->unload_risk);
        generation->search_path_known = attune_elf_search_path(
            generation->copy.bytes, size, generation->search_path, sizeof generation->search_path);
    }
    attune_copy_unmap(&generation->copy);
    return code ? code : check_libraries(generation, library, error);
}

/* The highest ABI that both speak, as the entry says it, checked against what the manifest promised. */
static attune_code negotiate(attune_generation *generation, const attune_manifest *manifest,
                             attune_error *error) {
    union {
        void *object;
        attune_plugin_entry_function function;
    } entry = {.object = dlsym(generation->handle, ATTUNE_PLUGIN_ENTRY)};
    const char *path = generation->path;
    if (!entry.object) {
        (void)attune_fail(error, ATTUNE_NOT_FOUND, ATTUNE_DOMAIN, path, "exports no symbol %s",
                          ATTUNE_PLUGIN_ENTRY);
        attune_hint(error, "mark it ATTUNE_EXPORT; see plugin.h");
        return ATTUNE_NOT_FOUND;
    }
    uint32_t abi = ATTUNE_ABI_VERSION;
    const attune_plugin *plugin = NULL;
    attune_code code = entry.function(&abi, &plugin);
    if (code) {
        (void)attune_fail(error, code, ATTUNE_DOMAIN, path,
                          "shares no ABI with this host: it speaks %u or newer, the host %u to %u", abi,
                          OLDEST_ABI, ATTUNE_ABI_VERSION);
        attune_hint(error, "install a newer libattune, or an older plugin");
        return code;
    }
    if (!plugin || abi < OLDEST_ABI || abi > ATTUNE_ABI_VERSION || abi < manifest->abi_min ||
        abi > manifest->abi_max)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, path,
                           "$.abi: the manifest says %u to %u and the host speaks %u to %u, but the "
                           "library's entry answers %u%s",
                           manifest->abi_min, manifest->abi_max, OLDEST_ABI, ATTUNE_ABI_VERSION, abi,
                           plugin ? "" : " and no table");
    if (plugin->struct_size < sizeof *plugin || plugin->abi != abi)
        return attune_fail(
            error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, path,
            "its plugin table has %u bytes and follows ABI %u; %zu bytes and ABI %u are expected",
            plugin->struct_size, plugin->abi, sizeof *plugin, abi);
    if (!plugin->create || !plugin->get_interface || !plugin->quiesce || !plugin->destroy)
        return attune_fail(error, ATTUNE_UNIMPLEMENTED, ATTUNE_DOMAIN, path,
                           "its plugin table lacks create, get_interface, quiesce or destroy");
    generation->plugin = plugin;
    generation->abi = abi;
    return ATTUNE_OK;
}

static attune_code same_text(const char *path, const char *field, const char *manifest, const char *library,
                             attune_error *error) {
    if (library && strcmp(manifest, library) == 0)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, path,
                       "%s: the manifest says \"%s\", the library \"%.64s\"", field, manifest,
                       library ? library : "");
}

static attune_code open_library(attune_generation *generation, attune_error *error) {
    generation->handle = dlopen(generation->copy.path, RTLD_NOW | RTLD_LOCAL);
    if (generation->handle)
        return ATTUNE_OK;
    const char *reason = dlerror();
    (void)attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, generation->path,
                      "the dynamic linker refused it: %s", reason ? reason : "no reason given");
    attune_hint(error, "install the libraries that it needs: ldd tells which");
    return ATTUNE_UNAVAILABLE;
}

attune_code attune_loader_start(attune_generation *generation, const attune_manifest *manifest,
                                const attune_manifest_library *library, attune_error *error) {
    const char *path = generation->path;
    attune *host = generation->host;
    generation->stage = "load";
    attune_code code = open_library(generation, error);
    if (!code) {
        generation->stage = "negotiate";
        code = negotiate(generation, manifest, error);
    }
    if (!code)
        code = same_text(path, "id", library->id, generation->plugin->id, error);
    if (!code)
        code = same_text(path, "version", library->version, generation->plugin->version, error);
    if (!code) {
        generation->stage = "create";
        attune_text_copy(generation->vendor, sizeof generation->vendor, generation->plugin->vendor);
        attune_printable(generation->vendor);
        attune_services_init(&generation->services, library->id, generation->abi, host->pool, &host->logger,
                             &host->total);
        attune_error reason;
        memset(&reason, 0, sizeof reason);
        code = generation->plugin->create(&generation->services.host, &generation->instance, &reason);
        if (attune_plugin_said(code, library->id, "create", &reason, error))
            generation->instance = NULL;
    }
    if (!code) {
        generation->stage = "tables";
        code = attune_tables_read(generation, library, error);
    }
    return code;
}

attune_code attune_loader_load(attune_generation *generation, int folder, const char *folder_path,
                               const attune_manifest *manifest, const attune_manifest_library *library,
                               attune_error *error) {
    attune_code code = attune_loader_check(generation, folder, folder_path, library, error);
    if (!code)
        code = attune_loader_start(generation, manifest, library, error);
    if (code)
        attune_loader_unload(generation);
    return code;
}

/* Under sanitizers a library stays mapped, so that reports about it have names and lines. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KEEP_MAPPED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KEEP_MAPPED 1
#endif
#endif
#ifndef KEEP_MAPPED
#define KEEP_MAPPED 0
#endif

/* Unmap, or park: descriptor and mapping stay as they are until the process ends. A descriptor that
 * were closed would be handed out again, and the linker would take the next copy of that name for this one.
 */
static void close_library(attune_generation *generation) {
    struct link_map *map = NULL;
    if (generation->handle && !generation->parked) {
        generation->parked = true;
        if (generation->unload_safe && !*generation->unload_risk && !KEEP_MAPPED &&
            dlinfo(generation->handle, RTLD_DI_LINKMAP, &map) == 0) {
            const void *inside = map->l_ld;
            Dl_info found;
            /* The linker may keep a library all the same: its descriptor must then stay open. */
            generation->parked =
                dlclose(generation->handle) != 0 ||
                (dladdr(inside, &found) && strcmp(found.dli_fname, generation->copy.path) == 0);
        }
    }
    attune_copy_remove(&generation->copy);
    if (!generation->parked)
        attune_copy_close(&generation->copy);
    generation->handle = NULL;
}

void attune_loader_unload(attune_generation *generation) {
    if (generation->instance) {
        attune_error error;
        memset(&error, 0, sizeof error);
        if (generation->plugin->quiesce(generation->instance, &error))
            attune_log(&generation->host->logger, ATTUNE_LOG_ERROR, generation->id, "quiesce: %s",
                       error.message);
        generation->plugin->destroy(generation->instance);
        generation->instance = NULL;
        attune_services_report_leaks(&generation->services);
    }
    generation->plugin = NULL;
    generation->device = NULL;
    generation->attention = NULL;
    generation->sampler = NULL;
    generation->device_count = generation->attention_count = 0;
    free(generation->devices);
    free(generation->backends);
    free(generation->memory_min);
    free(generation->lacks);
    generation->devices = NULL;
    generation->backends = NULL;
    generation->memory_min = NULL;
    generation->lacks = NULL;
    close_library(generation);
}
