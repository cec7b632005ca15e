/* filter.c: the hard filters of a wish on devices, and names that users mistype. */
#include "choose.h"
#include "problem.h"
#include "structs.h"
#include <strings.h>

attune_code attune_wish_check(const attune_wish *wish, attune_error *error) {
    attune_code code = attune_struct_in(wish, sizeof *wish, "attune_wish", error);
    if (code)
        return code;
    if (!attune_determinism_name(wish->determinism))
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_wish",
                           "determinism class %d is unknown", wish->determinism);
    if (wish->required > 1)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_wish",
                           "`required` is neither 0 nor 1");
    if (wish->swap > ATTUNE_SWAP_STEP || wish->reserved)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_wish",
                           "swap policy %u is unknown, or a reserved field is not 0", wish->swap);
    if (wish->required && !wish->attention)
        return attune_fail(error, ATTUNE_INVALID_ARGUMENT, ATTUNE_DOMAIN, "attune_wish",
                           "`required` without a backend's name");
    return attune_chunks_check(&wish->chunks, error);
}

int attune_wish_device(const attune_snapshot *snapshot, const attune_wish *wish,
                       const attune_device_id *device, const char *vendor, uint64_t memory_min,
                       char reason[192]) {
    const attune_device_info *info = attune_snapshot_find_device(snapshot, device, NULL, NULL, NULL);
    const char *name = info ? info->name : "a device that no plugin drives";
    uint64_t least = memory_min > wish->min_memory ? memory_min : wish->min_memory;
    if (wish->device && (!info || strcmp(info->name, wish->device) != 0)) {
        (void)snprintf(reason, 192, "runs on %s, device %.32s was asked for", name, wish->device);
        return ATTUNE_FILTER_DEVICE;
    }
    if (wish->vendor && strcasecmp(wish->vendor, vendor) != 0) {
        (void)snprintf(reason, 192, "its device is from %s, vendor %.32s was asked for", vendor,
                       wish->vendor);
        return ATTUNE_FILTER_VENDOR;
    }
    if (least > 0 && !info) {
        (void)snprintf(reason, 192, "the memory of its device is not known");
        return ATTUNE_FILTER_MEMORY;
    }
    if (least > 0 && info->memory_total < least) {
        char has[32], wants[32];
        attune_text_bytes(has, info->memory_total);
        attune_text_bytes(wants, least);
        (void)snprintf(reason, 192, "%s has %s of memory, %s are %s", name, has, wants,
                       memory_min >= wish->min_memory ? "needed" : "asked for");
        return ATTUNE_FILTER_MEMORY;
    }
    return ATTUNE_FILTER_PASSED;
}

/* Levenshtein's distance, letter case ignored, of names that are short; long ones are far from everything. */
static uint32_t distance(const char *a, const char *b) {
    uint32_t row[34];
    size_t a_length = strlen(a), b_length = strlen(b);
    if (a_length > 32 || b_length > 32)
        return 99;
    for (uint32_t j = 0; j <= b_length; ++j)
        row[j] = j;
    for (size_t i = 0; i < a_length; ++i) {
        uint32_t diagonal = row[0];
        row[0] = (uint32_t)i + 1;
        for (size_t j = 0; j < b_length; ++j) {
            uint32_t change = diagonal + (strncasecmp(a + i, b + j, 1) != 0);
            diagonal = row[j + 1];
            uint32_t step = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            row[j + 1] = change < step ? change : step;
        }
    }
    return row[b_length];
}

const char *attune_did_you_mean(const char *name, const char *names, size_t row, uint32_t count) {
    size_t third = strlen(name) / 3;
    uint32_t best = third < 2 ? (third ? (uint32_t)third : 1) : 2;
    const char *found = NULL;
    for (uint32_t i = 0; i < count; ++i) {
        uint32_t edits = distance(name, names + i * row);
        if (edits < best || (edits == best && !found)) {
            best = edits;
            found = names + i * row;
        }
    }
    return found;
}
