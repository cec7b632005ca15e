/*
 * plugin/layout.h: where the arrays of an attention problem may lie: the rules of every plugin's attention,
 * and the reasons in their words.
 */
#ifndef ATTUNE_PLUGIN_LAYOUT_H
#define ATTUNE_PLUGIN_LAYOUT_H

#include "attune/attention.h"

/* One array of a problem: q, k, v, out, and the mask where there is one. */
typedef struct layout_array {
    const char *name;
    attune_dtype dtype;
    int64_t shape[4];
    const int64_t *stride;
} layout_array;
enum { LAYOUT_ARRAYS = 5 };

/* [any] Fills `arrays` and returns how many the problem has. */
int layout_arrays(const attune_attention_problem *p, layout_array arrays[LAYOUT_ARRAYS]);
/* [any] Bytes from an array's first element to its last; UINT64_MAX = overflow. */
uint64_t layout_span(const layout_array *array);

/* [any] Fills the answer's code and, printed, its reason; returns 0. */
__attribute__((format(printf, 3, 4))) int layout_refuse(attune_attention_answer *answer, attune_code code,
                                                        const char *format, ...);
/* [any] Strides that are not negative, spans that fit 63 bits, channels side by side (a mask's need not), and
 * an output whose elements do not overlap; 0, with the answer refused, where they are not so. */
int layout_check(const attune_attention_problem *p, attune_attention_answer *answer);
/* [any] The call's arrays against the problem: shape, strides, type, device, bytes, alignment; neither the
 * output nor the first `workspace` bytes of the workspace overlap what they must not. Errors:
 * INVALID_ARGUMENT, said by `plugin`. */
attune_code layout_check_tensors(const attune_attention_problem *p, const attune_attention_args *args,
                                 uint64_t workspace, const char *plugin, attune_error *error);

#endif
