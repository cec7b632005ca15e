/* find_library.h: whether the dynamic linker would find a shared library, asked without loading it. */
#ifndef HOST_API_FIND_LIBRARY_H
#define HOST_API_FIND_LIBRARY_H

/* What to do about one that is not found. */
#define ATTUNE_FIND_ADVICE "install it, or put its folder into LD_LIBRARY_PATH"

typedef enum attune_finding {
    ATTUNE_LIBRARY_MISSING,
    ATTUNE_LIBRARY_FOUND,
    ATTUNE_LIBRARY_UNCLEAR /* only the linker can tell */
} attune_finding;

/*
 * [any] Whether a library of this name ("libm.so.6") is loaded already, or can be read where ld.so(8) looks:
 * in the folders of `search_path` (a list with colons: what the library that needs it says in its RUNPATH;
 * "" = none, NULL = not known), in this process's own search path (LD_LIBRARY_PATH, the system's folders),
 * and where /etc/ld.so.cache says. Nothing of it is mapped or run: a file that is there may still be refused.
 * Unclear is what is not found where a place could not be read, where the search path is not known or has a
 * part that the linker replaces ($LIB, $PLATFORM), and where only a folder for some processors (glibc-hwcaps)
 * has it.
 */
attune_finding attune_find_library(const char *name, const char *search_path);

#endif
