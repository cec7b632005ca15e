/*
 * loader.h: from a library that a manifest names to a running instance. All checks that can be made without
 * running its code come before dlopen; the plugin's own tables are then compared with the manifest.
 */
#ifndef HOST_API_LOADER_H
#define HOST_API_LOADER_H

#include "manifest.h"
#include "registry.h"

/* [any] Whether this machine can run a library: operating system, architecture, instruction set, ABI,
 * required interfaces. Errors: UNAVAILABLE or FAILED_PRECONDITION with the reason. `*level` ranks the
 * instruction set, so that of several builds the most demanding one that runs is taken. */
attune_code attune_loader_fits(const attune_manifest *manifest, const attune_manifest_library *library,
                               int *level, attune_error *error);

/* [any] The first of the shared libraries of a manifest's `requires` that the generation's code would not
 * find, or NULL; one of which only the linker can tell passes. */
const char *attune_loader_lacks(const attune_generation *generation, const attune_required *required);

/* [any] The first half of a load: everything up to a copy whose bytes are known to be right, on a machine
 * that has the shared libraries that the manifest requires; no code of it or of them runs. What it holds is
 * given back by attune_loader_unload or the generation's last lease. */
attune_code attune_loader_check(attune_generation *generation, int folder, const char *folder_path,
                                const attune_manifest_library *library, attune_error *error);
/* [any] The second half: dlopen of the copy, negotiation, create, tables. */
attune_code attune_loader_start(attune_generation *generation, const attune_manifest *manifest,
                                const attune_manifest_library *library, attune_error *error);

/* [any] Both: load `library` from beneath the open folder into `generation` (new, its id, version and path
 * are set). Blocks. On failure the generation holds nothing but what had to stay mapped. Errors: of files.h
 * and elf_check.h; UNAVAILABLE (a shared library is missing, dlopen, create), UNIMPLEMENTED (ABI, missing
 * table entries), FAILED_PRECONDITION (tables and manifest disagree: the field and both values). */
attune_code attune_loader_load(attune_generation *generation, int folder, const char *folder_path,
                               const attune_manifest *manifest, const attune_manifest_library *library,
                               attune_error *error);

/* [any] Read the interfaces of a created instance into the generation and compare them with the manifest. */
attune_code attune_tables_read(attune_generation *generation, const attune_manifest_library *library,
                               attune_error *error);

/* [any, once] Destroy the instance, if any, and park or unmap the library: the end of a generation. Parked is
 * the rule (destructors of TLS and statics, STB_GNU_UNIQUE symbols and drivers' callbacks may still point
 * into it); a library is unmapped where its manifest says "unload": "safe" and attune_elf_unload_risk finds
 * nothing. */
void attune_loader_unload(attune_generation *generation);

#endif
