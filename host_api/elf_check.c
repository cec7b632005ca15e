/* elf_check.c: a small, bounds-checked reader of ELF headers (System V ABI, gabi 4.2). */
#include "elf_check.h"
#include "structs.h"
#include <elf.h>

typedef struct elf {
    const unsigned char *bytes;
    uint64_t size;
    const char *file;
    attune_error *error;
    Elf64_Ehdr header;
} elf;

static attune_code truncated(const elf *in, const char *what) {
    return attune_fail(in->error, ATTUNE_DATA_LOSS, ATTUNE_DOMAIN, in->file,
                       "truncated: %s lies beyond the end of the file", what);
}

static attune_code refuse(const elf *in, const char *what, const char *hint) {
    (void)attune_fail(in->error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, in->file, "%s", what);
    attune_hint(in->error, "%s", hint);
    return ATTUNE_FAILED_PRECONDITION;
}

/* Copy `length` bytes at `offset` out of the file: no alignment is assumed. */
static bool take(const elf *in, uint64_t offset, void *out, uint64_t length) {
    if (offset > in->size || length > in->size - offset)
        return false;
    memcpy(out, in->bytes + offset, length);
    return true;
}

static bool segment(const elf *in, unsigned index, Elf64_Phdr *out) {
    return take(in, in->header.e_phoff + (uint64_t)index * sizeof *out, out, sizeof *out);
}

static attune_code check_header(elf *in, const char *arch) {
    Elf64_Ehdr *header = &in->header;
    if (in->size < SELFMAG || memcmp(in->bytes, ELFMAG, SELFMAG) != 0)
        return attune_fail(in->error, ATTUNE_DATA_LOSS, ATTUNE_DOMAIN, in->file, "not an ELF file");
    if (!take(in, 0, header, sizeof *header))
        return truncated(in, "the ELF header");
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_ident[EI_VERSION] != EV_CURRENT)
        return refuse(in, "not a 64-bit little-endian ELF file", "build it for this machine");
    unsigned machine = strcmp(arch, "x86_64") == 0    ? EM_X86_64
                       : strcmp(arch, "aarch64") == 0 ? EM_AARCH64
                                                      : EM_NONE;
    if (header->e_machine != machine)
        return attune_fail(in->error, ATTUNE_FAILED_PRECONDITION, ATTUNE_DOMAIN, in->file,
                           "built for ELF machine %u, the manifest's arch %s is %u", header->e_machine, arch,
                           machine);
    if (header->e_type != ET_DYN)
        return refuse(in, "not a shared library (ELF type is not ET_DYN)", "link it with -shared");
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 || header->e_phnum == PN_XNUM)
        return attune_fail(in->error, ATTUNE_DATA_LOSS, ATTUNE_DOMAIN, in->file,
                           "its program header table is malformed");
    /* One check of the table's end keeps `segment`'s sum from wrapping. */
    uint64_t table = (uint64_t)header->e_phnum * sizeof(Elf64_Phdr);
    if (header->e_phoff > in->size || table > in->size - header->e_phoff)
        return truncated(in, "the program header table");
    return ATTUNE_OK;
}

static attune_code check_segments(const elf *in, Elf64_Phdr *dynamic) {
    bool stack = false, load = false;
    for (unsigned i = 0; i < in->header.e_phnum; ++i) {
        Elf64_Phdr part;
        if (!segment(in, i, &part))
            return truncated(in, "a program header");
        if (part.p_type == PT_LOAD || part.p_type == PT_DYNAMIC)
            if (part.p_offset > in->size || part.p_filesz > in->size - part.p_offset)
                return truncated(in, "a segment");
        load |= part.p_type == PT_LOAD;
        stack |= part.p_type == PT_GNU_STACK;
        if (part.p_type == PT_GNU_STACK && part.p_flags & PF_X)
            return refuse(in, "asks for an executable stack", "link it with -Wl,-z,noexecstack");
        if (part.p_type == PT_LOAD && (part.p_flags & (PF_W | PF_X)) == (PF_W | PF_X))
            return refuse(in, "has a segment that is writable and executable", "link it without -N");
        if (part.p_type == PT_DYNAMIC)
            *dynamic = part;
    }
    if (!stack)
        return refuse(in, "does not say that its stack is not executable (no PT_GNU_STACK)",
                      "link it with -Wl,-z,noexecstack");
    if (!load || dynamic->p_type != PT_DYNAMIC)
        return attune_fail(in->error, ATTUNE_DATA_LOSS, ATTUNE_DOMAIN, in->file,
                           "has nothing to load or no dynamic section");
    return ATTUNE_OK;
}

/* Where an address of the loaded image lies in the file. */
static bool file_offset(const elf *in, uint64_t address, uint64_t *offset) {
    for (unsigned i = 0; i < in->header.e_phnum; ++i) {
        Elf64_Phdr part;
        if (segment(in, i, &part) && part.p_type == PT_LOAD && address >= part.p_vaddr &&
            address - part.p_vaddr < part.p_filesz) {
            *offset = part.p_offset + (address - part.p_vaddr);
            return true;
        }
    }
    return false;
}

/* Every entry of a search path, or one needed name with a slash, must be absolute. */
static bool all_absolute(const char *list) {
    for (;;) {
        if (*list != '/')
            return false;
        list = strchr(list, ':');
        if (!list)
            return true;
        ++list;
    }
}

static attune_code check_needed(const elf *in, uint64_t strings, uint64_t length, const Elf64_Dyn *entry) {
    uint64_t at = entry->d_un.d_val;
    const char *names = (const char *)in->bytes + strings, *text = names + (at < length ? at : 0);
    if (at >= length || !memchr(text, 0, length - at))
        return truncated(in, "the name of a library that it needs");
    if (entry->d_tag != DT_RPATH && entry->d_tag != DT_RUNPATH)
        return !strchr(text, '/') || *text == '/'
                   ? ATTUNE_OK
                   : refuse(in, "needs a library by a path relative to the current folder",
                            "link it by its soname");
    if (*text == 0 || all_absolute(text))
        return ATTUNE_OK;
    return refuse(
        in,
        "looks for libraries beside itself or in relative folders (RPATH with $ORIGIN), but a copy is loaded",
        "link it with absolute rpaths or none");
}

static attune_code check_dynamic(const elf *in, const Elf64_Phdr *dynamic) {
    uint64_t strings = 0, length = 0, where;
    bool found = false, ends = false;
    /* dlopen goes by the address and reads on to DT_NULL, whatever the header's offset and size say. */
    if (!file_offset(in, dynamic->p_vaddr, &where) || where != dynamic->p_offset)
        return attune_fail(in->error, ATTUNE_DATA_LOSS, ATTUNE_DOMAIN, in->file,
                           "its dynamic section is not loaded from where it lies in the file");
    for (int pass = 0; pass < 2; ++pass) { /* the string table first: entries come in any order */
        for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
            Elf64_Dyn entry;
            if (!take(in, dynamic->p_offset + at, &entry, sizeof entry))
                return truncated(in, "the dynamic section");
            ends |= entry.d_tag == DT_NULL;
            if (entry.d_tag == DT_NULL)
                break;
            if (entry.d_tag == DT_TEXTREL || (entry.d_tag == DT_FLAGS && entry.d_un.d_val & DF_TEXTREL))
                return refuse(in, "has text relocations (code that is written to while it loads)",
                              "compile it with -fPIC");
            if (pass == 0 && entry.d_tag == DT_STRTAB)
                found = file_offset(in, entry.d_un.d_ptr, &strings);
            if (pass == 0 && entry.d_tag == DT_STRSZ)
                length = entry.d_un.d_val;
            if (pass == 1 &&
                (entry.d_tag == DT_NEEDED || entry.d_tag == DT_AUXILIARY || entry.d_tag == DT_FILTER ||
                 entry.d_tag == DT_RPATH || entry.d_tag == DT_RUNPATH)) {
                attune_code code = check_needed(in, strings, length, &entry);
                if (code)
                    return code;
            }
        }
        if (!ends)
            return truncated(in, "the end of the dynamic section");
        if (!found || strings > in->size || length > in->size - strings)
            return truncated(in, "the dynamic string table");
    }
    return ATTUNE_OK;
}

attune_code attune_elf_check(const void *bytes, uint64_t size, const char *arch, const char *file,
                             attune_error *error) {
    elf in = {.bytes = bytes, .size = size, .file = file, .error = error};
    Elf64_Phdr dynamic;
    memset(&dynamic, 0, sizeof dynamic);
    attune_code code = check_header(&in, arch);
    if (!code)
        code = check_segments(&in, &dynamic);
    return code ? code : check_dynamic(&in, &dynamic);
}

/* ---- may it be unmapped? ---- */

/* The tables that the scan reads: where they lie in the file. */
typedef struct dynamic_tables {
    uint64_t symbols, strings, length;
    bool pinned;    /* DF_1_NODELETE */
    bool scannable; /* the symbols end where the strings begin */
} dynamic_tables;

/* False where there is no table of strings within the file. */
static bool find_tables(const elf *in, const Elf64_Phdr *dynamic, dynamic_tables *out) {
    bool symbols = false, strings = false;
    for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn entry;
        if (!take(in, dynamic->p_offset + at, &entry, sizeof entry) || entry.d_tag == DT_NULL)
            break;
        if (entry.d_tag == DT_SYMTAB)
            symbols = file_offset(in, entry.d_un.d_ptr, &out->symbols);
        if (entry.d_tag == DT_STRTAB)
            strings = file_offset(in, entry.d_un.d_ptr, &out->strings);
        if (entry.d_tag == DT_STRSZ)
            out->length = entry.d_un.d_val;
        out->pinned |= entry.d_tag == DT_FLAGS_1 && entry.d_un.d_val & DF_1_NODELETE;
    }
    /* Most linkers put the symbols before their names, which is how their number is known here. */
    out->scannable = symbols && strings && out->symbols < out->strings;
    return strings && out->strings <= in->size && out->length <= in->size - out->strings;
}

/* The text at an offset of the string table, or NULL where it does not end inside. */
static const char *text_at(const elf *in, const dynamic_tables *tables, uint64_t at) {
    const char *text = (const char *)in->bytes + tables->strings + at;
    return at < tables->length && memchr(text, 0, tables->length - at) ? text : NULL;
}

static const char *const risky_imports[] = {"pthread_create",
                                            "thrd_create",
                                            "clone",
                                            "fork",
                                            "atexit",
                                            "on_exit",
                                            "__cxa_atexit",
                                            "__cxa_thread_atexit",
                                            "__cxa_thread_atexit_impl",
                                            "pthread_key_create",
                                            "tss_create",
                                            "pthread_atfork",
                                            "__register_atfork",
                                            "sigaction",
                                            "signal",
                                            "timer_create",
                                            "dlopen"};

static bool scan_symbols(const elf *in, const dynamic_tables *tables, char reason[96]) {
    for (uint64_t at = tables->symbols; at + sizeof(Elf64_Sym) <= tables->strings; at += sizeof(Elf64_Sym)) {
        Elf64_Sym symbol;
        if (!take(in, at, &symbol, sizeof symbol))
            break;
        const char *name = text_at(in, tables, symbol.st_name);
        if (ELF64_ST_BIND(symbol.st_info) == STB_GNU_UNIQUE) {
            (void)snprintf(reason, 96, "it defines the unique symbol %.48s", name ? name : "?");
            return true;
        }
        if (ELF64_ST_TYPE(symbol.st_info) == STT_TLS) {
            (void)snprintf(reason, 96, "it uses thread-local storage (%.48s)", name ? name : "?");
            return true;
        }
        for (size_t i = 0;
             name && symbol.st_shndx == SHN_UNDEF && i < sizeof risky_imports / sizeof *risky_imports; ++i)
            if (strcmp(name, risky_imports[i]) == 0) {
                (void)snprintf(reason, 96, "it calls %s", name);
                return true;
            }
    }
    return false;
}

/* The index-th library that it needs beyond libc and libm: its name, "?" for one that cannot be read, or
 * NULL. */
static const char *needed_at(const elf *in, const Elf64_Phdr *dynamic, const dynamic_tables *tables,
                             uint32_t index) {
    static const char *const plain[] = {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2",
                                        "ld-linux-aarch64.so.1"};
    for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn entry;
        if (!take(in, dynamic->p_offset + at, &entry, sizeof entry) || entry.d_tag == DT_NULL)
            break;
        if (entry.d_tag != DT_NEEDED)
            continue;
        const char *name = text_at(in, tables, entry.d_un.d_val);
        bool known = false;
        for (size_t i = 0; name && i < sizeof plain / sizeof *plain; ++i)
            known |= strcmp(name, plain[i]) == 0;
        if (!known && index-- == 0)
            return name ? name : "?";
    }
    return NULL;
}

/* The dynamic segment that the linker takes, of several the last; false where a header cannot be read. */
static bool find_dynamic(elf *in, const void *bytes, uint64_t size, Elf64_Phdr *dynamic) {
    Elf64_Phdr part;
    *in = (elf){.bytes = bytes, .size = size, .file = "", .error = NULL};
    memset(dynamic, 0, sizeof *dynamic);
    if (!take(in, 0, &in->header, sizeof in->header))
        return false;
    for (unsigned i = 0; i < in->header.e_phnum; ++i) {
        if (!segment(in, i, &part))
            break;
        if (part.p_type == PT_DYNAMIC)
            *dynamic = part;
    }
    return true;
}

static bool has_local_storage(const elf *in) {
    Elf64_Phdr part;
    for (unsigned i = 0; i < in->header.e_phnum && segment(in, i, &part); ++i)
        if (part.p_type == PT_TLS)
            return true;
    return false;
}

void attune_elf_unload_risk(const void *bytes, uint64_t size, char reason[96]) {
    elf in;
    dynamic_tables tables = {0};
    Elf64_Phdr dynamic;
    *reason = 0;
    if (!find_dynamic(&in, bytes, size, &dynamic))
        (void)snprintf(reason, 96, "its headers cannot be read");
    else if (has_local_storage(&in))
        (void)snprintf(reason, 96, "it has thread-local storage");
    else if (dynamic.p_type != PT_DYNAMIC || !find_tables(&in, &dynamic, &tables) || !tables.scannable)
        (void)snprintf(reason, 96, "its symbols cannot be scanned");
    else if (tables.pinned)
        (void)snprintf(reason, 96, "it asks not to be unmapped (NODELETE)");
    else if (!scan_symbols(&in, &tables, reason)) {
        const char *const needed = needed_at(&in, &dynamic, &tables, 0);
        if (needed)
            (void)snprintf(reason, 96, "it needs %.64s", needed);
    }
}

const char *attune_elf_needed(const void *bytes, uint64_t size, uint32_t index) {
    elf in;
    dynamic_tables tables = {0};
    Elf64_Phdr dynamic;
    return find_dynamic(&in, bytes, size, &dynamic) && find_tables(&in, &dynamic, &tables)
               ? needed_at(&in, &dynamic, &tables, index)
               : NULL;
}

bool attune_elf_search_path(const void *bytes, uint64_t size, char *out, size_t room) {
    elf in;
    dynamic_tables tables = {0};
    Elf64_Phdr dynamic;
    const char *rpath = "", *runpath = NULL; /* NULL = not readable */
    bool has_runpath = false;
    *out = 0;
    if (!find_dynamic(&in, bytes, size, &dynamic) || !find_tables(&in, &dynamic, &tables))
        return false;
    for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic.p_filesz; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn entry;
        if (!take(&in, dynamic.p_offset + at, &entry, sizeof entry) || entry.d_tag == DT_NULL)
            break;
        if (entry.d_tag == DT_RPATH)
            rpath = text_at(&in, &tables, entry.d_un.d_val);
        has_runpath |= entry.d_tag == DT_RUNPATH;
        if (entry.d_tag == DT_RUNPATH)
            runpath = text_at(&in, &tables, entry.d_un.d_val);
    }
    const char *const path = has_runpath ? runpath : rpath;
    if (!path || strlen(path) >= room)
        return false;
    (void)snprintf(out, room, "%s", path);
    return true;
}
