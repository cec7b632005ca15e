/* plugin/cpu/plugin.c: entry and life of the plugin attune-cpu: attention and the device `cpu`. */
#include "plugin/cpu/plugin.h"
#include "plugin/cpu/memory.h"

#include <stdlib.h>
#include <string.h>

int cpu_struct_fits(uint32_t size, size_t needed, const char *where, attune_error *error) {
    if (size >= needed)
        return 1;
    attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, where,
                "struct_size %u is less than the %zu bytes of this revision", size, needed);
    return 0;
}

static attune_code find_service(const attune_host *host, const char *id, size_t needed, const void **out,
                                attune_error *error) {
    *out = host->get_service(host, id);
    if (!*out)
        return attune_fail(error, ATTUNE_FAILED_PRECONDITION, CPU_PLUGIN_ID, id,
                           "the host does not offer this service");
    uint32_t size; /* each service's first member */
    memcpy(&size, *out, sizeof size);
    return cpu_struct_fits(size, needed, id, error) ? ATTUNE_OK : ATTUNE_INVALID_ARGUMENT;
}

static attune_code find_services(const attune_host *host, cpu_instance *cpu, attune_error *error) {
    const void *memory = NULL, *parallel = NULL, *clock = NULL;
    attune_code code = find_service(host, "attune.memory/1", sizeof *cpu->memory, &memory, error);
    if (code == ATTUNE_OK)
        code = find_service(host, "attune.parallel/1", sizeof *cpu->parallel, &parallel, error);
    if (code == ATTUNE_OK)
        code = find_service(host, "attune.clock/1", sizeof *cpu->clock, &clock, error);
    cpu->memory = memory;
    cpu->parallel = parallel;
    cpu->clock = clock;
    return code;
}

static attune_code create(const attune_host *host, void **instance, attune_error *error) {
    if (!host || !instance)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "create",
                           "host or instance is NULL");
    if (!cpu_struct_fits(host->struct_size, sizeof *host, "attune_host", error))
        return ATTUNE_INVALID_ARGUMENT;
    cpu_instance cpu;
    memset(&cpu, 0, sizeof cpu);
    const attune_code code = find_services(host, &cpu, error);
    if (code != ATTUNE_OK)
        return code;
    const char *mask = secure_getenv("ATTUNE_CPU_MASK");
    attune_cpu_isa isa = attune_cpu_detect();
    if (!attune_cpu_cap(mask, &isa)) {
        attune_fail(error, ATTUNE_INVALID_ARGUMENT, CPU_PLUGIN_ID, "ATTUNE_CPU_MASK",
                    "ATTUNE_CPU_MASK is \"%.64s\", which is none of " ATTUNE_CPU_ISA_NAMES, mask);
        attune_hint(error, "set it to one of these, or unset it");
        return ATTUNE_INVALID_ARGUMENT;
    }
    attune_cpu_dispatch(isa, &cpu.kernels);
    cpu_identify(&cpu, "");
    cpu_memory has;
    if (cpu_memory_read("", &has))
        cpu.memory_total = has.total;
    cpu_instance *made = cpu.memory->alloc(cpu.memory->context, sizeof cpu, "instance");
    if (!made)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, CPU_PLUGIN_ID, "create",
                           "no memory for %zu bytes", sizeof cpu);
    *made = cpu;
    *instance = made;
    return ATTUNE_OK;
}

static const void *get_interface(void *instance, const char *id) {
    (void)instance;
    if (strcmp(id, ATTUNE_DEVICE_INTERFACE) == 0)
        return &cpu_device_table;
    return strcmp(id, ATTUNE_ATTENTION_INTERFACE) == 0 ? (const void *)&cpu_attention_table : NULL;
}

/* Work is done when a call returns. */
static attune_code quiesce(void *instance, attune_error *error) {
    (void)instance;
    (void)error;
    return ATTUNE_OK;
}

static void destroy(void *instance) {
    cpu_instance *cpu = instance;
    if (cpu)
        cpu->memory->free(cpu->memory->context, cpu);
}

static const attune_plugin plugin_table = {.struct_size = sizeof plugin_table,
                                           .abi = ATTUNE_ABI_VERSION,
                                           .id = CPU_PLUGIN_ID,
                                           .version = ATTUNE_VERSION,
                                           .vendor = "Attune",
                                           .licence = "Apache-2.0",
                                           .create = create,
                                           .get_interface = get_interface,
                                           .quiesce = quiesce,
                                           .destroy = destroy};

/* See attune/plugin.h. Only version 1 exists, so it is what any newer host speaks too. */
ATTUNE_EXPORT attune_code attune_plugin_entry(uint32_t *abi, const attune_plugin **out);
attune_code attune_plugin_entry(uint32_t *abi, const attune_plugin **out) {
    if (!abi || !out)
        return ATTUNE_INVALID_ARGUMENT;
    const uint32_t host_speaks = *abi;
    *abi = ATTUNE_ABI_VERSION;
    if (host_speaks < ATTUNE_ABI_VERSION)
        return ATTUNE_UNIMPLEMENTED;
    *out = &plugin_table;
    return ATTUNE_OK;
}
