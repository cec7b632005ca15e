/* served.c: who served a picture, in the infotext's words. */
#include "served.h"

void served_text(const attune_attention_record *records, uint32_t count, const attune_sampler_info *sampler,
                 char *names, char *arithmetic, size_t size) {
    names[0] = arithmetic[0] = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const attune_choice *c = &records[i].choice;
        char one[160];
        (void)snprintf(one, sizeof one, "%s (%s %s, %s)", c->backend, c->plugin, c->version,
                       attune_determinism_name(c->determinism));
        size_t used = strlen(names), used_id = strlen(arithmetic);
        if (!strstr(names, one))
            (void)snprintf(names + used, size - used, "%s%s", used ? "; " : "", one);
        if (!strstr(arithmetic, c->arithmetic))
            (void)snprintf(arithmetic + used_id, size - used_id, "%s%s", used_id ? "; " : "", c->arithmetic);
    }
    size_t used = strlen(arithmetic);
    if (!strstr(arithmetic, sampler->arithmetic))
        (void)snprintf(arithmetic + used, size - used, "%s%s", used ? "; " : "", sampler->arithmetic);
}
