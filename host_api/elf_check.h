/* elf_check.h: what must be true of a library's ELF headers before dlopen, which runs its code, may see it.
 */
#ifndef HOST_API_ELF_CHECK_H
#define HOST_API_ELF_CHECK_H

#include "attune/abi.h"
#include <stdbool.h>

/*
 * [any] Check the `size` bytes of an ELF file (System V ABI, generic and processor supplements; gabi 4.2): 64
 * bits, little endian, for `arch` ("x86_64" or "aarch64"), a shared object, no part beyond the file's end, a
 * stack that is declared and not executable, no segment that is writable and executable, no text relocations,
 * and no place to look for other libraries that depends on where this one lies ($ORIGIN: the copy that is
 * loaded lies elsewhere) or on the current folder. `file` names it in errors. Every read is checked against
 * `size`. Errors: DATA_LOSS (truncated, not ELF), FAILED_PRECONDITION (anything else), with what to do about
 * it in the hint.
 */
attune_code attune_elf_check(const void *bytes, uint64_t size, const char *arch, const char *file,
                             attune_error *error);

/*
 * [any] Why a library that attune_elf_check accepted should not be unmapped: thread-local storage, unique
 * symbols (STB_GNU_UNIQUE), DF_1_NODELETE, imports that let it start threads or leave handlers and
 * destructors behind, or libraries that it needs beyond libc and libm. "" where nothing of the kind is found.
 */
void attune_elf_unload_risk(const void *bytes, uint64_t size, char reason[96]);

/* [any] The index-th library beyond libc and libm that one that attune_elf_check accepted needs, a text
 * within `bytes`; NULL behind the last. */
const char *attune_elf_needed(const void *bytes, uint64_t size, uint32_t index);

/* [any] Where a library that attune_elf_check accepted says that those that it needs lie: its RUNPATH, or its
 * RPATH where it has none, a list with colons; "" = nothing. False where that cannot be told: its tables
 * cannot be read, or the list does not fit. */
bool attune_elf_search_path(const void *bytes, uint64_t size, char *out, size_t room);

#endif
