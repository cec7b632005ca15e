/* fuzz_elf.c: a library's bytes before dlopen. What passes is what the check promises, read here once more
 * and on its own. */
#include "host_api/elf_check.h"
#include "tests/fuzz/fuzz.h"

#include <elf.h>

/* The loader finds the dynamic section by its address and reads on to DT_NULL: these must be the bytes that
 * were checked. */
static void check_dynamic(const uint8_t *data, const Elf64_Ehdr *header, const Elf64_Phdr *dynamic) {
    int there = 0, ends = 0;
    for (size_t i = 0; i < header->e_phnum; ++i) {
        Elf64_Phdr part;
        memcpy(&part, data + header->e_phoff + i * sizeof part, sizeof part);
        if (part.p_type == PT_LOAD && dynamic->p_vaddr >= part.p_vaddr &&
            dynamic->p_vaddr - part.p_vaddr < part.p_filesz)
            there |= part.p_offset + (dynamic->p_vaddr - part.p_vaddr) == dynamic->p_offset;
    }
    for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn entry;
        memcpy(&entry, data + dynamic->p_offset + at, sizeof entry);
        ends |= entry.d_tag == DT_NULL;
    }
    FUZZ_CHECK(there && ends);
}

static void check_passed(const uint8_t *data, size_t size) {
    Elf64_Ehdr header;
    Elf64_Phdr dynamic = {0};
    int stack = 0, load = 0;
    FUZZ_CHECK(size >= sizeof header);
    memcpy(&header, data, sizeof header);
    FUZZ_CHECK(memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_type == ET_DYN);
    FUZZ_CHECK(header.e_machine == EM_X86_64 && header.e_ident[EI_CLASS] == ELFCLASS64);
    FUZZ_CHECK(header.e_phoff <= size && header.e_phnum <= (size - header.e_phoff) / sizeof(Elf64_Phdr));
    for (size_t i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr part;
        memcpy(&part, data + header.e_phoff + i * sizeof part, sizeof part);
        if (part.p_type == PT_LOAD) {
            load = 1;
            FUZZ_CHECK((part.p_flags & (PF_W | PF_X)) != (PF_W | PF_X));
        }
        if (part.p_type == PT_DYNAMIC) /* of several, the loader takes the last */
            dynamic = part;
        if (part.p_type == PT_LOAD || part.p_type == PT_DYNAMIC)
            FUZZ_CHECK(part.p_offset <= size && part.p_filesz <= size - part.p_offset);
        if (part.p_type == PT_GNU_STACK) {
            stack = 1;
            FUZZ_CHECK(!(part.p_flags & PF_X));
        }
    }
    FUZZ_CHECK(stack && load && dynamic.p_type == PT_DYNAMIC);
    check_dynamic(data, &header, &dynamic);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    attune_error error;
    memset(&error, 0xff, sizeof error);
    attune_code code = attune_elf_check(data, size, "x86_64", "plugin.so", &error);
    fuzz_check_error(code, &error);
    FUZZ_CHECK(code == ATTUNE_OK || code == ATTUNE_DATA_LOSS || code == ATTUNE_FAILED_PRECONDITION);
    FUZZ_CHECK(attune_elf_check(data, size, "x86_64", "plugin.so", NULL) == code);
    if (code != ATTUNE_OK)
        return 0;
    check_passed(data, size);
    char path[64];
    (void)attune_elf_search_path(data, size, path, sizeof path);
    FUZZ_CHECK(memchr(path, 0, sizeof path) != NULL);
    for (uint32_t i = 0; i < 8; ++i) {
        const char *needed = attune_elf_needed(data, size, i);
        FUZZ_CHECK(!needed || strlen(needed) < size);
    }
    FUZZ_CHECK(attune_elf_check(data, size, "aarch64", "plugin.so", NULL) == ATTUNE_FAILED_PRECONDITION);
    FUZZ_CHECK(attune_elf_check(data, size, "sparc", "plugin.so", NULL) == ATTUNE_FAILED_PRECONDITION);
    return 0;
}
