/* swap.c: another build of a loaded library, staged beside it and put in its place while requests run. */
#include "swap.h"
#include "find_library.h"
#include "loader.h"
#include "self_test.h"
#include "source.h"
#include "structs.h"
#include <stdlib.h>

/* One attune_swap. */
typedef struct swap {
    attune *host;
    attune_source from;
    attune_swap_report report;
    attune_error first; /* the first refusal */
    attune_error lack;  /* what this machine lacks for one of the libraries */
    uint64_t start;
    bool waiting; /* a library that does not match yet is not worth a line */
} swap;

/* Who serves under the id now, leased; NULL = nobody. */
static attune_generation *lease_loaded(attune *host, const char *id, const char *path) {
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    attune_generation *found = attune_source_loaded(snapshot, id, path);
    if (found)
        (void)attune_generation_lease(found);
    attune_snapshot_release(snapshot);
    return found;
}

static bool serves(const attune_generation *generation) {
    return generation && atomic_load(&generation->state) == ATTUNE_STATE_ACTIVE;
}

/* A parked library costs its mapping and a descriptor for good, so a host that swaps for weeks says stop. */
static attune_code check_parked(attune *host, const char *id, attune_error *error) {
    (void)pthread_mutex_lock(&host->registry.lock);
    uint32_t parked = host->registry.parked;
    (void)pthread_mutex_unlock(&host->registry.lock);
    if (parked < host->parked_most)
        return ATTUNE_OK;
    (void)attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, id,
                      "%u ended generations are still mapped, which is the most", parked);
    attune_hint(error, "restart the application, or build plugins that may be unmapped");
    return ATTUNE_RESOURCE_EXHAUSTED;
}

static const attune_manifest_backend *find_listed(const attune_manifest_library *library, const char *id) {
    for (uint32_t i = 0; i < library->attention_count; ++i)
        if (strcmp(library->attention[i].id, id) == 0)
            return &library->attention[i];
    return NULL;
}

/* Whether a backend of the old generation lacks a shared library, and the next one's would not. */
static bool regains(const attune_generation *next, const attune_generation *old,
                    const attune_manifest_library *library) {
    for (uint32_t i = 0; i < old->attention_count; ++i) {
        const attune_manifest_backend *listed = find_listed(library, old->backends[i].name);
        if (*old->lacks[i] && listed && !attune_loader_lacks(next, &listed->required))
            return true;
    }
    return false;
}

/* A backend that serves now must not be lost for want of a shared library. */
static attune_code check_kept(attune_generation *next, const attune_generation *old,
                              const attune_manifest_library *library, attune_error *error) {
    for (uint32_t i = 0; serves(old) && i < old->attention_count; ++i) {
        const attune_manifest_backend *listed = find_listed(library, old->backends[i].name);
        const char *const lacks =
            listed && !*old->lacks[i] ? attune_loader_lacks(next, &listed->required) : NULL;
        if (!lacks)
            continue;
        (void)attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, next->path,
                          "%s needs %s, which is not found", listed->id, lacks);
        attune_hint(error, "%s", ATTUNE_FIND_ADVICE);
        return ATTUNE_UNAVAILABLE;
    }
    return ATTUNE_OK;
}

/* All stages up to publication; `next` was made and named. *unchanged = the bytes serve already. */
static attune_code stage(swap *work, attune_generation *next, const attune_generation *old,
                         const attune_manifest_library *library, bool *unchanged, attune_error *error) {
    attune_source *from = &work->from;
    attune *host = work->host;
    attune_code code = attune_loader_check(next, from->folder, from->folder_path, library, error);
    const bool same = !code && old && memcmp(old->sha256, next->sha256, sizeof old->sha256) == 0;
    *unchanged = same && serves(old) && !regains(next, old, library);
    if (code || *unchanged)
        return code;
    /* What it lacked is tried again where that is known without running its code. */
    if (same && strcmp(old->stage, ATTUNE_STAGE_LIBRARIES) != 0 &&
        attune_lacks_machine(old->stage, old->refused_code)) {
        next->stage = old->stage;
        return attune_fail(error, ATTUNE_UNAVAILABLE, library->id, next->stage, "%s", old->refused);
    }
    code = check_kept(next, old, library, error); /* still at the stage of the libraries */
    if (!code)
        code = check_parked(host, library->id, error);
    if (!code) {
        next->stage = "probe";
        code = attune_probe(&host->probes, next->sha256, next->copy.path, next->path, error);
    }
    if (!code)
        code = attune_loader_start(next, &from->manifest, library, error);
    if (!code) {
        next->stage = "self-test";
        code = attune_self_test(next, error);
    }
    return code;
}

static void note_refusal(swap *work, const attune_generation *next, const attune_generation *old,
                         const attune_error *reason) {
    attune_swap_report *report = &work->report;
    char serving[96] = "nothing served under its id before";
    if (serves(old))
        (void)snprintf(serving, sizeof serving, "version %s, generation %llu, serves on", old->version,
                       (unsigned long long)old->number);
    if (!work->waiting || strcmp(next->stage, "check") != 0)
        attune_log(&work->host->logger, ATTUNE_LOG_WARNING, next->id,
                   "swap refused at the stage %s: %s: %s; %s", next->stage, reason->where, reason->message,
                   serving);
    if (report->refused++)
        return;
    work->first = *reason;
    attune_text_copy(report->stage, sizeof report->stage, next->stage);
    if (report->generation)
        return;
    attune_text_copy(report->plugin, sizeof report->plugin, next->id);
    attune_text_copy(report->version, sizeof report->version, next->version);
}

static void note_lack(swap *work, const attune_generation *next, const attune_error *reason) {
    work->lack = *reason;
    attune_log(&work->host->logger, ATTUNE_LOG_INFO, next->id, "not for this machine: %s: %s", reason->where,
               reason->message);
}

static void note_published(swap *work, const attune_generation *next, uint64_t replaced) {
    attune_swap_report *report = &work->report;
    report->generation = next->number;
    report->replaced = replaced;
    report->nanoseconds = attune_services_now(NULL) - work->start;
    attune_text_copy(report->plugin, sizeof report->plugin, next->id);
    attune_text_copy(report->version, sizeof report->version, next->version);
    attune_log(&work->host->logger, ATTUNE_LOG_INFO, next->id,
               "version %s, generation %llu, serves from %s in place of generation %llu", next->version,
               (unsigned long long)next->number, next->path, (unsigned long long)report->replaced);
}

/* Named but not loaded: what the manifest says of it. */
static attune_generation *named(const swap *work, const attune_manifest_library *library,
                                attune_error *error) {
    attune_generation *next = attune_generation_new(work->host);
    if (!next) {
        (void)attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, library->id,
                          "no memory to load it");
        return NULL;
    }
    atomic_store(&next->state, ATTUNE_STATE_STAGED);
    attune_text_copy(next->id, sizeof next->id, library->id);
    attune_text_copy(next->version, sizeof next->version, library->version);
    attune_text_copy(next->vendor, sizeof next->vendor, work->from.manifest.vendor);
    attune_text_copy(next->manifest, sizeof next->manifest, work->from.path);
    (void)snprintf(next->path, sizeof next->path, "%.240s/%.255s", work->from.folder_path, library->path);
    attune_generation_list(next);
    return next;
}

static attune_code swap_library(swap *work, uint32_t i, attune_error *error) {
    const attune_manifest_library *library = &work->from.manifest.library[i];
    attune_error reason;
    bool unchanged = false;
    int level;
    memset(&reason, 0, sizeof reason);
    attune_code fits = attune_loader_fits(&work->from.manifest, library, &level, &reason);
    if (attune_source_outdone(&work->from.manifest, i, fits ? -1 : level))
        return ATTUNE_OK;
    attune_generation *next = named(work, library, error);
    if (!next)
        return ATTUNE_RESOURCE_EXHAUSTED;
    attune_generation *old = lease_loaded(work->host, library->id, next->path);
    bool replaces = serves(old);
    if (!fits)
        fits = stage(work, next, old, library, &unchanged, &reason);
    if (!fits && !unchanged) {
        next->stage = "publish";
        atomic_store(&next->state, ATTUNE_STATE_ACTIVE);
        fits = attune_registry_publish(work->host, next, old, &reason);
    }
    if (fits && attune_lacks_machine(next->stage, reason.code) && !serves(old))
        note_lack(work, next, &reason);
    else if (fits)
        note_refusal(work, next, old, &reason);
    else if (unchanged)
        ++work->report.unchanged;
    else {
        replaces ? ++work->report.swapped : ++work->report.added;
        note_published(work, next, replaces ? old->number : 0);
    }
    if (fits || unchanged)
        attune_generation_release(next);
    attune_generation_release(old);
    return ATTUNE_OK;
}

static attune_code run(swap *work, const char *manifest_path, attune_error *error) {
    attune *host = work->host;
    attune_text_copy(work->report.stage, sizeof work->report.stage, "read");
    attune_code code = attune_source_open(manifest_path, &work->from, error);
    if (code)
        return code;
    *work->report.stage = 0;
    (void)pthread_mutex_lock(&host->load_lock);
    for (uint32_t i = 0; i < work->from.manifest.library_count && !code; ++i)
        code = swap_library(work, i, error);
    (void)pthread_mutex_unlock(&host->load_lock);
    attune_source_close(&work->from);
    const attune_swap_report *report = &work->report;
    const bool served = report->swapped || report->added || report->unchanged;
    if (!code && (report->refused || (work->lack.code && !served))) {
        const attune_error *reason = report->refused ? &work->first : &work->lack;
        code = reason->code;
        if (error)
            *error = *reason;
    }
    return code;
}

attune_code attune_swap(attune *host, const char *manifest_path, attune_swap_report *report,
                        attune_error *error) {
    return attune_swap_from(host, manifest_path, false, report, error);
}

attune_code attune_swap_from(attune *host, const char *manifest_path, int waiting, attune_swap_report *report,
                             attune_error *error) {
    if (!host || !manifest_path)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_swap",
                           "host or manifest path is NULL");
    attune_code code =
        report ? attune_struct_room(report, sizeof *report, "attune_swap_report", error) : ATTUNE_OK;
    if (code)
        return code;
    if (attune_inside) {
        (void)attune_fail(error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, "attune_swap",
                          "a swap from inside a callback would wait for the call that it is made from");
        attune_hint(error, "note it there and swap from a thread of the application's");
        return ATTUNE_FAILED_PRECONDITION;
    }
    swap *work = calloc(1, sizeof *work);
    if (!work)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, manifest_path,
                           "no memory to swap");
    work->start = attune_services_now(NULL);
    work->host = host;
    work->waiting = waiting != 0;
    work->report.struct_size = sizeof work->report;
    attune_host_hold(host);
    code = run(work, manifest_path, error);
    if (report)
        (void)attune_struct_out(report, &work->report, sizeof work->report, "attune_swap_report", NULL);
    free(work);
    attune_host_drop(host);
    return code;
}

attune_code attune_generation_at(attune *host, uint32_t i, attune_generation_info *out, attune_error *error) {
    attune_generation_info info = {.struct_size = sizeof info};
    if (!host)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_generation_at",
                           "host is NULL");
    (void)pthread_mutex_lock(&host->registry.lock);
    const attune_generation *at = host->registry.all;
    for (uint32_t k = 0; at && k < i; ++k)
        at = at->next;
    if (at) {
        info.leases = atomic_load(&at->leases);
        attune_generation_identity(at, &info.plugin);
        if (atomic_load(&at->state) != ATTUNE_STATE_STAGED)
            attune_text_copy(info.unload_risk, sizeof info.unload_risk, at->unload_risk);
    }
    (void)pthread_mutex_unlock(&host->registry.lock);
    if (!at)
        return attune_fail(error, ATTUNE_OUT_OF_RANGE, ATTUNE_DOMAIN, "attune_generation_at",
                           "there is no generation %u in the list", i);
    return attune_struct_out(out, &info, sizeof info, "attune_generation_info", error);
}
