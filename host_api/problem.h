/* problem.h: attention problems, checked: from tensors, and tensors against them. */
#ifndef HOST_API_PROBLEM_H
#define HOST_API_PROBLEM_H

#include "attune/attention.h"

/* [any] The chunk options of a problem or a wish: INVALID_ARGUMENT where they are out of range. */
attune_code attune_chunks_check(const attune_chunks *chunks, attune_error *error);

/* [any] Check a problem that a caller filled: struct size, reserved fields, extents, strides, mask, class.
 * Errors: INVALID_ARGUMENT, UNIMPLEMENTED (struct from the future). */
attune_code attune_problem_check(const attune_attention_problem *problem, attune_error *error);

/* The tensors of one call, brought into the problem's exact strides. */
typedef struct attune_views {
    attune_tensor q, k, v, out, mask;
    attune_attention_args args; /* points into this struct */
} attune_views;

/* [any] Check the tensors of one call against the problem: axes, types, device, shapes, strides, spans, and
 * that out overlaps no input. `views` receives what the plugin gets: where an extent is 1 its stride is the
 * problem's, and the mask is broadcast to four axes. Workspace is copied as it is. Errors: INVALID_ARGUMENT
 * with both values. */
attune_code attune_views_check(const attune_attention_problem *problem, const attune_attention_args *args,
                               attune_views *views, attune_error *error);

#endif
