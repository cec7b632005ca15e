/* check_abi.c: what binaries rely on: numbers, sizes, offsets; headers that stand alone; rules that name real
 * tests. */
#include "cases.h"
#include <stdlib.h>

/* The canonical codes of google/rpc/code.proto. */
static const struct {
    attune_code code;
    const char *name;
} codes[] = {{0, "OK"},
             {1, "CANCELLED"},
             {2, "UNKNOWN"},
             {3, "INVALID_ARGUMENT"},
             {4, "DEADLINE_EXCEEDED"},
             {5, "NOT_FOUND"},
             {6, "ALREADY_EXISTS"},
             {7, "PERMISSION_DENIED"},
             {8, "RESOURCE_EXHAUSTED"},
             {9, "FAILED_PRECONDITION"},
             {10, "ABORTED"},
             {11, "OUT_OF_RANGE"},
             {12, "UNIMPLEMENTED"},
             {13, "INTERNAL"},
             {14, "UNAVAILABLE"},
             {15, "DATA_LOSS"},
             {16, "UNAUTHENTICATED"}};

START_TEST(test_abi_error_codes) {
    int count = 0;
#define ATTUNE_TEST_CODE(name, number, text)                                                                 \
    ck_assert_int_eq(ATTUNE_##name, number);                                                                 \
    ck_assert_str_eq(attune_code_name(number), #name);                                                       \
    ck_assert_uint_gt(strlen(text), 3);                                                                      \
    ++count;
    ATTUNE_CODES(ATTUNE_TEST_CODE)
#undef ATTUNE_TEST_CODE
    ck_assert_int_eq(count, sizeof codes / sizeof *codes);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; ++i)
        ck_assert_str_eq(attune_code_name(codes[i].code), codes[i].name);
    ck_assert_str_eq(attune_code_name(17), "UNKNOWN");
    ck_assert_str_eq(attune_code_name(-1), "UNKNOWN");
}
END_TEST

START_TEST(test_abi_errors_are_caller_owned) {
    attune_error error;
    char text[2000];
    memset(&error, 0xff, sizeof error);
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    ck_assert_int_eq(attune_fail(&error, ATTUNE_NOT_FOUND, text, text, "%s", text), ATTUNE_NOT_FOUND);
    attune_hint(&error, "%s", text);
    ck_assert_uint_eq(strlen(error.domain), sizeof error.domain - 1);
    ck_assert_uint_eq(strlen(error.where), sizeof error.where - 1);
    ck_assert_uint_eq(strlen(error.message), sizeof error.message - 1);
    ck_assert_uint_eq(strlen(error.hint), sizeof error.hint - 1);
    ck_assert_int_eq(error.native_code, 0);
    ck_assert_int_eq(attune_fail(NULL, ATTUNE_ABORTED, NULL, NULL, "x"), ATTUNE_ABORTED);
    attune_hint(NULL, "x");
    ck_assert_int_eq(attune_fail(&error, ATTUNE_ABORTED, NULL, NULL, "%d", 5), ATTUNE_ABORTED);
    ck_assert_str_eq(error.domain, "");
    ck_assert_str_eq(error.hint, "");
}
END_TEST

/* Sizes and offsets on every 64-bit machine that is supported: golden, so that a change is seen. */
static const struct {
    const char *name;
    size_t found, golden;
} layout[] = {
#define SIZE(type, bytes)                                                                                    \
    { "sizeof " #type, sizeof(type), bytes }
#define OFFSET(type, field, bytes)                                                                           \
    { #type "." #field, offsetof(type, field), bytes }
    SIZE(attune_error, 832),
    OFFSET(attune_error, domain, 8),
    OFFSET(attune_error, where, 40),
    OFFSET(attune_error, message, 160),
    OFFSET(attune_error, hint, 672),
    SIZE(attune_dtype, 4),
    SIZE(attune_device_id, 24),
    SIZE(attune_tensor, 144),
    OFFSET(attune_tensor, bytes, 8),
    OFFSET(attune_tensor, device, 16),
    OFFSET(attune_tensor, dtype, 40),
    OFFSET(attune_tensor, ndim, 44),
    OFFSET(attune_tensor, shape, 48),
    OFFSET(attune_tensor, stride, 96),
    SIZE(attune_dltensor, 48),
    OFFSET(attune_dltensor, shape, 24),
    OFFSET(attune_dltensor, byte_offset, 40),
    SIZE(attune_stream, 48),
    OFFSET(attune_stream, native, 32),
    SIZE(attune_control, 32),
    OFFSET(attune_control, deadline, 24),
    SIZE(attune_memory_service, 32),
    SIZE(attune_log_service, 24),
    SIZE(attune_parallel_service, 24),
    SIZE(attune_clock_service, 24),
    SIZE(attune_host, 24),
    OFFSET(attune_host, get_service, 16),
    SIZE(attune_plugin, 72),
    OFFSET(attune_plugin, create, 40),
    OFFSET(attune_plugin, destroy, 64),
    SIZE(attune_device_info, 208),
    OFFSET(attune_device_info, name, 32),
    OFFSET(attune_device_info, memory_total, 192),
    SIZE(attune_device_interface, 104),
    OFFSET(attune_device_interface, event_destroy, 96),
    SIZE(attune_attention_info, 376),
    OFFSET(attune_attention_info, device, 32),
    OFFSET(attune_attention_info, isa, 344),
    SIZE(attune_chunks, 16),
    SIZE(attune_attention_problem, 296),
    OFFSET(attune_attention_problem, dtype, 72),
    OFFSET(attune_attention_problem, budget, 80),
    OFFSET(attune_attention_problem, stride_q, 120),
    OFFSET(attune_attention_problem, stride_mask, 248),
    OFFSET(attune_attention_problem, chunks, 280),
    SIZE(attune_attention_answer, 240),
    OFFSET(attune_attention_answer, workspace, 176),
    OFFSET(attune_attention_answer, plan, 208),
    SIZE(attune_attention_args, 64),
    SIZE(attune_attention_interface, 40),
    OFFSET(attune_attention_interface, run, 32),
    SIZE(attune_sampler_info, 352),
    SIZE(attune_model_options, 24),
    SIZE(attune_model_info, 168),
    SIZE(attune_request, 104),
    SIZE(attune_bound, 120),
    SIZE(attune_binder, 32),
    SIZE(attune_session_plan, 344),
    SIZE(attune_progress, 24),
    SIZE(attune_image, 24),
    SIZE(attune_sampler_interface, 88),
    OFFSET(attune_sampler_interface, session_close, 80),
    SIZE(attune_options, 40),
    SIZE(attune_plugin_status, 1040),
    SIZE(attune_wish, 80),
    OFFSET(attune_wish, chunks, 56),
    OFFSET(attune_wish, swap, 72),
    SIZE(attune_session_moves, 272),
    SIZE(attune_swap_report, 160),
    SIZE(attune_generation_info, 1144),
    SIZE(attune_candidate, 312),
    SIZE(attune_memory_usage, 24),
};

START_TEST(test_abi_golden_layout) {
    ck_assert_msg(layout[_i].found == layout[_i].golden, "%s is %zu, golden %zu", layout[_i].name,
                  layout[_i].found, layout[_i].golden);
}
END_TEST

START_TEST(test_abi_determinism_names) {
    ck_assert_str_eq(attune_determinism_name(ATTUNE_DETERMINISM_NONE), "none");
    ck_assert_str_eq(attune_determinism_name(ATTUNE_DETERMINISM_PORTABLE), "portable");
    ck_assert_ptr_null(attune_determinism_name(4));
    ck_assert_ptr_null(attune_determinism_name(-1));
}
END_TEST

/* A DLTensor becomes a view and back without a copy. */
START_TEST(test_abi_dlpack) {
    float data[24];
    int64_t shape[3] = {2, 3, 4}, strides[3] = {1, 8, 2}, many[7] = {1, 1, 1, 1, 1, 1, 1};
    attune_dltensor from = {data, ATTUNE_DEVICE_CPU, 0, 3, {ATTUNE_TYPE_FLOAT, 32, 1}, shape, strides, 0},
                    back;
    attune_tensor tensor;
    attune_error error;
    assert_ok(attune_tensor_from_dlpack(&from, &tensor, &error), error);
    ck_assert_ptr_eq(tensor.data, data);
    ck_assert_int_eq(tensor.stride[1], 8);
    ck_assert_uint_eq(tensor.bytes, sizeof data);
    attune_tensor_to_dlpack(&tensor, &back);
    ck_assert_mem_eq(back.shape, shape, sizeof shape);
    ck_assert_mem_eq(back.strides, strides, sizeof strides);
    from.strides = NULL;
    from.byte_offset = 4;
    shape[0] = 1;
    assert_ok(attune_tensor_from_dlpack(&from, &tensor, &error), error);
    ck_assert_ptr_eq(tensor.data, data + 1);
    ck_assert_int_eq(tensor.stride[0], 12);
    shape[1] = -1;
    assert_fails(attune_tensor_from_dlpack(&from, &tensor, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "negative");
    from.ndim = 7;
    from.shape = many;
    assert_fails(attune_tensor_from_dlpack(&from, &tensor, &error), error, ATTUNE_OUT_OF_RANGE,
                 "7 dimensions");
    shape[0] = shape[1] = shape[2] = INT64_MAX / 2;
    from.ndim = 3;
    from.shape = shape;
    assert_fails(attune_tensor_from_dlpack(&from, &tensor, &error), error, ATTUNE_INVALID_ARGUMENT,
                 "overflowing");
}
END_TEST

/* ---- headers ---- */

static int have(const char *compiler) {
    run_result result = run("command -v %s", compiler);
    int found = result.status == 0;
    run_free(&result);
    return found;
}

static const char *const headers[] = {"abi", "tensor", "plugin", "device", "attention", "sampler", "host"};

/* Each public header compiles alone, as C11 and as C++17, with all compilers that are here (the build's own
 * at least). */
START_TEST(test_abi_headers_stand_alone) {
    static const char *const compilers[] = {"cc -std=c11 -x c", "gcc -std=c11 -x c", "clang -std=c11 -x c",
                                            "g++ -std=c++17 -x c++", "clang++ -std=c++17 -x c++"};
    int used = 0;
    for (size_t i = 0; i < sizeof compilers / sizeof *compilers; ++i) {
        char name[32];
        (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(compilers[i], " "), compilers[i]);
        if (!have(name))
            continue;
        ++used;
        run_result result = run(
            "echo '#include \"attune/%s.h\"' | %s -Wall -Wextra -Werror -I\"$S/host_api\" -fsyntax-only -",
            headers[_i], compilers[i]);
        ck_assert_msg(result.status == 0, "%s alone with %s:\n%s", headers[_i], compilers[i], result.err);
        run_free(&result);
    }
    ck_assert_int_gt(used, 0);
}
END_TEST

/* libattune.so exports what host.h declares ATTUNE_EXPORT, and nothing else. */
START_TEST(test_abi_exports) {
    run_result result = run("sed -n 's/^ATTUNE_EXPORT.*[ *]\\(attune_[a-z_]*\\)(.*/\\1/p' "
                            "\"$S/host_api/attune/host.h\" | sort >declared && "
                            "nm -D --defined-only \"$B/libattune.so\" | sed -n 's/.* T "
                            "\\([a-z_]*\\).*/\\1/p' | sort >exported && "
                            "diff declared exported && wc -l <declared");
    ck_assert_msg(result.status == 0, "%s%s", result.out, result.err);
    ck_assert_int_gt(atoi(result.out), 20);
    run_free(&result);
}
END_TEST

/* ---- docs/abi.md ---- */

/* Every rule is numbered without gaps and ends by naming its tests, which exist, or by "not enforceable" and
 * why. */
START_TEST(test_abi_rules_name_tests) {
    char path[4200];
    int number = 0, tests = 0;
    (void)snprintf(path, sizeof path, "%s/docs/abi.md", run_source());
    char *text = run_read(path, NULL), *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *end;
        long found = strtol(line, &end, 10);
        if (end == line || strncmp(end, ". ", 2) != 0)
            continue;
        ++number;
        ck_assert_msg(found == number, "rule %ld stands where %d is expected", found, number);
        char *enforced = strstr(line, "Test: `"), *not = strstr(line, "Not enforceable: ");
        ck_assert_msg(enforced || not, "rule %d names no test: %s", number, line);
        for (char *name = enforced ? strstr(enforced, "`test_") : NULL; name; name = strstr(name, "`test_")) {
            char *close = strchr(++name, '`');
            ck_assert_ptr_nonnull(close);
            run_result result =
                run("grep -rqF 'START_TEST(%.*s)' \"$S\"/tests/*/check_*.c", (int)(close - name), name);
            ck_assert_msg(result.status == 0, "rule %d names the test %.*s, which does not exist", number,
                          (int)(close - name), name);
            run_free(&result);
            ++tests;
            name = close + 1;
        }
    }
    ck_assert_int_gt(number, 20);
    ck_assert_int_gt(tests, 20);
    free(text);
}
END_TEST

/* ---- the tool that fills in sizes and hashes ---- */

START_TEST(test_fill_manifest) {
    run_result result = run(
        "mkdir lib && printf abc >lib/a.so && umask 000 && "
        "echo '{\"x-first\": 1, \"libraries\": [{\"path\": \"a.so\", \"size\": 0}], \"a\": 2}' >template && "
        "\"$B/tools/fill_manifest\" template lib out.json && stat -c %%a out.json && cat out.json && ls");
    ck_assert_msg(result.status == 0, "%s", result.err);
    ck_assert_ptr_nonnull(strstr(result.out, "644"));
    ck_assert_ptr_nonnull(strstr(result.out, "\"size\": 3"));
    /* FIPS 180-2, appendix B.1 */
    ck_assert_ptr_nonnull(
        strstr(result.out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    ck_assert(strstr(result.out, "x-first") < strstr(result.out, "libraries"));
    ck_assert_ptr_null(strstr(result.out, "out.json."));
    run_free(&result);
    result = run("rm lib/a.so; \"$B/tools/fill_manifest\" template lib out.json");
    ck_assert_int_eq(result.status, 1);
    ck_assert_ptr_nonnull(strstr(result.err, "lib/a.so: No such file"));
    run_free(&result);
    result = run("echo '{' >template; \"$B/tools/fill_manifest\" template lib out.json");
    ck_assert_int_eq(result.status, 1);
    run_free(&result);
    result = run("\"$B/tools/fill_manifest\"");
    ck_assert_int_eq(result.status, 2);
    run_free(&result);
}
END_TEST

TCase *abi_cases(void) {
    TCase *cases = tcase_create("abi");
    tcase_add_test(cases, test_abi_error_codes);
    tcase_add_test(cases, test_abi_errors_are_caller_owned);
    tcase_add_loop_test(cases, test_abi_golden_layout, 0, sizeof layout / sizeof *layout);
    tcase_add_test(cases, test_abi_determinism_names);
    tcase_add_test(cases, test_abi_dlpack);
    tcase_add_loop_test(cases, test_abi_headers_stand_alone, 0, sizeof headers / sizeof *headers);
    tcase_add_test(cases, test_abi_exports);
    tcase_add_test(cases, test_abi_rules_name_tests);
    tcase_add_test(cases, test_fill_manifest);
    tcase_set_timeout(cases, 0);
    return cases;
}
