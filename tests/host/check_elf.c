/* check_elf.c: a real library whose ELF headers are spoilt one by one, and cut at every length. */
#include "cases.h"
#include "host_api/elf_check.h"
#include <elf.h>
#include <stdlib.h>

static char *library;
static size_t library_size;

static void read_library(void) {
    char path[4200];
    (void)snprintf(path, sizeof path, "%s/tests/fixtures/plain.so", run_build());
    library = run_read(path, &library_size);
}

static void free_library(void) {
    free(library);
}

#if defined(__x86_64__)
static const char arch[] = "x86_64", other_arch[] = "aarch64";
#else
static const char arch[] = "aarch64", other_arch[] = "x86_64";
#endif

static attune_code check(attune_error *error) {
    return attune_elf_check(library, library_size, arch, "x.so", error);
}

static Elf64_Ehdr *header(void) {
    return (Elf64_Ehdr *)library;
}

static Elf64_Phdr *segment(uint32_t type) {
    Elf64_Phdr *part = (Elf64_Phdr *)(library + header()->e_phoff);
    for (int i = 0; i < header()->e_phnum; ++i)
        if (part[i].p_type == type)
            return &part[i];
    ck_abort_msg("no segment of type %u", type);
    return NULL;
}

static Elf64_Dyn *dynamic(int64_t tag) {
    Elf64_Dyn *entry = (Elf64_Dyn *)(library + segment(PT_DYNAMIC)->p_offset);
    for (; entry->d_tag != DT_NULL; ++entry)
        if (entry->d_tag == tag)
            return entry;
    ck_abort_msg("no dynamic entry %lld", (long long)tag);
    return NULL;
}

START_TEST(test_elf_real_library) {
    attune_error error;
    assert_ok(check(&error), error);
}
END_TEST

START_TEST(test_elf_wrong_arch) {
    attune_error error;
    assert_fails(attune_elf_check(library, library_size, other_arch, "x.so", &error), error,
                 ATTUNE_FAILED_PRECONDITION, other_arch);
    header()->e_machine = EM_RISCV;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "machine 243");
}
END_TEST

START_TEST(test_elf_not_elf) {
    attune_error error;
    library[0] = 'M';
    assert_fails(check(&error), error, ATTUNE_DATA_LOSS, "not an ELF file");
}
END_TEST

START_TEST(test_elf_class_and_type) {
    attune_error error;
    header()->e_ident[EI_CLASS] = ELFCLASS32;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "64-bit");
    header()->e_ident[EI_CLASS] = ELFCLASS64;
    header()->e_type = ET_EXEC;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "not a shared library");
}
END_TEST

START_TEST(test_elf_executable_stack) {
    attune_error error;
    segment(PT_GNU_STACK)->p_flags |= PF_X;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "executable stack");
    segment(PT_GNU_STACK)->p_type = PT_NULL;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "PT_GNU_STACK");
}
END_TEST

START_TEST(test_elf_writable_code) {
    attune_error error;
    segment(PT_LOAD)->p_flags |= PF_W | PF_X;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "writable and executable");
}
END_TEST

START_TEST(test_elf_text_relocations) {
    attune_error error;
    Elf64_Dyn *entry = dynamic(DT_RELACOUNT);
    entry->d_tag = DT_TEXTREL;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "text relocations");
    entry->d_tag = DT_FLAGS;
    entry->d_un.d_val = DF_TEXTREL;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "text relocations");
}
END_TEST

/* A name in the string table that the loader would look for relative to somewhere. */
START_TEST(test_elf_relative_libraries) {
    attune_error error;
    Elf64_Dyn *needed = dynamic(DT_NEEDED);
    char *name = library + dynamic(DT_STRTAB)->d_un.d_ptr +
                 needed->d_un.d_val; /* file offset = address in the first segment */
    ck_assert_ptr_nonnull(strstr(name, ".so"));
    memcpy(name, "./", 2);
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "relative to the current folder");
    needed->d_tag = DT_RUNPATH;
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "$ORIGIN");
    memcpy(name, "/:", 2);
    assert_fails(check(&error), error, ATTUNE_FAILED_PRECONDITION, "$ORIGIN");
    memcpy(name, "/x", 2);
    assert_ok(check(&error), error);
    needed->d_tag = DT_NEEDED;
    needed->d_un.d_val = UINT64_MAX;
    assert_fails(check(&error), error, ATTUNE_DATA_LOSS, "truncated");
}
END_TEST

/* Sizes and offsets near 2^64 must not wrap. */
START_TEST(test_elf_overflow) {
    attune_error error;
    Elf64_Phdr *part = segment(PT_LOAD);
    part->p_filesz = UINT64_MAX;
    assert_fails(check(&error), error, ATTUNE_DATA_LOSS, "truncated");
    part->p_offset = UINT64_MAX;
    assert_fails(check(&error), error, ATTUNE_DATA_LOSS, "truncated");
    header()->e_phoff = UINT64_MAX - 8;
    assert_fails(check(&error), error, ATTUNE_DATA_LOSS, "truncated");
    header()->e_phentsize = 1;
    assert_fails(check(&error), error, ATTUNE_DATA_LOSS, "malformed");
}
END_TEST

/* Cut at every length below its last segment the file is refused, and never read beyond its end (a copy of
 * exactly that size, which the sanitizers watch). */
START_TEST(test_elf_every_length) {
    attune_error error;
    size_t last = 0;
    const Elf64_Phdr *part = (const Elf64_Phdr *)(library + header()->e_phoff);
    for (int i = 0; i < header()->e_phnum; ++i)
        if (part[i].p_type == PT_LOAD && part[i].p_offset + part[i].p_filesz > last)
            last = part[i].p_offset + part[i].p_filesz;
    for (size_t size = 0; size < last; size += size < 2048 ? 1 : 997) {
        char *cut = malloc(size ? size : 1);
        ck_assert_ptr_nonnull(cut);
        memcpy(cut, library, size);
        attune_code code = attune_elf_check(cut, size, arch, "x.so", &error);
        ck_assert_msg(code == ATTUNE_DATA_LOSS, "%zu bytes: %s", size, attune_code_name(code));
        free(cut);
    }
}
END_TEST

/* Random bytes in the first kilobyte and the dynamic section: any answer, but no read beyond the end. */
START_TEST(test_elf_noise) {
    attune_error error;
    uint32_t seed = 1;
    size_t at = segment(PT_DYNAMIC)->p_offset, length = segment(PT_DYNAMIC)->p_filesz;
    char *copy = malloc(library_size);
    ck_assert_ptr_nonnull(copy);
    for (int round = 0; round < 20000; ++round) {
        memcpy(copy, library, library_size);
        for (int i = 0; i < 4; ++i) {
            seed = seed * 1664525u + 1013904223u;
            size_t where = i % 2 ? (seed >> 8) % 1024 : at + (seed >> 8) % length;
            copy[where] = (char)(seed >> 24);
        }
        attune_code code = attune_elf_check(copy, library_size, arch, "x.so", &error);
        ck_assert(code == ATTUNE_OK || code == ATTUNE_DATA_LOSS || code == ATTUNE_FAILED_PRECONDITION);
    }
    free(copy);
}
END_TEST

TCase *elf_cases(void) {
    TCase *cases = tcase_create("elf");
    tcase_add_checked_fixture(cases, read_library, free_library);
    tcase_add_test(cases, test_elf_real_library);
    tcase_add_test(cases, test_elf_wrong_arch);
    tcase_add_test(cases, test_elf_not_elf);
    tcase_add_test(cases, test_elf_class_and_type);
    tcase_add_test(cases, test_elf_executable_stack);
    tcase_add_test(cases, test_elf_writable_code);
    tcase_add_test(cases, test_elf_text_relocations);
    tcase_add_test(cases, test_elf_relative_libraries);
    tcase_add_test(cases, test_elf_overflow);
    tcase_add_test(cases, test_elf_every_length);
    tcase_add_test(cases, test_elf_noise);
    tcase_set_timeout(cases, 0);
    return cases;
}
