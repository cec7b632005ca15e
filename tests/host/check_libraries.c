/* check_libraries.c: the shared libraries that a plugin needs: found where the linker would find them, missed
 * by the manifest before any code runs. */
#include "cases.h"
#include "host_api/elf_check.h"
#include "host_api/find_library.h"
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ADVICE "install it, or put its folder into LD_LIBRARY_PATH"

/* A command that must succeed; what it printed is the caller's. */
static run_result done(const char *command, const char *argument) {
    run_result r = run(command, argument, argument);
    ck_assert_msg(r.status == 0, "%d: %s%s", r.status, r.out, r.err);
    return r;
}

static void put_nowhere(void) {
    run_result r = done("mkdir -p lib && touch lib/libnowhere.so.7", "");
    run_free(&r);
}

START_TEST(test_library_is_found_in_a_list) {
    char list[8300];
    put_nowhere();
    ck_assert_int_eq(attune_find_library("libnowhere.so.7", ""), ATTUNE_LIBRARY_MISSING);
    (void)snprintf(list, sizeof list, "/nonexistent:%s/lib", run_folder());
    ck_assert_int_eq(attune_find_library("libnowhere.so.7", list), ATTUNE_LIBRARY_FOUND);
    (void)snprintf(list, sizeof list, "%s/lib::/nonexistent", run_folder());
    ck_assert_int_eq(attune_find_library("libnowhere.so.7", list), ATTUNE_LIBRARY_FOUND);
    ck_assert_int_eq(attune_find_library("nowhere.so.7", list), ATTUNE_LIBRARY_MISSING);
    ck_assert_int_eq(attune_find_library("libnowhere.so", list), ATTUNE_LIBRARY_MISSING);
}
END_TEST

/* A folder of that name is no library; what only the linker can tell is not called missing. */
START_TEST(test_library_is_unclear) {
    char list[8300];
    static const char name[] = "libnowhere.so.7";
    run_result r = done("mkdir -p folder/libnowhere.so.7 caps/glibc-hwcaps/x86-64-v2 && "
                        "touch caps/glibc-hwcaps/x86-64-v2/libnowhere.so.7",
                        "");
    run_free(&r);
    put_nowhere();
    (void)snprintf(list, sizeof list, "%s/folder", run_folder());
    ck_assert_int_eq(attune_find_library(name, list), ATTUNE_LIBRARY_MISSING);
    ck_assert_int_eq(attune_find_library(name, NULL), ATTUNE_LIBRARY_UNCLEAR);
    ck_assert_int_eq(attune_find_library(name, "/nonexistent:/usr/$LIB/own"), ATTUNE_LIBRARY_UNCLEAR);
    (void)snprintf(list, sizeof list, "%s/caps", run_folder());
    ck_assert_int_eq(attune_find_library(name, list), ATTUNE_LIBRARY_UNCLEAR);
    ck_assert_int_eq(attune_find_library("libnowhere.so.8", list), ATTUNE_LIBRARY_MISSING);
    (void)snprintf(list, sizeof list, "/usr/$LIB/own:%s/caps:%s/lib", run_folder(), run_folder());
    ck_assert_int_eq(attune_find_library(name, list), ATTUNE_LIBRARY_FOUND);
    ck_assert_int_eq(attune_find_library("libc.so.6", NULL), ATTUNE_LIBRARY_FOUND);
}
END_TEST

/* Each name that ldconfig lists, and none that is a letter longer or shorter. */
START_TEST(test_library_is_found_as_the_cache_says) {
    run_result r =
        done("/sbin/ldconfig -p | sed -n 's/.*=> .*\\/\\(lib[^/]*\\)$/\\1/p' | sort -u | head -200", "");
    unsigned count = 0;
    for (char *name = strtok(r.out, "\n"); name; name = strtok(NULL, "\n"), ++count) {
        char longer[300];
        (void)snprintf(longer, sizeof longer, "x%s", name);
        ck_assert_msg(attune_find_library(name, "") == ATTUNE_LIBRARY_FOUND, "%s", name);
        ck_assert_msg(attune_find_library(longer, "") == ATTUNE_LIBRARY_MISSING, "%s", longer);
        ck_assert_msg(attune_find_library(name + 1, "") == ATTUNE_LIBRARY_MISSING, "%s", name + 1);
    }
    ck_assert_uint_gt(count, 10);
    run_free(&r);
}
END_TEST

/* As a linker may order its tables: the symbols behind their names. */
static void put_symbols_last(unsigned char *bytes, size_t size) {
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)bytes;
    const Elf64_Phdr *part = (const Elf64_Phdr *)(bytes + header->e_phoff);
    while (part->p_type != PT_DYNAMIC)
        ++part;
    ck_assert_uint_lt(part->p_offset, size);
    Elf64_Dyn *entry = (Elf64_Dyn *)(bytes + part->p_offset), *symbols = NULL, *strings = NULL;
    for (; entry->d_tag != DT_NULL; ++entry) {
        symbols = entry->d_tag == DT_SYMTAB ? entry : symbols;
        strings = entry->d_tag == DT_STRTAB ? entry : strings;
    }
    ck_assert(symbols && strings);
    symbols->d_un.d_ptr = strings->d_un.d_ptr + 8;
}

START_TEST(test_library_needed_and_search_path) {
    size_t size;
    char path[4200], search[64], shorter[8], risk[96];
    run_result r = done(
        "cc -shared -fPIC -x c /dev/null -Wl,-rpath,/one:/two -Wl,--no-as-needed -lm -ljansson -o it.so", "");
    run_free(&r);
    (void)snprintf(path, sizeof path, "%s/it.so", run_folder());
    char *bytes = run_read(path, &size);
    ck_assert(attune_elf_search_path(bytes, size, search, sizeof search));
    ck_assert_str_eq(search, "/one:/two");
    ck_assert(!attune_elf_search_path(bytes, size, shorter, sizeof shorter));
    ck_assert_str_eq(shorter, "");
    ck_assert_str_eq(attune_elf_needed(bytes, size, 0), "libjansson.so.4");
    ck_assert_ptr_null(attune_elf_needed(bytes, size, 1));
    put_symbols_last((unsigned char *)bytes, size);
    attune_elf_unload_risk(bytes, size, risk);
    ck_assert_str_eq(risk, "its symbols cannot be scanned");
    ck_assert(attune_elf_search_path(bytes, size, search, sizeof search));
    ck_assert_str_eq(search, "/one:/two");
    ck_assert_str_eq(attune_elf_needed(bytes, size, 0), "libjansson.so.4");
    for (size_t cut = 0; cut < size; cut += 7) { /* nothing is read beyond the end */
        char *part = malloc(cut ? cut : 1);
        ck_assert_ptr_nonnull(part);
        memcpy(part, bytes, cut);
        (void)attune_elf_search_path(part, cut, search, sizeof search);
        (void)attune_elf_needed(part, cut, 0);
        free(part);
    }
    free(bytes);
}
END_TEST

/* tools/fill_manifest lists what the linker would have to find, once. */
START_TEST(test_library_is_filled_into_the_manifest) {
    run_result r =
        done("sed 's/\"requires\": \\[\\]/\"requires\": [\"libown.so.1\"]/' $S/manifest.json > template && "
             "$B/tools/fill_manifest template $B once.json attune-cuda && "
             "$B/tools/fill_manifest once.json $B twice.json && cmp once.json twice.json && cat once.json",
             "");
    json_t *manifest = run_json(&r);
    char *cpu = json_dumps(fixture_get(manifest, "libraries.0.requires"), JSON_COMPACT);
    char *sampler = json_dumps(fixture_get(manifest, "libraries.1.requires"), JSON_COMPACT);
    ck_assert_ptr_nonnull(strstr(cpu, "[\"libown.so.1\"")); /* under sanitizers theirs follow */
    ck_assert_ptr_nonnull(strstr(sampler, "\"attune.device/1\",\"lib"));
    ck_assert_ptr_nonnull(strstr(sampler, "\"libjansson.so.4\""));
    free(cpu);
    free(sampler);
    json_decref(manifest);
    run_free(&r);
}
END_TEST

/* A plugin with more libraries, and with other names, than a manifest can list: the rest is the linker's. */
START_TEST(test_library_that_no_manifest_can_list) {
    attune_error error;
    const char *folder = fixture_folder();
    const char *path = fixture_install(folder, fixture_manifest("plain", NULL));
    run_result r =
        run("mkdir lib && cc -c -x c /dev/null -o empty.o && for name in 'libodd name.so.1' "
            "lib$(printf %%0100d 0).so libboost_program_options.so.1.74.0 libfoo.solver.so.3 "
            "$(seq -f libn%%g.so.1 70); do ld -shared -soname \"$name\" empty.o -o \"lib/$name\" && "
            "set -- \"$@\" \"lib/$name\" || exit; done; "
            "cc -shared -fPIC -I$S/host_api -I$S -D_GNU_SOURCE -fvisibility=hidden -Wl,-z,noexecstack "
            "-Wl,-rpath,$PWD/lib $S/tests/fixtures/plain.c -lm -Wl,--no-as-needed \"$@\" -o %s/plain.so && "
            "chmod go-w %s/plain.so && $B/tools/fill_manifest %s %s %s",
            folder, folder, path, folder, path);
    ck_assert_msg(r.status == 0, "%s", r.err);
    ck_assert_ptr_nonnull(strstr(r.err, "plain.so: needs libodd name.so.1, which a manifest cannot list\n"));
    ck_assert_ptr_nonnull(strstr(r.err, "needs lib0000"));
    ck_assert_ptr_null(strstr(r.err, "libn62.so.1,"));
    ck_assert_ptr_nonnull(strstr(r.err, "libn63.so.1,"));
    run_free(&r);
    json_t *manifest = json_load_file(path, 0, NULL);
    const json_t *listed = fixture_get(manifest, "libraries.0.requires");
    ck_assert_uint_eq(json_array_size(listed), 64);
    ck_assert_str_eq(json_string_value(json_array_get(listed, 0)), "libboost_program_options.so.1.74.0");
    ck_assert_str_eq(json_string_value(json_array_get(listed, 1)), "libfoo.solver.so.3");
    json_decref(manifest);
    attune *host = open_host();
    assert_ok(attune_load(host, path, &error), error);
    ck_assert_str_eq(plugin_status(host, 0).state, "active");
    attune_close(host);
}
END_TEST

/* The library would leave a mark as soon as the linker has it. */
START_TEST(test_library_is_missed_before_code) {
    char mark[4200];
    attune_error error;
    (void)snprintf(mark, sizeof mark, "%s/mark", run_folder());
    ck_assert_int_eq(setenv("ATTUNE_FIXTURE_MARK", mark, 1), 0);
    json_t *manifest = fixture_manifest("nosymbol", NULL);
    fixture_set(manifest, "libraries.0.requires", json_pack("[ss]", "libc.so.6", "libnowhere.so.7"));
    attune *host = open_host();
    assert_fails(attune_load(host, fixture_install(fixture_folder(), manifest), &error), error,
                 ATTUNE_UNAVAILABLE, "libnowhere.so.7 is not found");
    ck_assert_str_eq(error.hint, ADVICE);
    ck_assert_msg(access(mark, F_OK) != 0, "the library's code ran");
    ck_assert_str_eq(plugin_status(host, 0).refused, "libnowhere.so.7 is not found (" ADVICE ")");
    ck_assert_int_eq(plugin_status(host, 0).refused_code, ATTUNE_UNAVAILABLE);
    attune_close(host);
}
END_TEST

START_TEST(test_library_is_found_by_the_environment) {
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.requires", json_pack("[s]", "libnowhere.so.7"));
    const char *path = fixture_install(fixture_folder(), manifest);
    put_nowhere();
    run_result r = done("LD_LIBRARY_PATH=$PWD/lib $HOST plugins --plugin %s", path);
    ck_assert_msg(strstr(r.out, "fixture-plain 1.2.3 (Fixture)  active") != NULL, "%s", r.out);
    run_free(&r);
    r = run("$HOST plugins --plugin %s", path); /* nothing else is in it */
    ck_assert_int_eq(r.status, 3);
    ck_assert_msg(strstr(r.err, "libnowhere.so.7 is not found; " ADVICE) != NULL, "%s", r.err);
    run_free(&r);
}
END_TEST

/* A build of fixture-plain that says itself where its libraries lie. */
static const char *install_looking_in(const char *search_path, json_t *manifest) {
    const char *folder = fixture_folder(), *path = fixture_install(folder, manifest);
    run_result r =
        run("cc -shared -fPIC -I$S/host_api -I$S -D_GNU_SOURCE -fvisibility=hidden -Wl,-z,noexecstack "
            "-Wl,-rpath,%s $S/tests/fixtures/plain.c -lm -o %s/plain.so && "
            "chmod go-w %s/plain.so && $B/tools/fill_manifest %s %s %s",
            search_path, folder, folder, path, folder, path);
    ck_assert_msg(r.status == 0, "%s", r.err);
    run_free(&r);
    return path;
}

/* A plugin may say itself where its libraries lie. What it lacked is looked for again by the next load and
 * the next swap, of the same bytes too. */
START_TEST(test_library_appears_in_the_search_path) {
    attune_error error;
    attune_swap_report report = {.struct_size = sizeof report};
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.requires", json_pack("[s]", "libnowhere.so.7"));
    const char *path = install_looking_in("$PWD/lib", manifest);
    attune *host = open_host();
    assert_fails(attune_load(host, path, &error), error, ATTUNE_UNAVAILABLE, "libnowhere.so.7 is not found");
    assert_fails(attune_swap(host, path, &report, &error), error, ATTUNE_UNAVAILABLE,
                 "libnowhere.so.7 is not found");
    ck_assert_uint_eq(report.added + report.swapped + report.refused,
                      0); /* not for this machine is no refusal */
    put_nowhere();
    assert_ok(attune_swap(host, path, &report, &error), error);
    ck_assert_uint_eq(report.added, 1);
    ck_assert_str_eq(plugin_status(host, 0).state, "active");
    attune_close(host);
}
END_TEST

/* More than the host keeps of a search path: the library is there, in its last folder. */
START_TEST(test_library_of_a_long_search_path) {
    attune_error error;
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.requires", json_pack("[s]", "libnowhere.so.7"));
    put_nowhere();
    const char *path = install_looking_in("/$(printf %0600d 0):$PWD/lib", manifest);
    attune *host = open_host();
    assert_ok(attune_load(host, path, &error), error);
    attune_close(host);
}
END_TEST

/* The stage of a swap, where an older build serves on. */
START_TEST(test_library_missing_refuses_a_swap) {
    attune_error error;
    attune_swap_report report = {.struct_size = sizeof report};
    attune *host = open_with("plain", NULL);
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.path", json_string("plain_b.so"));
    fixture_set(manifest, "libraries.0.requires", json_pack("[s]", "libnowhere.so.7"));
    assert_fails(attune_swap(host, fixture_install(fixture_folder(), manifest), &report, &error), error,
                 ATTUNE_UNAVAILABLE, "libnowhere.so.7 is not found");
    ck_assert_str_eq(report.stage, "libraries");
    ck_assert_uint_eq(report.refused, 1);
    ck_assert_str_eq(plugin_status(host, 0).state, "active");
    attune_close(host);
}
END_TEST

/* A build of fixture-plain whose backends of a set (bits) need a library that is not there. */
static const char *install_lacking(const char *file, unsigned set) {
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.path", json_string(file));
    if (set & 1)
        fixture_set(manifest, "libraries.0.attention.0.requires", json_pack("[s]", "libnowhere.so.7"));
    if (set & 2)
        fixture_set(manifest, "libraries.0.attention.1.requires", json_pack("[s]", "libnowhere.so.7"));
    return fixture_install(fixture_folder(), manifest);
}

/* A backend that serves is not swapped for one that lacks a library; one that lacked it already may be. */
START_TEST(test_library_missing_to_a_backend_refuses_a_swap) {
    attune_error error;
    attune_swap_report report = {.struct_size = sizeof report};
    attune *host = open_host();
    assert_ok(attune_load(host, install_lacking("plain.so", 2), &error), error);
    assert_fails(attune_swap(host, install_lacking("plain_b.so", 3), &report, &error), error,
                 ATTUNE_UNAVAILABLE, "needs libnowhere.so.7, which is not found");
    ck_assert_str_eq(error.hint, ADVICE);
    ck_assert_str_eq(report.stage, "libraries");
    ck_assert_uint_eq(report.refused, 1);
    assert_ok(attune_swap(host, install_lacking("plain_b.so", 2), &report, &error), error);
    ck_assert_uint_eq(report.swapped, 1);
    attune_close(host);
}
END_TEST

/* The same bytes are no news, unless a library has been installed that a backend of theirs lacked. */
START_TEST(test_library_appears_for_a_backend) {
    attune_error error;
    attune_swap_report report = {.struct_size = sizeof report};
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.attention.1.requires", json_pack("[s]", "libnowhere.so.7"));
    const char *path = install_looking_in("$PWD/lib", manifest);
    attune *host = open_host();
    assert_ok(attune_load(host, path, &error), error);
    assert_ok(attune_swap(host, path, &report, &error), error);
    ck_assert_uint_eq(report.unchanged, 1);
    put_nowhere();
    assert_ok(attune_swap(host, path, &report, &error), error);
    ck_assert_uint_eq(report.swapped, 1);
    assert_ok(attune_swap(host, path, &report, &error), error);
    ck_assert_uint_eq(report.unchanged, 1);
    attune_close(host);
}
END_TEST

/* A library that one backend opens when it first runs: that backend is lost, with the reason, and is not
 * asked its known answers. */
START_TEST(test_library_of_one_backend) {
    attune_error error;
    attune_swap_report report = {.struct_size = sizeof report};
    attune_choice choice = {.struct_size = sizeof choice};
    float data[64];
    attune_device_id cpu;
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.attention.1.requires",
                json_pack("[ss]", "libc.so.6", "libnowhere.so.7"));
    attune *host = open_host();
    assert_ok(attune_load(host, fixture_install(fixture_folder(), manifest), &error), error);
    attune_tensor in = filled(data, 1, 1, 2, 8, 1), out = filled(data + 32, 1, 1, 2, 8, 2);
    assert_ok(attune_cpu_device(host, &cpu, &error), error);
    in.device = out.device = cpu;
    attune_attention_problem problem;
    assert_ok(attune_attention_problem_init(&problem, &in, &in, &in, NULL, &out, &error), error);
    problem.workers = 1;
    const attune_wish any = {.struct_size = sizeof any},
                      sdp = {.struct_size = sizeof sdp, .attention = "sdp", .required = 1};
    assert_ok(attune_choose(host, &any, &problem, &choice, NULL, &error), error);
    ck_assert_str_eq(choice.backend, "sdp-no-mem"); /* though sdp is faster */
    assert_fails(attune_choose(host, &sdp, &problem, &choice, NULL, &error), error, ATTUNE_UNAVAILABLE,
                 "needs libnowhere.so.7, which is not found: " ADVICE);
    attune_close(host);
    /* both backends of this build are wrong: lacking a library keeps them from being asked */
    host = open_host();
    assert_ok(attune_swap(host, install_lacking("plain_wrong.so", 3), &report, &error), error);
    ck_assert_uint_eq(report.added, 1);
    attune_close(host);
}
END_TEST

TCase *library_cases(void) {
    TCase *cases = tcase_create("libraries");
    tcase_add_test(cases, test_library_is_found_in_a_list);
    tcase_add_test(cases, test_library_is_unclear);
    tcase_add_test(cases, test_library_is_found_as_the_cache_says);
    tcase_add_test(cases, test_library_needed_and_search_path);
    tcase_add_test(cases, test_library_is_filled_into_the_manifest);
    tcase_add_test(cases, test_library_that_no_manifest_can_list);
    tcase_add_test(cases, test_library_is_missed_before_code);
    tcase_add_test(cases, test_library_is_found_by_the_environment);
    tcase_add_test(cases, test_library_appears_in_the_search_path);
    tcase_add_test(cases, test_library_of_a_long_search_path);
    tcase_add_test(cases, test_library_missing_refuses_a_swap);
    tcase_add_test(cases, test_library_of_one_backend);
    tcase_add_test(cases, test_library_missing_to_a_backend_refuses_a_swap);
    tcase_add_test(cases, test_library_appears_for_a_backend);
    return cases;
}
