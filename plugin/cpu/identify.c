/* plugin/cpu/identify.c: which processor this is: vendor and product name from cpuid, and a UUID. */
#include "plugin/cpu/plugin.h"

#include <stdio.h>
#include <string.h>

#ifdef __x86_64__
#include <cpuid.h>

/* The 12 characters of leaf 0 in registers b, d, c (Intel SDM vol. 2A, CPUID), as a name that people type. */
static void read_vendor(char vendor[32]) {
    static const char *const names[][2] = {{"GenuineIntel", "Intel"},
                                           {"AuthenticAMD", "AMD"},
                                           {"HygonGenuine", "Hygon"},
                                           {"CentaurHauls", "Zhaoxin"},
                                           {"  Shanghai  ", "Zhaoxin"}};
    uint32_t eax = 0, words[3] = {0};
    char raw[13] = {0};
    if (!__get_cpuid(0, &eax, &words[0], &words[2], &words[1]))
        memset(words, 0, sizeof words);
    memcpy(raw, words, 12);
    (void)snprintf(vendor, 32, "%s", raw[0] ? raw : "unknown");
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
        if (strcmp(raw, names[i][0]) == 0)
            (void)snprintf(vendor, 32, "%s", names[i][1]);
}

/* Leaves 0x80000002 to 4 hold the brand string, with spaces around it on some processors. */
static void read_label(char label[64]) {
    uint32_t words[12] = {0};
    char raw[49] = {0};
    for (unsigned i = 0; i < 3; ++i)
        if (!__get_cpuid(0x80000002u + i, &words[4 * i], &words[4 * i + 1], &words[4 * i + 2],
                         &words[4 * i + 3]))
            break;
    memcpy(raw, words, 48);
    const char *start = raw + strspn(raw, " ");
    size_t length = strlen(start);
    while (length > 0 && start[length - 1] == ' ')
        --length;
    (void)snprintf(label, 64, "%.*s", length ? (int)length : 11, length ? start : "unknown CPU");
}

/* Family, model and stepping. */
static uint32_t read_signature(void) {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) ? eax : 0;
}
#else
static void read_vendor(char vendor[32]) {
    (void)snprintf(vendor, 32, "unknown");
}
static void read_label(char label[64]) {
    (void)snprintf(label, 64, "unknown CPU");
}
static uint32_t read_signature(void) {
    return 0;
}
#endif

/* FNV-1a, 64 bits (Fowler, Noll, Vo): tells machines apart, protects nothing. */
static uint64_t hash(uint64_t state, const void *data, size_t size) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; ++i)
        state = (state ^ bytes[i]) * 0x100000001b3u;
    return state;
}

void cpu_identify(cpu_instance *cpu, const char *root) {
    char path[512], machine[64] = {0};
    read_vendor(cpu->vendor);
    read_label(cpu->label);
    const uint32_t signature = read_signature();
    if (snprintf(path, sizeof path, "%s/etc/machine-id", root) < (int)sizeof path) {
        FILE *file = fopen(path, "re");
        if (file) {
            if (!fgets(machine, sizeof machine, file))
                machine[0] = 0; /* an empty machine-id is allowed: then the processor alone makes the UUID */
            (void)fclose(file);
        }
    }
    for (int half = 0; half < 2; ++half) {
        uint64_t state = 0xcbf29ce484222325u + (uint64_t)half;
        state = hash(state, cpu->vendor, strlen(cpu->vendor));
        state = hash(state, cpu->label, strlen(cpu->label));
        state = hash(state, &signature, sizeof signature);
        state = hash(state, machine, strlen(machine));
        memcpy(cpu->device.uuid + 8 * half, &state, 8);
    }
    cpu->device.uuid[6] = (uint8_t)((cpu->device.uuid[6] & 0x0f) | 0x80); /* RFC 9562: version 8, custom */
    cpu->device.uuid[8] = (uint8_t)((cpu->device.uuid[8] & 0x3f) | 0x80);
    cpu->device.type = ATTUNE_DEVICE_CPU;
    cpu->device.index = 0;
}
