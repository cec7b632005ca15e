/* host.c: open and close a host; load manifests by name or by search. */
#include "cpus.h"
#include "loader.h"
#include "plugin_search.h"
#include "source.h"
#include "structs.h"
#include <stdlib.h>

/* Where `make install` puts plugins; the build sets it to its own prefix. */
#ifndef ATTUNE_PLUGIN_DIR
#define ATTUNE_PLUGIN_DIR "/usr/local/lib/attune"
#endif

#define MAX_THREADS 4096u

void attune_host_hold(attune *host) {
    (void)atomic_fetch_add_explicit(&host->references, 1, memory_order_relaxed);
}

void attune_host_drop(attune *host) {
    if (atomic_fetch_sub_explicit(&host->references, 1, memory_order_acq_rel) != 1)
        return;
    attune_registry_free(&host->registry);
    attune_pool_destroy(host->pool);
    (void)pthread_mutex_destroy(&host->load_lock);
    free(host->plugin_dir);
    free(host->vocabulary);
    free(host);
}

static attune_code set_up(attune *host, const attune_options *options, attune_error *error) {
    uint32_t threads = options && options->threads ? options->threads : attune_cpus_allowed();
    if (threads > MAX_THREADS)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_open",
                           "%u threads (at most %u)", threads, MAX_THREADS);
    host->plugin_dir = strdup(options && options->plugin_dir ? options->plugin_dir : ATTUNE_PLUGIN_DIR);
    host->vocabulary = options && options->vocabulary ? strdup(options->vocabulary) : NULL;
    if (!host->plugin_dir || (options && options->vocabulary && !host->vocabulary))
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_open",
                           "no memory for a host");
    if (options) {
        host->logger.log = options->log;
        host->logger.context = options->log_context;
    }
    attune_code code = attune_registry_init(host, error);
    return code ? code : attune_pool_create(threads, &host->pool, error);
}

attune_code attune_open(const attune_options *options, attune **out, attune_error *error) {
    attune_code code =
        options ? attune_struct_in(options, sizeof *options, "attune_options", error) : ATTUNE_OK;
    if (code)
        return code;
    attune *host = calloc(1, sizeof *host);
    if (!host)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_open",
                           "no memory for a host");
    atomic_init(&host->references, 1);
    (void)pthread_mutex_init(&host->load_lock, NULL);
    host->parked_most = ATTUNE_PARKED_MOST;
    host->quiesce_wait = ATTUNE_QUIESCE_WAIT;
    code = set_up(host, options, error);
    if (code)
        attune_host_drop(host);
    else
        *out = host;
    return code;
}

void attune_close(attune *host) {
    if (!host)
        return;
    attune_registry_close(host);
    attune_host_drop(host);
}

/* An earlier refusal of this very library, leased, which a new load replaces; NULL = none. */
static attune_generation *find_refused(attune *host, const char *id, const char *path) {
    attune_generation *found = NULL;
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    for (uint32_t i = 0; i < snapshot->count && !found; ++i) {
        attune_generation *generation = snapshot->generation[i];
        if (atomic_load(&generation->state) == ATTUNE_STATE_REFUSED && strcmp(generation->id, id) == 0 &&
            strcmp(generation->path, path) == 0)
            found = attune_generation_lease(generation);
    }
    attune_snapshot_release(snapshot);
    return found;
}

/* How a load went, over the libraries of one or more manifests. */
typedef struct tally {
    uint32_t active;
    uint32_t skipped;
    attune_error first; /* the first refusal; code OK = none */
} tally;

static void refuse(attune_generation *generation, const attune_error *error, bool quietly, tally *count) {
    attune_error *first = &count->first;
    if (first->code == ATTUNE_OK)
        *first = *error;
    atomic_store(&generation->state, ATTUNE_STATE_REFUSED);
    const size_t room = sizeof generation->refused, hint = *error->hint ? strlen(error->hint) + 3 : 0;
    (void)snprintf(generation->refused, room, hint ? "%.*s (%s)" : "%.*s", (int)(room - 1 - hint),
                   error->message, error->hint);
    generation->refused_code = error->code;
    const bool news = !quietly || !attune_lacks_machine(generation->stage, error->code);
    attune_log(&generation->host->logger, news ? ATTUNE_LOG_WARNING : ATTUNE_LOG_INFO, generation->id,
               "refused: %s%s%s", error->message, *error->hint ? "; " : "", error->hint);
}

/* Load library i of a manifest and publish it, active or refused. The error is one of the host's own. */
static attune_code load_library(attune *host, attune_source *from, uint32_t i, bool quietly, tally *count,
                                attune_error *error) {
    const attune_manifest_library *library = &from->manifest.library[i];
    attune_error reason;
    char path[PATH_MAX + 256];
    int level;
    memset(&reason, 0, sizeof reason);
    attune_code fits = attune_loader_fits(&from->manifest, library, &level, &reason);
    if (attune_source_outdone(&from->manifest, i, fits ? -1 : level))
        return ATTUNE_OK;
    (void)snprintf(path, sizeof path, "%s/%s", from->folder_path, library->path);
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    attune_generation *loaded = attune_source_loaded(snapshot, library->id, quietly ? path : NULL);
    if (loaded && !fits)
        fits = attune_fail(&reason, ATTUNE_ALREADY_EXISTS, ATTUNE_DOMAIN, path,
                           "%s is loaded already, version %s from %s", library->id, loaded->version,
                           loaded->path);
    attune_snapshot_release(snapshot);
    if (loaded && quietly) {
        ++count->skipped;
        return ATTUNE_OK;
    }
    attune_generation *generation = attune_generation_new(host);
    if (!generation)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, path, "no memory to load it");
    attune_text_copy(generation->id, sizeof generation->id, library->id);
    attune_text_copy(generation->version, sizeof generation->version, library->version);
    attune_text_copy(generation->path, sizeof generation->path, path);
    attune_text_copy(generation->vendor, sizeof generation->vendor, from->manifest.vendor);
    attune_text_copy(generation->manifest, sizeof generation->manifest, from->path);
    atomic_store(&generation->state, ATTUNE_STATE_STAGED);
    attune_generation_list(generation);
    attune_generation *before = find_refused(host, library->id, path);
    if (!fits)
        fits = attune_loader_load(generation, from->folder, from->folder_path, &from->manifest, library,
                                  &reason);
    if (fits)
        refuse(generation, &reason, quietly, count);
    else
        atomic_store(&generation->state, ATTUNE_STATE_ACTIVE);
    attune_code code = attune_registry_publish(host, generation, before, error);
    if (code)
        attune_generation_release(generation);
    else if (!fits) {
        ++count->active;
        attune_log(&host->logger, ATTUNE_LOG_INFO, library->id, "loaded version %s from %s", library->version,
                   path);
    }
    if (before)
        attune_generation_release(before);
    return code;
}

static attune_code load_manifest(attune *host, const char *path, bool quietly, tally *count,
                                 attune_error *error) {
    attune_source *from = calloc(1, sizeof *from);
    if (!from)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, path, "no memory to load it");
    attune_code code = attune_source_open(path, from, error);
    if (!code) {
        (void)pthread_mutex_lock(&host->load_lock);
        for (uint32_t i = 0; i < from->manifest.library_count && !code; ++i)
            code = load_library(host, from, i, quietly, count, error);
        (void)pthread_mutex_unlock(&host->load_lock);
        attune_source_close(from);
    }
    free(from);
    return code;
}

attune_code attune_load(attune *host, const char *manifest_path, attune_error *error) {
    if (!host || !manifest_path)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_load",
                           "host or manifest path is NULL");
    tally count;
    memset(&count, 0, sizeof count);
    attune_code code = load_manifest(host, manifest_path, false, &count, error);
    if (code || count.active)
        return code;
    if (error)
        *error = count.first;
    return count.first.code;
}

attune_code attune_load_default(attune *host, attune_error *error) {
    if (!host)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_load_default",
                           "host is NULL");
    attune_paths paths;
    tally count;
    memset(&count, 0, sizeof count);
    attune_code code = attune_search(host->plugin_dir, &host->logger, &paths, NULL, error);
    for (uint32_t i = 0; i < paths.count && !code; ++i) {
        attune_error reason;
        memset(&reason, 0, sizeof reason);
        if (load_manifest(host, paths.path[i], true, &count, &reason) == ATTUNE_OK)
            continue;
        attune_log(&host->logger, ATTUNE_LOG_WARNING, ATTUNE_DOMAIN, "%s: %s%s%s", paths.path[i],
                   reason.message, *reason.hint ? "; " : "", reason.hint);
        if (count.first.code == ATTUNE_OK)
            count.first = reason;
    }
    attune_paths_free(&paths);
    if (code || count.active || count.skipped)
        return code;
    if (count.first.code) {
        if (error)
            *error = count.first;
        return count.first.code;
    }
    (void)attune_fail(error, ATTUNE_NOT_FOUND, ATTUNE_DOMAIN, host->plugin_dir,
                      "no plugin manifest was found");
    attune_hint(error, "name one with --plugin or in ATTUNE_PLUGIN_PATH");
    return ATTUNE_NOT_FOUND;
}

attune_code attune_memory(attune *host, const char *plugin, attune_memory_usage *out, attune_error *error) {
    if (!host)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_memory", "host is NULL");
    attune_memory_usage usage = {.struct_size = sizeof usage};
    bool found = plugin == NULL;
    if (found) {
        usage.current = atomic_load(&host->total.current);
        usage.peak = atomic_load(&host->total.peak);
    } else {
        attune_snapshot *snapshot = attune_snapshot_acquire(host);
        attune_generation *generation = attune_source_loaded(snapshot, plugin, NULL);
        found = generation != NULL;
        if (found) {
            usage.current = atomic_load(&generation->services.account.current);
            usage.peak = atomic_load(&generation->services.account.peak);
        }
        attune_snapshot_release(snapshot);
    }
    if (!found)
        return attune_fail(error, ATTUNE_NOT_FOUND, ATTUNE_DOMAIN, plugin, "no plugin \"%s\" is loaded",
                           plugin);
    return attune_struct_out(out, &usage, sizeof usage, "attune_memory_usage", error);
}
