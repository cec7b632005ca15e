/* registry.c: snapshots, generations and leases. */
#include "registry.h"
#include "structs.h"
#include <stdlib.h>

static attune_snapshot *snapshot_new(attune *host, uint32_t count) {
    attune_snapshot *snapshot = calloc(1, sizeof *snapshot + count * sizeof(attune_generation *));
    if (snapshot) {
        atomic_init(&snapshot->references, 1);
        snapshot->host = host;
    }
    return snapshot;
}

static void snapshot_drop(attune_snapshot *snapshot) {
    if (!snapshot || atomic_fetch_sub_explicit(&snapshot->references, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < snapshot->count; ++i)
        attune_generation_release(snapshot->generation[i]);
    free(snapshot);
}

attune_code attune_registry_init(attune *host, attune_error *error) {
    attune_registry *registry = &host->registry;
    (void)pthread_mutex_init(&registry->lock, NULL);
    registry->current = snapshot_new(host, 0);
    registry->closed = snapshot_new(host, 0);
    if (registry->current && registry->closed)
        return ATTUNE_OK;
    return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_open",
                       "no memory for the registry");
}

/* Change the current snapshot; returns the old one, whose reference is then the caller's, or NULL after the
 * end. */
static attune_snapshot *exchange(attune_registry *registry, attune_snapshot *snapshot, bool closing) {
    attune_snapshot *old = NULL;
    (void)pthread_mutex_lock(&registry->lock);
    if (!registry->is_closed) {
        old = registry->current;
        registry->current = snapshot;
    }
    registry->is_closed |= closing;
    (void)pthread_mutex_unlock(&registry->lock);
    return old;
}

void attune_registry_close(attune *host) {
    attune_registry *registry = &host->registry;
    attune_snapshot *old = exchange(registry, registry->closed, true);
    registry->closed = NULL;
    for (uint32_t i = 0; old && i < old->count; ++i) {
        int active = ATTUNE_STATE_ACTIVE;
        (void)atomic_compare_exchange_strong(&old->generation[i]->state, &active, ATTUNE_STATE_RETIRED);
    }
    snapshot_drop(old);
}

void attune_registry_free(attune_registry *registry) {
    snapshot_drop(registry->current);
    snapshot_drop(registry->closed);
    while (registry->all) { /* the parked: their code stays, their records end */
        attune_generation *parked = registry->all;
        registry->all = parked->next;
        free(parked);
    }
    (void)pthread_mutex_destroy(&registry->lock);
}

attune_snapshot *attune_snapshot_acquire(attune *host) {
    attune_registry *registry = &host->registry;
    (void)pthread_mutex_lock(&registry->lock);
    attune_snapshot *snapshot = registry->current;
    (void)atomic_fetch_add_explicit(&snapshot->references, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&registry->lock);
    attune_host_hold(host);
    return snapshot;
}

void attune_snapshot_release(attune_snapshot *snapshot) {
    if (!snapshot)
        return;
    attune *host = snapshot->host;
    snapshot_drop(snapshot);
    attune_host_drop(host);
}

bool attune_lacks_machine(const char *stage, attune_code code) {
    return code == ATTUNE_UNAVAILABLE &&
           (strcmp(stage, "read") == 0 || strcmp(stage, ATTUNE_STAGE_LIBRARIES) == 0 ||
            strcmp(stage, "load") == 0 || strcmp(stage, "create") == 0);
}

attune_generation *attune_generation_new(attune *host) {
    attune_generation *generation = calloc(1, sizeof *generation);
    if (!generation)
        return NULL;
    generation->burial = attune_burial_new();
    if (!generation->burial) {
        free(generation);
        return NULL;
    }
    atomic_init(&generation->leases, 1);
    generation->host = host;
    generation->copy.fd = -1;
    generation->stage = "read";
    generation->number = atomic_fetch_add(&host->registry.numbers, 1) + 1;
    attune_host_hold(host);
    return generation;
}

void attune_generation_list(attune_generation *generation) {
    attune_registry *registry = &generation->host->registry;
    (void)pthread_mutex_lock(&registry->lock);
    generation->next = registry->all;
    registry->all = generation;
    (void)pthread_mutex_unlock(&registry->lock);
}

attune_generation *attune_generation_lease(attune_generation *generation) {
    (void)atomic_fetch_add_explicit(&generation->leases, 1, memory_order_relaxed);
    return generation;
}

attune_code attune_registry_publish(attune *host, attune_generation *add, attune_generation *drop,
                                    attune_error *error) {
    attune_registry *registry = &host->registry;
    attune_snapshot *old = attune_snapshot_acquire(host);
    attune_snapshot *snapshot = snapshot_new(host, old->count + 1);
    if (!snapshot) {
        attune_snapshot_release(old);
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "registry",
                           "no memory for a snapshot");
    }
    /* Publishers are serialised by the host's load_lock, so `old` is still the current one. */
    for (uint32_t i = 0; i < old->count; ++i)
        if (old->generation[i] != drop)
            snapshot->generation[snapshot->count++] = attune_generation_lease(old->generation[i]);
    if (add)
        snapshot->generation[snapshot->count++] = add;
    attune_snapshot *previous = exchange(registry, snapshot, false);
    if (!previous) {
        if (add)
            --snapshot->count; /* its lease stays the caller's */
        snapshot_drop(snapshot);
        attune_snapshot_release(old);
        return attune_fail(error, ATTUNE_CANCELLED, ATTUNE_DOMAIN, "registry", "the host is closing");
    }
    if (drop)
        atomic_store(&drop->state, ATTUNE_STATE_RETIRED);
    snapshot_drop(previous);
    attune_snapshot_release(old);
    return ATTUNE_OK;
}

void attune_generation_identity(const attune_generation *generation, attune_plugin_status *out) {
    static const char *const names[] = {"active", "refused", "retired", "staged", "stuck", "parked"};
    int state = atomic_load(&generation->state);
    memset(out, 0, sizeof *out);
    out->struct_size = sizeof *out;
    out->generation = generation->number;
    attune_text_copy(out->id, sizeof out->id, generation->id);
    attune_text_copy(out->version, sizeof out->version, generation->version);
    attune_text_copy(out->path, sizeof out->path, generation->path);
    attune_text_copy(out->state, sizeof out->state, names[state]);
    if (state == ATTUNE_STATE_REFUSED) {
        attune_text_copy(out->refused, sizeof out->refused, generation->refused);
        out->refused_code = generation->refused_code;
    }
}

void attune_generation_status(const attune_generation *generation, attune_plugin_status *out) {
    attune_generation_identity(generation, out);
    out->abi = generation->abi;
    attune_text_copy(out->vendor, sizeof out->vendor, generation->vendor);
    out->devices = generation->device_count;
    out->attention = generation->attention_count;
    out->samplers = generation->sampler ? 1 : 0;
}

const attune_device_info *attune_snapshot_find_device(const attune_snapshot *snapshot,
                                                      const attune_device_id *id, const char *name,
                                                      attune_generation **owner, uint32_t *index) {
    for (uint32_t i = 0; i < snapshot->count; ++i) {
        attune_generation *generation = snapshot->generation[i];
        for (uint32_t k = 0; k < generation->device_count; ++k) {
            const attune_device_info *info = &generation->devices[k];
            if (id ? !attune_device_same(&info->id, id) : strcmp(info->name, name) != 0)
                continue;
            if (owner)
                *owner = generation;
            if (index)
                *index = k;
            return info;
        }
    }
    return NULL;
}

uint32_t attune_snapshot_count(const attune_snapshot *snapshot) {
    return snapshot->count;
}

static attune_code find(const attune_snapshot *snapshot, uint32_t i, const char *what, uint32_t j,
                        uint32_t count, attune_error *error) {
    if (i >= snapshot->count)
        return attune_fail(error, ATTUNE_OUT_OF_RANGE, ATTUNE_DOMAIN, "attune_snapshot", "plugin %u of %u", i,
                           snapshot->count);
    if (j >= count)
        return attune_fail(error, ATTUNE_OUT_OF_RANGE, ATTUNE_DOMAIN, snapshot->generation[i]->id,
                           "%s %u of %u", what, j, count);
    return ATTUNE_OK;
}

attune_code attune_snapshot_plugin(const attune_snapshot *snapshot, uint32_t i, attune_plugin_status *out,
                                   attune_error *error) {
    attune_plugin_status status;
    attune_code code = find(snapshot, i, "plugin", 0, 1, error);
    if (code)
        return code;
    attune_generation_status(snapshot->generation[i], &status);
    return attune_struct_out(out, &status, sizeof status, "attune_plugin_status", error);
}

attune_code attune_snapshot_device(const attune_snapshot *snapshot, uint32_t i, uint32_t j,
                                   attune_device_info *out, attune_error *error) {
    attune_code code = find(snapshot, i, "device", j,
                            i < snapshot->count ? snapshot->generation[i]->device_count : 0, error);
    if (code)
        return code;
    attune_generation *generation = snapshot->generation[i];
    /* What it is was checked when it was loaded; only the memory that is free now is read again. */
    attune_device_info info = generation->devices[j], present = {.struct_size = sizeof present};
    code = generation->device->describe(generation->instance, j, &present, error);
    if (code)
        return code;
    info.memory_free = present.memory_free;
    return attune_struct_out(out, &info, sizeof info, "attune_device_info", error);
}

attune_code attune_snapshot_attention(const attune_snapshot *snapshot, uint32_t i, uint32_t j,
                                      attune_attention_info *out, attune_error *error) {
    attune_code code = find(snapshot, i, "attention backend", j,
                            i < snapshot->count ? snapshot->generation[i]->attention_count : 0, error);
    return code ? code
                : attune_struct_out(out, &snapshot->generation[i]->backends[j], sizeof *out,
                                    "attune_attention_info", error);
}

const char *attune_snapshot_lacks(const attune_snapshot *snapshot, uint32_t i, uint32_t j) {
    return find(snapshot, i, "attention backend", j,
                i < snapshot->count ? snapshot->generation[i]->attention_count : 0, NULL)
               ? NULL
               : snapshot->generation[i]->lacks[j];
}

attune_code attune_snapshot_sampler(const attune_snapshot *snapshot, uint32_t i, uint32_t j,
                                    attune_sampler_info *out, attune_error *error) {
    attune_code code = find(snapshot, i, "sampler", j,
                            i < snapshot->count && snapshot->generation[i]->sampler ? 1 : 0, error);
    return code ? code
                : attune_struct_out(out, &snapshot->generation[i]->sampler_info, sizeof *out,
                                    "attune_sampler_info", error);
}

const attune_generation *attune_snapshot_refused(const attune_snapshot *snapshot) {
    for (uint32_t i = 0; i < snapshot->count; ++i)
        if (atomic_load(&snapshot->generation[i]->state) == ATTUNE_STATE_REFUSED)
            return snapshot->generation[i];
    return NULL;
}
