/* check_txt2img.c: whole pictures: equal to k-diffusion driving diffusers, equal to themselves, described in
 * their PNG. */
#include "picture.h"
#include "sample_host/npy.h"
#include "suite.h"
#include "tests/support/run.h"
#include "tests/support/single_file.h"

#include <stdlib.h>
#include <string.h>

static const char *text_of(json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* Pictures of one golden case: at most 1 of 255 off in 99.9 % of the pixels, and nowhere more than 2. */
static void compare_case(json_t *entry) {
    char path[4400], model[4400];
    npy_array golden;
    attune_error error;
    int tiny = strcmp(text_of(entry, "model"), "tiny") == 0;
    (void)snprintf(model, sizeof model, "%s/%s", run_source(),
                   tiny ? "tests/golden/data/tiny" : "models/emoji");
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/%s", run_source(),
                   text_of(json_object_get(entry, "files"), "images"));
    ck_assert_msg(npy_read(path, &golden, &error) == ATTUNE_OK, "%s", error.message);
    int batch = (int)json_integer_value(json_object_get(entry, "batch"));
    const char *source = text_of(entry, "randn_source"); /* this and the next three: in some cases only */
    run_result r =
        run("\"$HOST\" txt2img '%s' -q --negative-prompt '%s' --model '%s' --sampler '%s' "
            "--scheduler '%s' --randn-source %s --clip-skip %d --subseed %lld --subseed-strength %g "
            "--steps %d "
            "--cfg-scale %g --seed %lld --width %d --height %d --batch-size %d -o golden.png",
            text_of(entry, "prompt"), text_of(entry, "negative"), model, text_of(entry, "sampler"),
            text_of(entry, "schedule"), source ? source : "CPU",
            json_object_get(entry, "clip_skip") ? (int)json_integer_value(json_object_get(entry, "clip_skip"))
                                                : 1,
            (long long)json_integer_value(json_object_get(entry, "subseed")),
            json_number_value(json_object_get(entry, "subseed_strength")),
            (int)json_integer_value(json_object_get(entry, "steps")),
            json_number_value(json_object_get(entry, "cfg")),
            (long long)json_integer_value(json_object_get(entry, "seed")),
            (int)json_integer_value(json_object_get(entry, "width")),
            (int)json_integer_value(json_object_get(entry, "height")), batch);
    ck_assert_msg(r.status == 0, "%s: %s", text_of(entry, "stem"), r.err);
    run_free(&r);
    size_t off = 0, pixels = 0, size = golden.tensor.bytes / (size_t)batch;
    for (int i = 0; i < batch; ++i) {
        char name[64] = "golden.png";
        if (batch > 1)
            (void)snprintf(name, sizeof name, "golden-%04d.png", i + 1);
        picture p = read_picture(name);
        ck_assert_uint_eq((size_t)p.width * p.height * 3, size);
        const uint8_t *expected = (const uint8_t *)golden.tensor.data + (size_t)i * size;
        for (size_t k = 0, worst = 0; k < size; ++k) {
            int difference = abs(p.pixels[k] - expected[k]);
            worst = k % 3 && worst > (size_t)difference ? worst : (size_t)difference;
            pixels += k % 3 == 2;
            off += k % 3 == 2 && worst > 1;
            ck_assert_msg(difference <= 2, "%s image %d value %zu: %d, expected %d", text_of(entry, "stem"),
                          i, k, p.pixels[k], expected[k]);
        }
        free_picture(&p);
    }
    ck_assert_msg(off * 1000 <= pixels, "%s: %zu pixels are off by more than 1", text_of(entry, "stem"), off);
    npy_free(&golden);
}

START_TEST(pictures_equal_k_diffusion_and_diffusers) {
    char path[4400];
    size_t i;
    json_t *entry;
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/cases.json", run_source());
    json_t *list = json_load_file(path, 0, NULL);
    ck_assert_uint_ge(json_array_size(list), 6);
    json_array_foreach(list, i, entry) compare_case(entry);
    json_decref(list);
}
END_TEST

START_TEST(the_json_has_what_scripts_rely_on) {
    run_result r = run("\"$HOST\" txt2img 'red apple' --json --steps 3 --seed 5 --batch-size 2 --batch-count "
                       "2 --width 64 --height 72 "
                       "--attention sdp-no-mem -o many.png");
    ck_assert_msg(r.status == 0, "%s", r.err);
    json_t *json = run_json(&r), *outputs = json_object_get(json, "outputs"),
           *seconds = json_object_get(json, "seconds");
    json_t *choice = json_object_get(json, "choice"), *attention = json_object_get(json, "attention"), *entry;
    ck_assert_uint_eq(json_array_size(outputs), 4);
    ck_assert_str_eq(json_string_value(json_array_get(outputs, 0)), "many-0001.png");
    ck_assert_str_eq(json_string_value(json_array_get(outputs, 3)), "many-0004.png");
    for (int i = 0; i < 4; ++i)
        ck_assert_int_eq((int)json_integer_value(json_array_get(json_object_get(json, "seeds"), (size_t)i)),
                         5 + i);
    ck_assert_str_eq(text_of(choice, "backend"), "sdp-no-mem");
    ck_assert_str_eq(text_of(choice, "plugin"), "attune-cpu");
    ck_assert_str_eq(text_of(choice, "determinism"), "portable");
    ck_assert_str_eq(text_of(choice, "arithmetic"), "attune-f32-1");
    ck_assert_ptr_nonnull(text_of(choice, "version"));
    ck_assert_uint_eq(json_array_size(json_object_get(choice, "explain")), 6);
    size_t i;
    json_array_foreach(attention, i, entry) {
        ck_assert_uint_eq(json_array_size(json_object_get(json_object_get(entry, "problem"), "shape")), 5);
        ck_assert_int_gt((int)json_integer_value(json_object_get(entry, "calls")), 0);
    }
    ck_assert_uint_ge(i, 3);
    double sum = 0, total = json_number_value(json_object_get(seconds, "total"));
    static const char *const parts[] = {"load", "text", "sample", "decode"};
    for (i = 0; i < 4; ++i) {
        ck_assert_msg(json_number_value(json_object_get(seconds, parts[i])) > 0, "no seconds.%s", parts[i]);
        sum += json_number_value(json_object_get(seconds, parts[i]));
    }
    ck_assert(sum <= total);
    ck_assert(json_integer_value(json_object_get(json, "peak_bytes")) > 1 << 20);
    ck_assert(json_integer_value(json_object_get(json, "counted_bytes")) > 1 << 16);
    ck_assert(json_is_array(json_object_get(json, "warnings")));
    ck_assert_str_eq(text_of(json_object_get(json, "determinism"), "kept"), "portable");
    ck_assert_str_eq(text_of(json_object_get(json, "determinism"), "asked"), "portable");
    json_decref(json);
    run_free(&r);
}
END_TEST

/* Seeds of a run with a variation: the seed stays, the variation seed counts. */
START_TEST(the_png_names_noise_clip_skip_and_variation) {
    run_result r =
        run("\"$HOST\" txt2img '(red:1.3) apple' --steps 2 --seed 9 --randn-source nv --clip-skip 2 "
            "--subseed 40 --subseed-strength 0.25 --batch-size 2 --json --width 64 --height 64 -o v.png");
    ck_assert_msg(r.status == 0, "%s", r.err);
    json_t *json = run_json(&r), *seeds = json_object_get(json, "seeds");
    ck_assert_uint_eq(json_array_size(seeds), 2);
    ck_assert_int_eq(json_integer_value(json_array_get(seeds, 0)), 9);
    ck_assert_int_eq(json_integer_value(json_array_get(seeds, 1)), 9);
    json_decref(json);
    picture first = read_picture("v-0001.png"), second = read_picture("v-0002.png");
    ck_assert_ptr_nonnull(strstr(first.parameters, ", Seed: 9, "));
    ck_assert_ptr_nonnull(strstr(first.parameters,
                                 ", Model: emoji, Variation seed: 40, Variation seed strength: 0.25, "
                                 "Clip skip: 2, RNG: NV, Attention: "));
    ck_assert_ptr_nonnull(strstr(second.parameters, ", Variation seed: 41, "));
    ck_assert_mem_ne(first.pixels, second.pixels, (size_t)first.width * first.height * 3);
    free_picture(&first);
    free_picture(&second);
    run_free(&r);
    r = run("\"$HOST\" txt2img 'red apple' --steps 2 --seed 1 --subseed-strength 0.5 -o w.png");
    ck_assert_ptr_nonnull(strstr(r.err, "Variation seed: "));
    run_free(&r);
}
END_TEST

START_TEST(the_png_says_how_it_was_made) {
    run_result r = run(
        "\"$HOST\" txt2img 'red apple' -q --negative-prompt 'blue, green' --steps 2 --seed 9 --cfg-scale 5 "
        "--sampler 'DPM++ 2M' --scheduler Karras -o info.png");
    ck_assert_msg(r.status == 0, "%s", r.err);
    run_free(&r);
    picture p = read_picture("info.png");
    const char *start = "red apple\nNegative prompt: blue, green\nSteps: 2, Sampler: DPM++ 2M, Schedule "
                        "type: Karras, CFG scale: 5, "
                        "Seed: 9, Size: 128x128, Model hash: ";
    ck_assert_msg(strncmp(p.parameters, start, strlen(start)) == 0, "%s", p.parameters);
    ck_assert_ptr_nonnull(strstr(p.parameters, ", Model: emoji, RNG: CPU, Attention: \""));
    ck_assert_ptr_nonnull(strstr(p.parameters, " (attune-cpu "));
    ck_assert_ptr_nonnull(strstr(p.parameters, ", portable)\""));
    ck_assert_ptr_nonnull(strstr(p.parameters, "attune-f32-1"));
    ck_assert_ptr_nonnull(strstr(p.parameters, "Determinism: portable"));
    free_picture(&p);
    r = run("sha256sum \"$S/models/emoji/unet/diffusion_pytorch_model.safetensors\" | cut -c1-10 && "
            "strings info.png | grep -o 'Model hash: [0-9a-f]*' | cut -c13-");
    ck_assert_int_eq(strncmp(r.out, r.out + 11, 10), 0);
    run_free(&r);
}
END_TEST

START_TEST(other_names_of_a_sampler_are_the_same_request) {
    run_result r =
        run("A=\"txt2img star -q --steps 2 --seed 3\"; \"$HOST\" $A --sampler 'Euler a' -o a.png && "
            "\"$HOST\" $A --sampler k_euler_a -o b.png && cmp a.png b.png && "
            "\"$HOST\" $A --sampler 'dpm++ 2m karras' -o c.png && "
            "\"$HOST\" $A --sampler 'DPM++ 2M' --scheduler karras -o d.png && cmp c.png d.png");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    run_free(&r);
    picture p = read_picture("c.png");
    ck_assert_ptr_nonnull(strstr(p.parameters, "Sampler: DPM++ 2M, Schedule type: Karras,"));
    free_picture(&p);
}
END_TEST

START_TEST(equal_requests_are_equal_files) {
    run_result r =
        run("A=\"txt2img 'red apple' -q --steps 3 --seed 3\"; eval \"\\\"$HOST\\\" $A -o a.png\" && "
            "eval \"\\\"$HOST\\\" $A -o b.png\" && eval \"\\\"$HOST\\\" $A --threads 1 -o c.png\" && "
            "eval \"\\\"$HOST\\\" $A --threads 3 -o d.png\" && cmp a.png b.png && cmp a.png c.png && cmp "
            "a.png d.png && "
            "eval \"\\\"$HOST\\\" $A --cfg-scale 6 -o e.png\" && ! cmp -s a.png e.png");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    run_free(&r);
}
END_TEST

START_TEST(the_default_name_carries_the_seed_and_never_overwrites) {
    run_result r = run("rm -f attune-*.png; \"$HOST\" txt2img star -q --steps 1 --seed 11 && \"$HOST\" "
                       "txt2img star -q --steps 1 --seed 11 "
                       "&& \"$HOST\" txt2img star --steps 1 --json > drawn.json");
    ck_assert_msg(r.status == 0, "%s", r.err);
    ck_assert_str_eq(r.out, "./attune-11.png\n./attune-11-2.png\n");
    run_free(&r);
    r = run("cat drawn.json");
    json_t *json = run_json(&r);
    char name[64];
    (void)snprintf(name, sizeof name, "./attune-%lld.png",
                   (long long)json_integer_value(json_array_get(json_object_get(json, "seeds"), 0)));
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(json, "outputs"), 0)), name);
    json_decref(json);
    run_free(&r);
    r = run("ls attune-*.png | wc -l; \"$HOST\" txt2img star -q --steps 1 --seed 12 -o attune-11.png; ls "
            "attune-*.png | wc -l");
    ck_assert_str_eq(r.out, "3\nattune-11.png\n3\n");
    run_free(&r);
}
END_TEST

START_TEST(an_unknown_word_is_told) {
    run_result r = run("\"$HOST\" txt2img 'red walrus' --steps 1 --seed 1 -o w.png");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.err, "warning: the model does not know \"walrus\""));
    run_free(&r);
    r = run("\"$HOST\" txt2img 'red apple' --steps 1 --seed 1 -o w.png");
    ck_assert_ptr_null(strstr(r.err, "warning"));
    run_free(&r);
}
END_TEST

/* A checkpoint in one file draws what its folder draws, and is called and hashed by its own name. */
START_TEST(a_single_file_is_a_model) {
    char path[4400];
    (void)snprintf(path, sizeof path, "%s/my.model.safetensors", run_folder());
    single_file_write("emoji", path);
    (void)snprintf(path, sizeof path, "%s/said.json", run_folder());
    single_file_text(path, single_file_config("emoji"));
    run_result r =
        run("D='--steps 2 --seed 6'; \"$HOST\" txt2img 'red apple' $D -q -o folder.png && "
            "\"$HOST\" txt2img 'red apple' $D --model my.model.safetensors --model-config said.json -o "
            "one.png && cp said.json my.model.json && "
            "\"$HOST\" txt2img 'red apple' $D -q --model ./my.model.safetensors -o two.png && "
            "cmp one.png two.png");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    ck_assert_msg(strstr(r.err, "warning") == NULL, "%s", r.err);
    run_free(&r);
    picture folder = read_picture("folder.png"), one = read_picture("one.png");
    ck_assert_uint_eq(one.width, folder.width);
    ck_assert_mem_eq(one.pixels, folder.pixels, (size_t)one.width * one.height * 3);
    ck_assert_ptr_nonnull(strstr(one.parameters, ", Model: my.model, "));
    free_picture(&folder);
    free_picture(&one);
    r = run("sha256sum my.model.safetensors | cut -c1-10 && "
            "strings one.png | grep -o 'Model hash: [0-9a-f]*' | cut -c13-");
    ck_assert_int_eq(strncmp(r.out, r.out + 11, 10), 0);
    run_free(&r);
    r = run("rm my.model.json; \"$HOST\" txt2img 'red apple' -q --steps 1 --model my.model.safetensors -o "
            "no.png; "
            "S=$?; ls no.png; exit $S");
    ck_assert_int_eq(r.status, 1);
    ck_assert_msg(strstr(r.err, "--model-config") != NULL, "%s", r.err);
    run_free(&r);
}
END_TEST

#define LARGE "--width 256 --height 256 --steps 1 "

/* The least limit that serves a request, by the error of one that does not. */
static unsigned long long least_limit(const char *backend) {
    run_result r =
        run("\"$HOST\" txt2img apple -q " LARGE "--memory-limit 1M --attention-required %s", backend);
    const char *needs = strstr(r.err, "this request needs ");
    ck_assert_msg(r.status == 3 && needs, "%s", r.err);
    ck_assert_ptr_null(strstr(r.err, "--attention-required")); /* nobody fits */
    const unsigned long long least = strtoull(needs + strlen("this request needs "), NULL, 10);
    run_free(&r);
    return least;
}

START_TEST(what_takes_less_memory_is_named) {
    const unsigned long long math = least_limit("math"), lighter = least_limit("sdp-no-mem");
    ck_assert_uint_lt(lighter, math);
    char command[256];
    (void)snprintf(command, sizeof command,
                   "\"$HOST\" txt2img apple -q " LARGE "--memory-limit %llu --attention-required math",
                   math - 1);
    run_fails(command, 3, "; --attention-required sdp-no-mem fits");
    (void)snprintf(command, sizeof command,
                   "\"$HOST\" txt2img apple -q " LARGE
                   "--memory-limit %llu --attention-required sdp-no-mem -o less.png",
                   math - 1);
    run_result r = run("%s", command);
    ck_assert_msg(r.status == 0, "%s", r.err);
    run_free(&r);
#ifndef __SANITIZE_ADDRESS__ /* which takes more addresses than any limit */
#define SHORT "ulimit -v 800000; \"$HOST\" txt2img apple -q --width 4096 --height 4096 "
    run_fails(SHORT, 1, "--medvram or --lowvram take less memory");
    run_fails(SHORT "--medvram", 1, "--lowvram takes less memory");
    r = run(SHORT "--lowvram");
    ck_assert_msg(r.status == 1 && !strstr(r.err, "vram"), "%s", r.err);
    run_free(&r);
#endif
}
END_TEST

TCase *txt2img_cases(void) {
    TCase *cases = tcase_create("txt2img");
    tcase_add_test(cases, what_takes_less_memory_is_named);
    tcase_add_test(cases, pictures_equal_k_diffusion_and_diffusers);
    tcase_add_test(cases, the_json_has_what_scripts_rely_on);
    tcase_add_test(cases, the_png_says_how_it_was_made);
    tcase_add_test(cases, other_names_of_a_sampler_are_the_same_request);
    tcase_add_test(cases, a_single_file_is_a_model);
    tcase_add_test(cases, the_png_names_noise_clip_skip_and_variation);
    tcase_add_test(cases, equal_requests_are_equal_files);
    tcase_add_test(cases, the_default_name_carries_the_seed_and_never_overwrites);
    tcase_add_test(cases, an_unknown_word_is_told);
    return cases;
}
