/* check_negotiation.c: the host and attune-cuda: what is chosen on machines with no, one and two GPUs, and
 * the reason for everything that is not; the command line on a device. */
#include "tests/cuda/suite.h"
#include "tests/support/run.h"

#include "attune/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A host with all that the build has made. */
static attune *open_host(void) {
    attune *host;
    attune_error error;
    const attune_options options = {.struct_size = sizeof options, .threads = 2, .plugin_dir = run_build()};
    unsetenv("ATTUNE_PLUGIN_PATH");
    setenv("XDG_DATA_HOME", run_folder(), 1);
    setenv("XDG_DATA_DIRS", run_folder(), 1);
    ck_assert_int_eq(attune_open(&options, &host, &error), ATTUNE_OK);
    ck_assert_msg(attune_load_default(host, &error) == ATTUNE_OK, "%s", error.message);
    return host;
}

static void set_machine(const char *devices, const char *memory, const char *capability) {
    setenv("ATTUNE_EMULATOR_DEVICES", devices, 1);
    setenv("ATTUNE_EMULATOR_MEMORY", memory, 1);
    setenv("ATTUNE_EMULATOR_CC", capability, 1);
}

/* The device of this name; 0 where there is none. */
static int find_device(attune *host, const char *name, attune_device_id *out) {
    attune_device_info info = {.struct_size = sizeof info};
    int found = 0;
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    for (uint32_t i = 0; !found && i < attune_snapshot_count(snapshot); ++i)
        for (uint32_t j = 0; !found && attune_snapshot_device(snapshot, i, j, &info, NULL) == ATTUNE_OK; ++j)
            found = strcmp(info.name, name) == 0;
    attune_snapshot_release(snapshot);
    *out = info.id;
    return found;
}

/* Chooses for a problem of Stable Diffusion 1.5 whose tensors are on `device`. */
static attune_code choose(attune *host, const char *device, const attune_wish *wish, attune_choice *choice,
                          attune_error *error) {
    attune_device_id id;
    int64_t shape[4] = {2, 8, 1024, 80};
    ck_assert_msg(find_device(host, device, &id), "no device %s", device);
    attune_tensor t = attune_tensor_view((void *)(uintptr_t)256, ATTUNE_F16, id, 4, shape);
    attune_tensor out = t;
    out.data = (char *)t.data + (1 << 30);
    attune_attention_problem problem;
    ck_assert_int_eq(attune_attention_problem_init(&problem, &t, &t, &t, NULL, &out, error), ATTUNE_OK);
    problem.workers = id.type == ATTUNE_DEVICE_CPU ? 2 : 0;
    memset(choice, 0, sizeof *choice);
    memset(error, 0, sizeof *error);
    choice->struct_size = sizeof *choice;
    return attune_choose(host, wish, &problem, choice, NULL, error);
}

/* The reason that the choice gives for a backend of attune-cuda. */
static const char *reason_of(const attune_choice *choice, const char *backend) {
    for (uint32_t i = 0; i < choice->candidates; ++i)
        if (strcmp(choice->candidate[i].backend, backend) == 0 &&
            strcmp(choice->candidate[i].plugin, "attune-cuda") == 0)
            return choice->candidate[i].reason;
    return "it is no candidate";
}

#define assert_has(text, part) ck_assert_msg(strstr(text, part) != NULL, "\"%s\" lacks \"%s\"", text, part)

START_TEST(without_a_device_the_rest_serves_and_the_plugin_says_why) {
    attune_error error;
    attune_choice choice;
    attune_plugin_status status = {.struct_size = sizeof status};
    set_machine("0", "2G", "8.6");
    attune *host = open_host();
    const attune_wish any = {.struct_size = sizeof any},
                      nvidia = {.struct_size = sizeof nvidia, .vendor = "nvidia"};
    ck_assert_int_eq(choose(host, "cpu", &any, &choice, &error), ATTUNE_OK);
    ck_assert_str_eq(choice.plugin, "attune-cpu");
    ck_assert_int_eq(choose(host, "cpu", &nvidia, &choice, &error), ATTUNE_UNAVAILABLE);
    assert_has(error.message, "vendor nvidia was asked for");
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    for (uint32_t i = 0; strcmp(status.id, "attune-cuda") != 0; ++i)
        ck_assert_int_eq(attune_snapshot_plugin(snapshot, i, &status, NULL), ATTUNE_OK);
    attune_snapshot_release(snapshot);
    ck_assert_str_eq(status.state, "refused");
    ck_assert_int_eq(status.refused_code, ATTUNE_UNAVAILABLE);
    assert_has(status.refused, "CUDA finds no GPU: error 100 (is a GPU there, and in CUDA_VISIBLE_DEVICES?)");
    attune_close(host);
}
END_TEST

/* What is in lib/ hides what is installed. */
#define HOLLOW(name) "printf 'int hollow;' | cc -shared -fPIC -x c - -Wl,-soname," name " -o lib/" name

/* A copy of the build in b/ that asks for a library by a name that no machine has; its manifest says so. */
#define RENAMED(from, to)                                                                                    \
    "mkdir b && cp $B/attune-c*.so b && sed -i 's/" from "/" to "/g' b/attune-cuda.so && "                   \
    "sed 's/" from "/" to "/g' $S/manifest.json > b/template && "                                            \
    "$B/tools/fill_manifest b/template b b/manifest.json attune-sampler-cpu && "

/* A runtime without its functions is found by the linker, one that is not there by the manifest. */
START_TEST(without_the_runtime_only_the_plugin_is_lost) {
    static const struct {
        const char *command, *reason, *advice;
    } ways[] = {{"mkdir lib && " HOLLOW("libcudart.so.13") " && LD_LIBRARY_PATH=$PWD/lib $HOST plugins",
                 "the dynamic linker refused it: ", "(install the libraries that it needs: ldd tells which)"},
                {RENAMED("libcudart.so.13", "libcudart.so.99") "$HOST plugins --plugin b/manifest.json",
                 "libcudart.so.99 is not found ", "(install it, or put its folder into LD_LIBRARY_PATH)"}};
    run_result r = run("%s", ways[_i].command);
    ck_assert_msg(r.status == 0, "%d: %s%s", r.status, r.out, r.err);
    char *const line = strstr(r.out, "attune-cuda 0.1.0 (Attune)  refused: ");
    ck_assert_msg(line != NULL, "%s", r.out);
    *strchr(line, '\n') = 0;
    assert_has(line, ways[_i].reason);
    assert_has(line, ways[_i].advice);
    if (_i == 0)
        assert_has(line, "undefined symbol: cuda");
    *strchr(line, 0) = '\n';
    assert_has(r.out, "sub-quadratic  "); /* the CPU's backends serve */
    run_free(&r);
}
END_TEST

/* A cuBLAS without its functions, a file that is no library, and none: `math` says what it needs, the others
 * serve. */
START_TEST(without_cublas_only_math_is_lost) {
    static const struct {
        const char *command, *plugin, *reason, *advice;
    } ways[] = {{HOLLOW("libcublas.so.13") " && ", "",
                 "math needs libcublas.so.13: ", "install cuBLAS of CUDA 13, or choose another backend"},
                {"printf 'no library' > lib/libcublas.so.13 && ", "",
                 "math needs libcublas.so.13: ", "install cuBLAS of CUDA 13, or choose another backend"},
                {RENAMED("libcublas.so.13", "libcublas.so.99"), "--plugin b/manifest.json ",
                 "needs libcublas.so.99, which is not found: ",
                 "install it, or put its folder into LD_LIBRARY_PATH"}};
    run_result r = run("mkdir lib && cp $B/tests/cuda_emulator/libcudart.so.13 lib && %s"
                       "LD_LIBRARY_PATH=$PWD/lib $HOST bench attention %s--device cuda --dtype float16 "
                       "--shape 1,1,33,20,40 --json",
                       ways[_i].command, ways[_i].plugin);
    ck_assert_msg(r.status == 0, "%d: %s%s", r.status, r.out, r.err);
    json_t *reply = run_json(&r), *results = json_object_get(reply, "results"), *one;
    size_t i, timed = 0;
    json_array_foreach(results, i, one) {
        const char *refused = json_string_value(json_object_get(one, "refused"));
        timed += json_object_get(one, "milliseconds") != NULL;
        if (strcmp(json_string_value(json_object_get(one, "backend")), "math") == 0) {
            ck_assert_ptr_nonnull(refused);
            assert_has(refused, ways[_i].reason);
            assert_has(refused, ways[_i].advice);
        }
    }
    ck_assert_uint_eq(timed, 3);
    json_decref(reply);
    run_free(&r);
}
END_TEST

/* What the build's manifest requires is what the linker would have to find, and what is opened later. */
START_TEST(the_manifest_names_what_is_needed) {
    run_result r = run("cat $B/manifest.json");
    json_t *manifest = run_json(&r), *library, *backend, *one;
    size_t i, k, found = 0, runtime = 0;
    json_array_foreach(json_object_get(manifest, "libraries"), i, library) {
        if (strcmp(json_string_value(json_object_get(library, "id")), "attune-cuda") != 0)
            continue;
        json_array_foreach(json_object_get(library, "requires"), k, one) {
            runtime += strcmp(json_string_value(one), "libcudart.so.13") == 0;
            ck_assert_ptr_null(strstr(json_string_value(one), "cublas")); /* half a gigabyte */
        }
        json_array_foreach(json_object_get(library, "attention"), k, backend) {
            const json_t *requires = json_object_get(backend, "requires");
            const int math = strcmp(json_string_value(json_object_get(backend, "id")), "math") == 0;
            ck_assert_uint_eq(json_array_size(requires), math ? 1 : 0);
            if (math)
                ck_assert_str_eq(json_string_value(json_array_get(requires, 0)), "libcublas.so.13");
            ++found;
        }
    }
    ck_assert_uint_eq(found, 4);
    ck_assert_uint_eq(runtime, 1);
    json_decref(manifest);
    run_free(&r);
}
END_TEST

START_TEST(tensors_stay_where_they_are) {
    attune_error error;
    attune_choice choice;
    set_machine("1", "24G", "8.6");
    attune *host = open_host();
    const attune_wish any = {.struct_size = sizeof any},
                      cuda = {.struct_size = sizeof cuda, .device = "cuda:0"},
                      intel = {.struct_size = sizeof intel, .vendor = "Intel"};
    ck_assert_int_eq(choose(host, "cpu", &any, &choice, &error), ATTUNE_OK);
    ck_assert_str_eq(choice.plugin, "attune-cpu");
    assert_has(reason_of(&choice, "sdp"), "the tensors are on cpu, and nothing is copied implicitly");
    ck_assert_int_eq(choose(host, "cpu", &cuda, &choice, &error), ATTUNE_UNAVAILABLE);
    assert_has(error.message, "runs on cuda:0, the tensors are on cpu, and nothing is copied implicitly");
    ck_assert_int_eq(choose(host, "cuda:0", &any, &choice, &error), ATTUNE_OK);
    ck_assert_str_eq(choice.plugin, "attune-cuda");
    ck_assert_int_eq(choose(host, "cuda:0", &intel, &choice, &error), ATTUNE_UNAVAILABLE);
    assert_has(reason_of(&choice, "sdp"), "its device is from NVIDIA, vendor Intel was asked for");
    attune_close(host);
}
END_TEST

START_TEST(memory_and_budgets_filter) {
    attune_error error;
    attune_choice choice;
    set_machine("1", _i ? "24G" : "2G", "8.6");
    attune *host = open_host();
    const attune_wish large = {.struct_size = sizeof large, .min_memory = 8ull << 30},
                      budget = {.struct_size = sizeof budget,
                                .attention = "math",
                                .required = 1,
                                .memory_limit = 1 << 20},
                      class = {.struct_size = sizeof class, .determinism = ATTUNE_DETERMINISM_PORTABLE};
    const attune_code code = choose(host, "cuda:0", &large, &choice, &error);
    ck_assert_int_eq(code, _i ? ATTUNE_OK : ATTUNE_UNAVAILABLE);
    if (!_i)
        assert_has(reason_of(&choice, "sdp"), "cuda:0 has 2 GiB of memory, 8 GiB are asked for");
    ck_assert_int_eq(choose(host, "cuda:0", &budget, &choice, &error), ATTUNE_UNAVAILABLE);
    assert_has(reason_of(&choice, "math"), "bytes of workspace, the budget is 1048576");
    ck_assert_int_eq(choose(host, "cuda:0", &class, &choice, &error), ATTUNE_OK);
    ck_assert_str_eq(choice.backend, "sdp-no-mem");
    ck_assert_int_eq(choice.determinism, ATTUNE_DETERMINISM_PORTABLE);
    assert_has(reason_of(&choice, "sdp"), "keeps determinism class invariant, portable is asked for");
    attune_close(host);
}
END_TEST

static const char *const capabilities[] = {"7.5", "8.6", "9.0", "12.0"};

START_TEST(every_capability_serves_under_the_web_uis_names) {
    static const char *const names[] = {"sdp", "sdp-no-mem", "xformers", "math", "None", "sdp_no_mem"};
    attune_error error;
    attune_choice choice;
    char isa[8];
    set_machine("2", "24G", capabilities[_i]);
    attune *host = open_host();
    (void)snprintf(isa, sizeof isa, "sm_%d", (int)(atof(capabilities[_i]) * 10 + 0.5));
    for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
        const attune_wish wish = {.struct_size = sizeof wish,
                                  .attention = names[i],
                                  .required = 1,
                                  .device = i % 2 ? "cuda:1" : "cuda:0"};
        ck_assert_int_eq(choose(host, wish.device, &wish, &choice, &error), ATTUNE_OK);
        ck_assert_str_eq(choice.isa, isa);
    }
    const attune_wish wish = {.struct_size = sizeof wish, .device = "cuda:1"};
    ck_assert_int_eq(choose(host, "cuda:0", &wish, &choice, &error), ATTUNE_UNAVAILABLE);
    assert_has(error.message, "runs on cuda:1, the tensors are on cuda:0, and nothing is copied implicitly");
    attune_close(host);
}
END_TEST

/* ---- every machine: 0, 1 and 2 GPUs, 2 and 24 GB, four generations ---- */

static const char *const counts[] = {"0", "1", "2"}, *const memories[] = {"2G", "24G"};
enum { CAPABILITIES = 4, MEMORIES = 2, COUNTS = 3, MACHINES = CAPABILITIES * MEMORIES * COUNTS };

/* What is wished for tensors that lie on the last GPU. */
enum { ANY, NVIDIA, INTEL, LARGE, TOO_LARGE, PORTABLE, TIGHT, FIRST, WISHES };
static const attune_wish wishes[WISHES] = {
    [ANY] = {.struct_size = sizeof(attune_wish)},
    [NVIDIA] = {.struct_size = sizeof(attune_wish), .vendor = "nvidia"},
    [INTEL] = {.struct_size = sizeof(attune_wish), .vendor = "Intel"},
    [LARGE] = {.struct_size = sizeof(attune_wish), .min_memory = 8ull << 30},
    [TOO_LARGE] = {.struct_size = sizeof(attune_wish), .min_memory = 25ull << 30},
    [PORTABLE] = {.struct_size = sizeof(attune_wish), .determinism = ATTUNE_DETERMINISM_PORTABLE},
    [TIGHT] = {.struct_size = sizeof(attune_wish), .memory_limit = 1},
    [FIRST] = {.struct_size = sizeof(attune_wish), .device = "cuda:0"}};

/* The reason for a backend of the plugin on GPU `gpu`: its table has them GPU by GPU. */
static const char *reason_on(const attune_choice *choice, int gpu, const char *backend) {
    for (uint32_t i = 0; i < choice->candidates; ++i)
        if (strcmp(choice->candidate[i].plugin, "attune-cuda") == 0 &&
            strcmp(choice->candidate[i].backend, backend) == 0 && gpu-- == 0)
            return choice->candidate[i].reason;
    ck_abort_msg("%s is no candidate", backend);
    return NULL;
}

/* Why `sdp` (TIGHT: `math`) of the GPU with the tensors does not serve; NULL where it does, or might. */
static const char *expected_reason(int wish, int gpus, int large) {
    switch (wish) {
    case INTEL:
        return "its device is from NVIDIA, vendor Intel was asked for";
    case LARGE:
        return large ? NULL : " has 2 GiB of memory, 8 GiB are asked for";
    case TOO_LARGE:
        return large ? " has 24 GiB of memory, 25 GiB are asked for"
                     : " has 2 GiB of memory, 25 GiB are asked for";
    case PORTABLE:
        return "keeps determinism class invariant, portable is asked for";
    case TIGHT:
        return "bytes of workspace, the budget is 1";
    case FIRST:
        return gpus > 1 ? "runs on cuda:1, device cuda:0 was asked for" : NULL;
    default:
        return NULL;
    }
}

/* Every candidate has a reason, and one is chosen where one serves. */
static void check_explained(const attune_choice *choice, int serves) {
    uint32_t chosen = 0;
    ck_assert_uint_gt(choice->candidates, 0);
    for (uint32_t i = 0; i < choice->candidates; ++i) {
        ck_assert_str_ne(choice->candidate[i].reason, "");
        chosen += choice->candidate[i].chosen;
    }
    ck_assert_uint_eq(chosen, serves ? 1 : 0);
}

static void check_wish(attune *host, int wish, int gpus, int large, int capability) {
    attune_error error;
    attune_choice choice;
    char device[16], isa[8];
    (void)snprintf(device, sizeof device, "cuda:%d", gpus - 1);
    (void)snprintf(isa, sizeof isa, "sm_%d", (int)(atof(capabilities[capability]) * 10 + 0.5));
    const char *wanted = expected_reason(wish, gpus, large);
    const int serves = !wanted || wish == PORTABLE || wish == TIGHT;
    const attune_code code = choose(host, device, &wishes[wish], &choice, &error);
    ck_assert_msg(code == (serves ? ATTUNE_OK : ATTUNE_UNAVAILABLE), "wish %d: %s", wish, error.message);
    check_explained(&choice, serves);
    if (wanted)
        assert_has(reason_on(&choice, gpus - 1, wish == TIGHT ? "math" : "sdp"), wanted);
    if (wanted && !serves)
        ck_assert_str_ne(error.message, "");
    if (serves) {
        ck_assert_str_eq(choice.plugin, "attune-cuda");
        ck_assert_str_eq(choice.isa, isa);
    }
    if (wish == PORTABLE)
        ck_assert_str_eq(choice.backend, "sdp-no-mem");
    if (gpus > 1 && (wish == ANY || wish == FIRST))
        assert_has(reason_on(&choice, 0, "sdp"),
                   "runs on cuda:0, the tensors are on cuda:1, and nothing is copied");
}

START_TEST(every_machine_is_explained) {
    const int capability = _i % CAPABILITIES, large = _i / CAPABILITIES % MEMORIES,
              gpus = _i / CAPABILITIES / MEMORIES;
    attune_error error;
    attune_choice choice;
    set_machine(counts[gpus], memories[large], capabilities[capability]);
    attune *host = open_host();
    ck_assert_int_eq(choose(host, "cpu", &wishes[ANY], &choice, &error), ATTUNE_OK);
    ck_assert_str_eq(choice.plugin, "attune-cpu");
    check_explained(&choice, 1);
    ck_assert_int_eq(choose(host, "cpu", &wishes[NVIDIA], &choice, &error), ATTUNE_UNAVAILABLE);
    check_explained(&choice, 0);
    if (gpus == 0)
        ck_assert_str_eq(error.hint,
                         "attune-cuda was refused: CUDA finds no GPU: error 100 (is a GPU there, and in "
                         "CUDA_VISIBLE_DEVICES?)");
    for (int wish = 0; gpus > 0 && wish < WISHES; ++wish)
        check_wish(host, wish, gpus, large, capability);
    attune_close(host);
}
END_TEST

/* The same wishes as options. */
START_TEST(the_command_line_filters) {
    static const struct {
        const char *machine, *options;
        int status;
        const char *text;
    } ways[] = {
        {"MEMORY=2G", "--vendor nvidia --min-memory 8G", 3,
         "cuda:0 has 2 GiB of memory, 8 GiB are asked for"},
        {"MEMORY=24G", "--vendor nvidia --min-memory 8G --explain", 0, "attune-cuda          chosen: "},
        {"DEVICES=2", "--device cuda:1 --explain", 0, "runs on cuda:0, device cuda:1 was asked for"},
        {"DEVICES=1", "--device cuda:1", 3, "device cuda:1 was asked for"},
        {"DEVICES=0", "--vendor NVIDIA", 3, "; attune-cuda was refused: CUDA finds no GPU: "},
        {"CC=12.0", "--device cuda:0 --memory-limit 1 --attention-required math", 3, "the budget is 1"},
        {"CC=7.5", "--device cuda:0 --determinism portable --explain", 0,
         "sdp-no-mem   attune-cuda          chosen: "}};
    enum { WAYS = sizeof ways / sizeof *ways };
    suite_put_array("q", 20, 1);
    run_result r;
    for (int i = 0; i < WAYS; ++i) {
        r = run("ATTUNE_EMULATOR_%s $HOST attention --q q.npy --k q.npy --v q.npy -o o%d.npy %s",
                ways[i].machine, i, ways[i].options);
        ck_assert_msg(r.status == ways[i].status, "%s %s: %d %s", ways[i].machine, ways[i].options, r.status,
                      r.err);
        assert_has(r.err, ways[i].text);
        run_free(&r);
    }
}
END_TEST

START_TEST(the_cpus_sampler_tells_why_not_cuda) {
    run_result r = run("$HOST txt2img panda --steps 1 --width 64 --height 64 -o p.png --explain");
    ck_assert_msg(r.status == 0, "%s", r.err);
    assert_has(r.err, "runs on cuda:0, the tensors are on cpu, and nothing is copied implicitly");
    run_free(&r);
    run_fails("$HOST txt2img panda -q --steps 1 -o p.png --device cuda:0", 3,
              "runs on cpu, device cuda:0 was asked for");
}
END_TEST

START_TEST(the_command_line_tells_what_failed) {
    run_fails("ATTUNE_EMULATOR_FAIL=cudaLaunchKernel:1 $HOST bench attention --shape 1,1,8,8,8 --attention "
              "sdp --device cuda:0",
              1, "cudaErrorMemoryAllocation, error 2");
}
END_TEST

START_TEST(no_gpu_is_no_warning) {
    run_result r = run("ATTUNE_EMULATOR_NO_DRIVER=1 $HOST plugins");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_null(strstr(r.err, "attune-cuda"));
    assert_has(r.out,
               "refused: no NVIDIA driver, or one that is too old for CUDA 13: error 35 (install NVIDIA's "
               "driver 580 or newer)");
    run_free(&r);
    r = run(
        "ATTUNE_EMULATOR_NO_DRIVER=1 $HOST plugins --plugin $B/manifest.json"); /* asked for: it is told */
    ck_assert_int_eq(r.status, 0);
    assert_has(r.err, "warning: attune-cuda: refused: no NVIDIA driver");
    run_free(&r);
}
END_TEST

TCase *negotiation_cases(void) {
    TCase *c = tcase_create("negotiation");
    tcase_add_test(c, without_a_device_the_rest_serves_and_the_plugin_says_why);
    tcase_add_loop_test(c, without_the_runtime_only_the_plugin_is_lost, 0, 2);
    tcase_add_loop_test(c, without_cublas_only_math_is_lost, 0, 3);
    tcase_add_test(c, the_manifest_names_what_is_needed);
    tcase_add_test(c, tensors_stay_where_they_are);
    tcase_add_loop_test(c, memory_and_budgets_filter, 0, 2);
    tcase_add_loop_test(c, every_capability_serves_under_the_web_uis_names, 0, 4);
    tcase_add_loop_test(c, every_machine_is_explained, 0, MACHINES);
    tcase_add_test(c, the_command_line_filters);
    tcase_add_test(c, the_cpus_sampler_tells_why_not_cuda);
    tcase_add_test(c, the_command_line_tells_what_failed);
    tcase_add_test(c, no_gpu_is_no_warning);
    return c;
}
