/* check_bad_input.c: broken files, lying manifests, prompts that are no text: one line, the right status,
 * nothing left. */
#include "suite.h"
#include "tests/support/run.h"

#include <string.h>

#define DRAW "\"$HOST\" txt2img 'red apple' -q --steps 1 --seed 1 "

/* Run, expect a status, one line and a text in it; nothing but what the test made lies in the folder "out".
 */
static void fails(const char *commands, int status, const char *text) {
    run_result r = run("mkdir -p out && %s", commands);
    ck_assert_msg(r.status == status, "%s: status %d, expected %d\n%s%s", commands, r.status, status, r.out,
                  r.err);
    ck_assert_msg(strstr(r.err, text) != NULL, "%s: no \"%s\" in\n%s", commands, text, r.err);
    ck_assert_msg(run_lines(r.err) == 1, "%s: not one line\n%s", commands, r.err);
    run_free(&r);
    r = run("ls -A out");
    ck_assert_msg(r.out[0] == 0, "%s left %s", commands, r.out);
    run_free(&r);
}

START_TEST(broken_models_are_named) {
    const char *copy =
        "cp -r \"$S/models/emoji\" m && chmod -R u+w m && U=m/unet/diffusion_pytorch_model.safetensors && ";
    char command[1024];
    fails(DRAW "--model nowhere -o out/a.png", 1, "nowhere");
    fails("mkdir empty && " DRAW "--model empty -o out/a.png", 1, "empty");
    (void)snprintf(command, sizeof command,
                   "%s head -c 1000000 $U > t && mv t $U && " DRAW "--model m -o out/a.png", copy);
    fails(command, 1, "diffusion_pytorch_model.safetensors");
    (void)snprintf(
        command, sizeof command,
        "rm -rf m; %s LC_ALL=C sed -i 's/conv_in.weight/conv_xx.weight/; s/conv_out.bias/conv_xxx.bias/; "
        "s/conv_norm_out.weight/conv_norm_xxx.weight/' $U && " DRAW "--model m -o out/a.png",
        copy);
    fails(command, 1, "conv_in.weight");
    (void)snprintf(command, sizeof command,
                   "rm -rf m; %s echo '{\"a\": ' > m/unet/config.json && " DRAW "--model m -o out/a.png",
                   copy);
    fails(command, 1, "config.json");
    fails("printf 'PK\\003\\004 zip' > m.ckpt && " DRAW "--model m.ckpt -o out/a.png", 1, "torch.load");
    fails("echo '{' > c.json && " DRAW "--model \"$S/models/emoji\" --model-config c.json -o out/a.png", 1,
          "diffusers folder");
    (void)snprintf(
        command, sizeof command,
        "rm -rf m; %s sed -i 's/\"DownBlock2D\"/\"SimpleDownBlock2D\"/' m/unet/config.json && " DRAW
        "--model m -o out/a.png",
        copy);
    fails(command, 1, "SimpleDownBlock2D");
}
END_TEST

START_TEST(lying_manifests_are_refused) {
    const char *copy = "rm -rf p && mkdir -m 755 p && cp \"$B\"/attune-cpu.so \"$B\"/attune-sampler-cpu.so "
                       "\"$B\"/manifest.json p/ && "
                       "chmod go-w p/* && ";
    static const char *const lies[][2] = {
        {"sed -i 's/\"id\": \"sdp\"/\"id\": \"spd\"/' p/manifest.json", "sdp"},
        {"sed -i 's/\"determinism\": \"portable\"/\"determinism\": \"none\"/' p/manifest.json",
         "determinism"},
        {"sed -i 's/\"sha256\": \"./\"sha256\": \"x/' p/manifest.json", "sha256"},
        {"printf x >> p/attune-cpu.so", "bytes, the manifest says"},
        {"sed -i 's|\"path\": \"attune|\"path\": \"../p/attune|' p/manifest.json", ".."},
        {"chmod g+w p/attune-cpu.so", "chmod go-w"},
        {"chmod o+w p", "chmod go-w"},
        {"dd if=/dev/zero of=p/attune-cpu.so bs=1 seek=5000 count=64 conv=notrunc status=none", "SHA-256"},
        {"rm p/attune-cpu.so", "attune-cpu"},
        {"sed -i 's/\"format\": 1/\"format\": 99/' p/manifest.json", "format"},
        {"sed -i 's/\"abi\": {/\"surprise\": 1, \"abi\": {/' p/manifest.json", "surprise"},
        {"echo '{' > p/manifest.json", "manifest.json"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; ++i) {
        char command[1024];
        (void)snprintf(command, sizeof command, "%s %s && " DRAW "--plugin p/manifest.json -o out/a.png",
                       copy, lies[i][0]);
        fails(command, 1, lies[i][1]);
    }
    fails(DRAW "--plugin nowhere.json -o out/a.png", 1, "nowhere.json");
}
END_TEST

#ifndef __SANITIZE_ADDRESS__ /* which itself takes terabytes of address space */
START_TEST(address_space_that_runs_out_is_an_error) {
    run_result r =
        run("for kib in 40000 60000 80000 100000 120000 150000 180000 200000 220000 260000 300000 400000; do "
            "( ulimit -v $kib; " DRAW "-o space.png ) >/dev/null 2>lines; S=$?; "
            "case $S in 0|1|3) ;; *) echo \"$kib KiB: status $S\"; cat lines;; esac; done");
    ck_assert_msg(r.out[0] == 0, "%s", r.out);
    run_free(&r);
}
END_TEST
#endif

START_TEST(prompts_must_be_utf8) {
    fails("\"$HOST\" txt2img \"$(printf 'red \\377 apple')\" -q --steps 1 --seed 1 -o out/a.png", 2, "UTF-8");
}
END_TEST

START_TEST(errors_are_json_too) {
    run_result r = run("\"$HOST\" txt2img apple --json --nonsense");
    ck_assert_int_eq(r.status, 2);
    json_t *json = run_json(&r), *error = json_object_get(json, "error");
    ck_assert_str_eq(json_string_value(json_object_get(error, "code")), "INVALID_ARGUMENT");
    ck_assert_ptr_nonnull(strstr(json_string_value(json_object_get(error, "message")), "--nonsense"));
    ck_assert(json_is_string(json_object_get(error, "hint")));
    json_decref(json);
    run_free(&r);
    r = run("\"$HOST\" txt2img apple --json -q --attention-required None --memory-limit 8300000");
    ck_assert_int_eq(r.status, 3);
    json = run_json(&r);
    json_t *explain = json_object_get(json_object_get(json, "choice"), "explain"), *candidate;
    size_t i;
    ck_assert_uint_ge(json_array_size(explain), 2);
    json_array_foreach(explain, i, candidate) {
        ck_assert(json_is_false(json_object_get(candidate, "chosen")));
        ck_assert_str_ne(json_string_value(json_object_get(candidate, "reason")), "");
    }
    json_decref(json);
    run_free(&r);
}
END_TEST

START_TEST(an_interrupt_ends_within_a_step_and_leaves_nothing) {
    run_result r = run("mkdir -p out; \"$HOST\" txt2img 'red apple' --steps 1000 --width 512 --height 512 "
                       "--json -o out/a.png & "
                       "P=$!; sleep 1; kill -INT $P; wait $P");
    ck_assert_msg(r.status == 130, "status %d\n%s", r.status, r.err);
    json_t *json = run_json(&r);
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(json, "error"), "code")), "CANCELLED");
    json_decref(json);
    run_free(&r);
    r = run("ls -A out");
    ck_assert_str_eq(r.out, "");
    run_free(&r);
}
END_TEST

TCase *bad_input_cases(void) {
    TCase *cases = tcase_create("bad_input");
    tcase_add_test(cases, broken_models_are_named);
    tcase_add_test(cases, lying_manifests_are_refused);
#ifndef __SANITIZE_ADDRESS__
    tcase_add_test(cases, address_space_that_runs_out_is_an_error);
#endif
    tcase_add_test(cases, prompts_must_be_utf8);
    tcase_add_test(cases, errors_are_json_too);
    tcase_add_test(cases, an_interrupt_ends_within_a_step_and_leaves_nothing);
    return cases;
}
