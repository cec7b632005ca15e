/*
 * structs.h: the struct_size rule of abi.h, once: how libattune reads structs that a caller filled and fills
 * structs that a caller owns, whichever of the two was built against newer headers.
 */
#ifndef HOST_API_STRUCTS_H
#define HOST_API_STRUCTS_H

#include "attune/abi.h"

/* The domain of every error that libattune itself raises. */
#define ATTUNE_DOMAIN "attune"

/* [any] Accept `given` (its first field is struct_size) where libattune knows the first `known` bytes:
 * shorter than that is refused (INVALID_ARGUMENT); longer is fine while the bytes beyond are 0, as a field
 * that is not known cannot be obeyed (UNIMPLEMENTED). `name` is the struct's name, for the message. */
attune_code attune_struct_in(const void *given, size_t known, const char *name, attune_error *error);

/* [any] Copy `full` (`known` bytes) to the caller's `out`, keeping its struct_size and clearing what is
 * beyond `known`. Errors: INVALID_ARGUMENT where out is NULL or its struct_size is smaller than `known`. */
attune_code attune_struct_out(void *out, const void *full, size_t known, const char *name,
                              attune_error *error);

/* [any] Only the check of attune_struct_out: call it before doing work. */
attune_code attune_struct_room(const void *out, size_t known, const char *name, attune_error *error);

/* [any] Copy text that fits or is cut, always ended by a NUL; `text` may be NULL. */
void attune_text_copy(char *out, size_t size, const char *text);

/* [any] Pass on what a plugin's call returned: `reason` is what it filled (code OK before the call). On
 * failure `error` gets it, ended and printable, or a text of the host's where the plugin gave none. Returns
 * `code`. */
attune_code attune_plugin_said(attune_code code, const char *plugin, const char *call,
                               const attune_error *reason, attune_error *error);

/* [any] Bytes as people read them: "512 bytes", "64 KiB", "1.5 GiB". */
void attune_text_bytes(char out[32], uint64_t bytes);

/* [any] A determinism class's name for messages: "unknown" where abi.h has none. Static text. */
const char *attune_text_class(int32_t determinism);

#endif
