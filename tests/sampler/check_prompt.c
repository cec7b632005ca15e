/* check_prompt.c: the web UI's prompt rules against a transcription of them in Python and numpy
 * (tests/golden, webui_prompts.py): pieces with their weights, chunks of tokens, embeddings on the tiny
 * model. */
#include "tests/sampler/goldens.h"
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"
#include "tests/support/run.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>

static json_t *read_entries(const char *name) {
    char path[4400];
    json_error_t reason;
    (void)snprintf(path, sizeof path, "%s/tests/golden/data/webui_prompts_%s.json", run_source(), name);
    json_t *list = json_load_file(path, 0, &reason);
    ck_assert_msg(list != NULL, "%s: %s", path, reason.text);
    return list;
}

static double number(const json_t *list, size_t i) {
    ck_assert(json_is_number(json_array_get(list, i)));
    return json_number_value(json_array_get(list, i));
}

/* The products of weights are the same doubles in the same order: equal bits. */
static void check_pieces(rig *r, const char *prompt, const json_t *wanted) {
    prompt_pieces pieces;
    attune_error error = {0};
    attune_code code = prompt_parse(&r->services, prompt, &pieces, &error);
    ck_assert_msg(code == ATTUNE_OK, "%s: %s", prompt, error.message);
    ck_assert_msg(pieces.count == json_array_size(wanted), "%s: %zu pieces", prompt, pieces.count);
    for (size_t i = 0; i < pieces.count; ++i) {
        const json_t *one = json_array_get(wanted, i);
        ck_assert_str_eq(pieces.text + pieces.piece[i].start, json_string_value(json_array_get(one, 0)));
        ck_assert_uint_eq(pieces.piece[i].length, strlen(pieces.text + pieces.piece[i].start));
        ck_assert_msg(pieces.piece[i].weight == number(one, 1), "%s: piece %zu has weight %.17g", prompt, i,
                      pieces.piece[i].weight);
    }
    prompt_pieces_close(&r->services, &pieces);
}

START_TEST(prompts_fall_into_the_web_uis_pieces) {
    rig r;
    rig_open(&r, 1);
    golden_lines prompts = golden_read_lines("webui_prompts");
    json_t *entries = read_entries("tiny");
    ck_assert_uint_ge(prompts.count, 40);
    ck_assert_uint_eq(json_array_size(entries), prompts.count);
    for (size_t i = 0; i < prompts.count; ++i)
        check_pieces(&r, prompts.text[i], json_object_get(json_array_get(entries, i), "pieces"));
    json_decref(entries);
    golden_lines_free(&prompts);
    rig_close(&r);
}
END_TEST

static void check_chunks(const prompt_tokens *got, const char *prompt, const json_t *entry) {
    const json_t *ids = json_object_get(entry, "ids"), *weights = json_object_get(entry, "weights");
    ck_assert_msg((size_t)got->chunks == json_array_size(ids), "%s: %lld chunks, golden %zu", prompt,
                  (long long)got->chunks, json_array_size(ids));
    for (size_t c = 0; c < json_array_size(ids); ++c)
        for (size_t i = 0; i < 77; ++i) {
            size_t at = c * 77 + i;
            float weight = got->weights ? got->weights[at] : 1.0f;
            ck_assert_msg(got->ids[at] == number(json_array_get(ids, c), i), "%s: chunk %zu, token %zu: %d",
                          prompt, c, i, got->ids[at]);
            ck_assert_msg(weight == (float)number(json_array_get(weights, c), i),
                          "%s: chunk %zu, weight %zu: %.9g", prompt, c, i, (double)weight);
        }
}

START_TEST(chunks_are_the_web_uis) {
    static const char *const models[] = {"tiny", "emoji"};
    golden_lines prompts = golden_read_lines("webui_prompts");
    for (size_t k = 0; k < 2; ++k) {
        rig r;
        rig_open(&r, 1);
        model *m = rig_model(&r, models[k]);
        json_t *entries = read_entries(models[k]);
        for (size_t i = 0; i < prompts.count; ++i) {
            prompt_tokens got;
            attune_error error = {0};
            attune_code code = prompt_read(&r.services, m->tokens, prompts.text[i], NULL, &got, &error);
            ck_assert_msg(code == ATTUNE_OK, "%s: %s", prompts.text[i], error.message);
            ck_assert_int_eq(got.texts, 1);
            check_chunks(&got, prompts.text[i], json_array_get(entries, i));
            prompt_close(&r.services, &got);
        }
        json_decref(entries);
        r.sampler->model_close(m);
        rig_close(&r);
    }
    golden_lines_free(&prompts);
}
END_TEST

/* The embeddings that a request's prompts become: encoded, weighted, means restored. */
static void check_condition(int index, double bound) {
    rig r;
    pass p;
    attune_error error = {0};
    char name[64];
    float *out;
    prompt_tokens prompt;
    rig_open(&r, 2);
    model *m = rig_model(&r, "tiny");
    (void)snprintf(name, sizeof name, "webui_condition_%d", index);
    golden_lines texts = golden_read_lines(name);
    npy_array wanted = golden_read(ATTUNE_F32, 3, "%s_tiny", name);
    ck_assert_int_eq(prompt_read(&r.services, m->tokens, texts.text[0], texts.text[1], &prompt, &error),
                     ATTUNE_OK);
    int64_t hidden = m->text.config.hidden_size, rows = prompt.texts * prompt.chunks;
    ck_assert_uint_eq(golden_count(&wanted), (size_t)(rows * 77 * hidden));
    text_input input = {prompt.ids, rows, 77, 1};
    rig_pass_plan(&r, m, &p);
    ck_assert_int_eq(text_encoder_forward(&p, &m->text, &input, &out, &error), ATTUNE_OK);
    rig_pass_run(&r, m, &p);
    ck_assert_int_eq(text_encoder_forward(&p, &m->text, &input, &out, &error), ATTUNE_OK);
    if (prompt.weights)
        ck_assert_int_eq(prompt_emphasise(&prompt, hidden, out, &error), ATTUNE_OK);
    double distance = rig_distance(out, wanted.tensor.data, golden_count(&wanted));
    ck_assert_msg(distance <= bound, "%s: off by %g, %g allowed", name, distance, bound);
    pass_close(&p);
    prompt_close(&r.services, &prompt);
    npy_free(&wanted);
    golden_lines_free(&texts);
    r.sampler->model_close(m);
    rig_close(&r);
}

/* Four times what precision.json has between float32 and double, and at least 1e-5. The mean of a chunk is a
 * small difference of many values: its ratio loses digits in torch's float32, which our double sums do not.
 */
START_TEST(embeddings_are_the_web_uis) {
    static const double bounds[] = {1e-5, 3e-5, 4e-5, 1e-5, 1.7e-4, 3e-4};
    for (int i = 0; i < 6; ++i)
        check_condition(i, bounds[i]);
}
END_TEST

static void refuse(rig *r, const char *prompt, const char *part) {
    prompt_pieces pieces;
    attune_error error = {0};
    ck_assert_int_eq(prompt_parse(&r->services, prompt, &pieces, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_msg(strstr(error.message, part) != NULL, "'%s' is not in: %s", part, error.message);
    prompt_pieces_close(&r->services, &pieces);
}

START_TEST(bad_prompts_are_refused) {
    rig r;
    char deep[300];
    prompt_pieces pieces;
    rig_open(&r, 1);
    refuse(&r, "(red:1.2.3)", "the weight 1.2.3 at byte offset 5 is no number");
    refuse(&r, "(red: .)", "the weight . at byte offset 6 is no number");
    refuse(&r, "(red \xff)", "not UTF-8 at byte offset 5");
    memset(deep, '(', 257);
    deep[257] = 0;
    refuse(&r, deep, "more than 256 brackets are open at byte offset 256");
    deep[256] = 0;
    ck_assert_int_eq(prompt_parse(&r.services, deep, &pieces, NULL), ATTUNE_OK);
    prompt_pieces_close(&r.services, &pieces);
    rig_close(&r);
}
END_TEST

/* Weights that only a double holds, alone or as the product of nested ones. */
START_TEST(weights_beyond_float_are_refused) {
    static const char *const prompts[] = {"(red:400000000000000000000000000000000000000)",
                                          "((red:30000000000000000000):30000000000000000000)"};
    rig r;
    rig_open(&r, 1);
    model *m = rig_model(&r, "tiny");
    for (int i = 0; i < 2; ++i) {
        prompt_tokens got;
        attune_error error = {0};
        ck_assert_int_eq(prompt_read(&r.services, m->tokens, prompts[i], NULL, &got, &error),
                         ATTUNE_INVALID_ARGUMENT);
        ck_assert_msg(strstr(error.message, "which is too large") != NULL, "%s", error.message);
        prompt_close(&r.services, &got);
    }
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* Every allocation may fail; rig_close looks whether something was left. */
START_TEST(memory_runs_out) {
    rig r;
    rig_open(&r, 1);
    model *m = rig_model(&r, "tiny");
    char text[2048] = "(red:1.2)";
    for (int i = 0; i < 200; ++i)
        strcat(text, " apple");
    attune_code code = ATTUNE_RESOURCE_EXHAUSTED;
    for (uint64_t n = 1; code != ATTUNE_OK; ++n) {
        prompt_tokens got;
        r.fail_at = atomic_load(&r.allocs) + n;
        code = prompt_read(&r.services, m->tokens, text, "blue", &got, NULL);
        ck_assert(code == ATTUNE_OK || code == ATTUNE_RESOURCE_EXHAUSTED);
        prompt_close(&r.services, &got);
    }
    r.fail_at = 0;
    r.sampler->model_close(m);
    rig_close(&r);
}
END_TEST

/* Weights that leave nothing are said, not drawn as a black picture. */
START_TEST(weights_that_leave_nothing_are_refused) {
    int32_t ids[77] = {0};
    float weights[77] = {0}, rows[77];
    attune_error error = {0};
    prompt_tokens prompt = {1, 1, ids, weights};
    for (int i = 0; i < 77; ++i)
        rows[i] = 1.0f;
    ck_assert_int_eq(prompt_emphasise(&prompt, 1, rows, &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_ptr_nonnull(strstr(error.message, "weights"));
}
END_TEST

TCase *prompt_cases(void) {
    TCase *cases = tcase_create("prompt");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, prompts_fall_into_the_web_uis_pieces);
    tcase_add_test(cases, chunks_are_the_web_uis);
    tcase_add_test(cases, embeddings_are_the_web_uis);
    tcase_add_test(cases, bad_prompts_are_refused);
    tcase_add_test(cases, weights_beyond_float_are_refused);
    tcase_add_test(cases, memory_runs_out);
    tcase_add_test(cases, weights_that_leave_nothing_are_refused);
    return cases;
}
