/*
 * ops.c: the CPU's table of operations for the sampler, its device and its memory.
 */
#include "kernels/arithmetic.h"
#include "plugin/cpu/ops/cpu.h"
#include "plugin/cpu/plugin.h"

#include <stdlib.h>

const char device_plugin_id[] = "attune-sampler-cpu";
const char device_plugin_vendor[] = "Attune";

void elementwise_choose(attune_cpu_isa isa, const attune_activation_f32_kernel *kernels,
                        elementwise_kernels *table) {
    *table = elementwise_generic; /* other architectures have no more */
    (void)isa;
#if defined(__x86_64__)
    if (isa >= ATTUNE_CPU_AVX2)
        *table = elementwise_avx2;
    if (isa >= ATTUNE_CPU_AVX512)
        *table = elementwise_avx512;
#endif
    table->silu = kernels->silu;
    table->gelu = kernels->gelu;
    table->quick_gelu = kernels->quick_gelu;
    table->geglu = kernels->geglu;
    table->add = kernels->add;
}

/* What the processor has, capped by ATTUNE_CPU_MASK; another value of it is ignored (attune-cpu refuses it).
 */
static void choose_kernels(device *dev) {
    attune_cpu_isa isa = attune_cpu_detect();
    (void)attune_cpu_cap(secure_getenv("ATTUNE_CPU_MASK"), &isa);
    attune_cpu_dispatch(isa, &dev->arithmetic);
    elementwise_choose(isa, dev->arithmetic.activation_f32, &dev->loops);
    dev->kernels = &dev->loops;
}

static attune_code create(const services *host, device **out, attune_error *error) {
    device *dev = services_clear_alloc(host, 1, sizeof *dev, "device");
    if (!dev)
        return services_no_memory("device", sizeof *dev, error);
    dev->host = *host;
    choose_kernels(dev);
    cpu_instance identity;
    memset(&identity, 0, sizeof identity);
    cpu_identify(&identity, "");
    dev->id = identity.device;
    memcpy(dev->vendor, identity.vendor, sizeof dev->vendor);
    *out = dev;
    return ATTUNE_OK;
}

static void destroy(device *dev) {
    services host = dev->host;
    services_free(&host, dev);
}

/* As attune-cpu names it, so that attention backends there serve this device. */
static void describe(device *dev, attune_device_id *id, char vendor[32]) {
    *id = dev->id;
    memcpy(vendor, dev->vendor, 32);
}

static attune_code alloc(device *dev, uint64_t bytes, const char *tag, void **out, attune_error *error) {
    *out = dev->host.memory->alloc(dev->host.memory->context, bytes, tag);
    return *out ? ATTUNE_OK : services_no_memory(tag, bytes, error);
}

static void release(device *dev, void *memory) {
    services_free(&dev->host, memory);
}

static attune_code copy(device *dev, const attune_stream *stream, float *to, const float *from,
                        uint64_t count, attune_error *error) {
    (void)dev;
    (void)stream;
    (void)error;
    memcpy(to, from, count * sizeof *to);
    return ATTUNE_OK;
}

static void plan(device *dev, device_pass *pass) {
    pass->serial = atomic_fetch_add(&dev->serial, 1) + 1;
    pass->shared_bytes = 0;
    pass->worker_bytes = 0;
    pass->room_bytes = 0;
}

static const device_ops ops = {
    .arithmetic = ATTUNE_ARITHMETIC_F32,
    .determinism = ATTUNE_DETERMINISM_PORTABLE,
    .limited_by = "",
    .create = create,
    .destroy = destroy,
    .describe = describe,
    .alloc = alloc,
    .free = release,
    .upload = copy,
    .download = copy,
    .vector = cpu_vector,
    .check = cpu_check,
    .weights = cpu_weights,
    .weights_free = cpu_weights_free,
    .layer = cpu_layer,
    .plan = plan,
    .wanted = cpu_wanted,
    .packed_bytes = cpu_packed_bytes,
    .packed = cpu_packed,
    .pack = cpu_pack,
    .unpack = cpu_unpack,
    .linear = cpu_linear,
    .convolution = cpu_convolution,
    .group_norm = cpu_group_norm,
    .layer_norm = cpu_layer_norm,
    .concat = cpu_concat,
    .embed = cpu_embed,
    .activate = cpu_activate,
    .finite = cpu_finite,
};

const device_ops *device_ops_get(void) {
    return &ops;
}
