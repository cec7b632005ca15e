/* choice.c: a choice and its reasons, as text and as JSON. */
#include "app.h"

json_t *json_text(const char *text) {
    json_t *string = json_string(text);
    if (string)
        return string;
    char copy[4096];
    (void)snprintf(copy, sizeof copy, "%s", text);
    for (char *c = copy; *c; ++c) { /* a byte that starts no whole character, found by asking jansson */
        size_t bytes = (*c & 0x80) == 0 ? 1 : (*c & 0xe0) == 0xc0 ? 2 : (*c & 0xf0) == 0xe0 ? 3 : 4;
        json_t *whole = bytes <= strnlen(c, bytes) ? json_stringn(c, bytes) : NULL;
        if (whole)
            c += bytes - 1;
        else
            *c = '?';
        json_decref(whole);
    }
    return json_string(copy);
}

const char *mask_name(int32_t mask, int32_t causal) {
    if (causal)
        return mask == ATTUNE_MASK_NONE   ? "causal"
               : mask == ATTUNE_MASK_BOOL ? "causal+bool"
                                          : "causal+float";
    return mask == ATTUNE_MASK_NONE ? "none" : mask == ATTUNE_MASK_BOOL ? "bool" : "float";
}

void problem_text(const attune_attention_problem *p, char *text, size_t size) {
    (void)snprintf(text, size, "(%lld, %lld, %lld, %lld, %lld) %s, mask %s", (long long)p->batch,
                   (long long)p->heads_q, (long long)p->n_q, (long long)p->n_k, (long long)p->d_qk,
                   attune_dtype_name(p->dtype), mask_name(p->mask, p->causal));
}

json_t *problem_json(const attune_attention_problem *p) {
    return json_pack("{s:[I,I,I,I,I], s:s, s:s}", "shape", (json_int_t)p->batch, (json_int_t)p->heads_q,
                     (json_int_t)p->n_q, (json_int_t)p->n_k, (json_int_t)p->d_qk, "dtype",
                     attune_dtype_name(p->dtype), "mask", mask_name(p->mask, p->causal));
}

json_t *choice_json(const attune_choice *choice) {
    json_t *explain = json_array();
    for (uint32_t i = 0; i < choice->candidates; ++i) {
        const attune_candidate *c = &choice->candidate[i];
        json_array_append_new(explain, json_pack("{s:s, s:s, s:b, s:s, s:s}", "backend", c->backend, "plugin",
                                                 c->plugin, "chosen", (int)c->chosen, "code",
                                                 attune_code_name(c->code), "reason", c->reason));
    }
    if (!choice->backend[0])
        return json_pack("{s:n, s:o}", "backend", "explain", explain);
    const char *determinism = attune_determinism_name(choice->determinism);
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o}", "backend", choice->backend, "plugin", choice->plugin,
                  "version", choice->version, "determinism", determinism ? determinism : "none", "arithmetic",
                  choice->arithmetic, "isa", choice->isa, "explain", explain);
    if (choice->fallback[0])
        json_object_set_new(out, "fallback", json_string(choice->fallback));
    return out;
}

static int same_reasons(const attune_choice *a, const attune_choice *b) {
    int same = a->candidates == b->candidates;
    for (uint32_t i = 0; same && i < a->candidates; ++i)
        same = a->candidate[i].chosen == b->candidate[i].chosen &&
               strcmp(a->candidate[i].reason, b->candidate[i].reason) == 0;
    return same;
}

void choice_explain(const attune_attention_record *records, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        const attune_choice *choice = &records[i].choice;
        uint32_t earlier = 0;
        while (earlier < i && !same_reasons(&records[earlier].choice, choice))
            ++earlier;
        if (earlier < i)
            continue; /* listed with that one */
        for (uint32_t k = i; k < count; ++k)
            if (same_reasons(&records[k].choice, choice)) {
                char text[160];
                problem_text(&records[k].problem, text, sizeof text);
                fprintf(stderr, "attention %s:\n", text);
            }
        for (uint32_t k = 0; k < choice->candidates; ++k) {
            const attune_candidate *c = &choice->candidate[k];
            fprintf(stderr, "  %c %-12s %-20s %s\n", c->chosen ? '*' : ' ', c->backend, c->plugin, c->reason);
        }
    }
}
