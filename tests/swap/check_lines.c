/* check_lines.c: `sample_host session`, driven through a pipe. */
#include "rig.h"

/* The answer lines; with `id` of that request, which have `key`. */
static json_t *find_line(const char *out, const char *id, const char *key) {
    for (const char *at = out; *at; at += strcspn(at, "\n"), at += *at != 0) {
        json_t *line = json_loadb(at, strcspn(at, "\n"), 0, NULL);
        ck_assert_msg(json_is_object(line), "no JSON: %.200s", at);
        const char *of = json_string_value(json_object_get(line, "id"));
        if (json_object_get(line, key) && (!id || (of && strcmp(of, id) == 0)))
            return line;
        json_decref(line);
    }
    return NULL;
}

static void has_error(const char *out, const char *id, const char *text) {
    json_t *line = find_line(out, id, "error");
    ck_assert_msg(line != NULL, "no error for %s in %s", id ? id : "a line", out);
    const char *message = json_string_value(json_object_get(json_object_get(line, "error"), "message"));
    ck_assert_msg(strstr(message, text) != NULL, "\"%s\" lacks \"%s\"", message, text);
    json_decref(line);
}

#define SMALL "\"prompt\": \"red apple\", \"steps\": 2, \"width\": 64, \"height\": 64, \"seed\": 3"

START_TEST(test_lines_several_requests) {
    run_result r = run(
        "printf '%%s\\n' '{\"id\": \"a\", " SMALL ", \"output\": \"a.png\"}' "
        "'{\"id\": \"b\", " SMALL ", \"policy\": \"step\", \"output\": \"b.png\"}' "
        "'{\"plugins\": true}' | $HOST session && cmp a.png b.png && "
        "$HOST txt2img -q 'red apple' --steps 2 --width 64 --height 64 --seed 3 -o c.png && cmp a.png c.png");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    char *end = strstr(r.out, "c.png\n");
    if (end)
        *end = 0;
    for (char *at = r.out + strlen(r.out); at > r.out && at[-1] != '\n';)
        *--at = 0;
    for (int i = 0; i < 2; ++i) {
        json_t *result = find_line(r.out, i ? "b" : "a", "result"),
               *progress = find_line(r.out, i ? "b" : "a", "progress");
        ck_assert_ptr_nonnull(result);
        ck_assert_ptr_nonnull(progress);
        json_t *inside = json_object_get(result, "result");
        ck_assert_str_eq(json_string_value(json_object_get(inside, "served_by")), "one generation");
        ck_assert_uint_gt(json_array_size(json_object_get(json_object_get(inside, "choice"), "explain")), 0);
        json_decref(result);
        json_decref(progress);
    }
    json_t *plugins = find_line(r.out, NULL, "plugins");
    ck_assert_ptr_nonnull(plugins);
    json_decref(plugins);
    run_free(&r);
}
END_TEST

/* Each bad line is an error with its number; the session goes on and the good one is served. */
START_TEST(test_lines_bad_input) {
    run_result r =
        run("printf '%%s\\n' '{' '[1]' '' '{\"id\": \"u\", \"prompt\": \"x\", \"stesp\": 3}' "
            "'{\"id\": \"n\"}' '{\"id\": \"s\", \"prompt\": \"x\", \"steps\": 0}' "
            "'{\"id\": \"p\", \"prompt\": \"x\", \"policy\": \"hop\"}' "
            "'{\"id\": \"m\", \"prompt\": \"x\", \"sampler\": \"nonesuch\"}' "
            "'{\"id\": \"v\", \"prompt\": \"x\", \"subseed_strength\": 1.5}' "
            "'{\"id\": \"w\", \"prompt\": \"x\", \"subseed\": -2}' "
            "'{\"id\": \"r\", \"prompt\": \"x\", \"randn_source\": \"dice\"}' "
            "'{\"id\": \"c\", \"prompt\": \"x\", \"clip_skip\": 0}' "
            "'{\"id\": \"b\", \"prompt\": \"x\", \"seed\": 9223372036854775807}' "
            "'{\"cancel\": \"nobody\"}' '{\"swap\": 5}' '{\"swap\": \"/nonexistent/manifest.json\"}' "
            "'{\"id\": \"good\", " SMALL ", \"output\": \"a.png\"}' | $HOST session");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    ck_assert_ptr_nonnull(strstr(r.out, "line 1 is no JSON object"));
    ck_assert_ptr_nonnull(strstr(r.out, "line 2 is no JSON object"));
    ck_assert_ptr_nonnull(strstr(r.out, "{\"line\":14,"));
    ck_assert_ptr_nonnull(strstr(r.out, "{\"line\":15,"));
    ck_assert_ptr_nonnull(strstr(r.out, "no such manifest"));
    has_error(r.out, "u", "the key stesp is not known");
    has_error(r.out, "n", "\"prompt\": it is missing");
    has_error(r.out, "s", "from 1 to 1000");
    has_error(r.out, "p", "neither pin nor step");
    has_error(r.out, "m", "nonesuch");
    has_error(r.out, "v", "\"subseed_strength\": a number from 0 to 1");
    has_error(r.out, "w", "\"subseed\": a whole number from 0 to");
    has_error(r.out, "r", "dice is neither CPU nor NV");
    has_error(r.out, "c", "\"clip_skip\": a whole number from 1");
    has_error(r.out, "b", "\"seed\": a whole number from 0 to");
    json_t *good = find_line(r.out, "good", "result");
    ck_assert_ptr_nonnull(good);
    json_decref(good);
    run_free(&r);
}
END_TEST

/* The keys that only say which noise and which layer: the files that txt2img gives. */
START_TEST(test_lines_noise_and_layers) {
    run_result r = run(
        "echo '{\"id\": \"a\", " SMALL ", \"clip_skip\": 2, \"subseed\": 40, \"subseed_strength\": 0.25, "
        "\"randn_source\": \"NV\", \"batch_size\": 2, \"output\": \"a.png\"}' | $HOST session && "
        "$HOST txt2img -q 'red apple' --steps 2 --width 64 --height 64 --seed 3 --clip-skip 2 --subseed 40 "
        "--subseed-strength 0.25 --randn-source NV --batch-size 2 -o c.png >/dev/null && "
        "cmp a-0001.png c-0001.png && cmp a-0002.png c-0002.png && ! cmp -s a-0001.png a-0002.png");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    json_t *line = find_line(r.out, "a", "result");
    ck_assert_ptr_nonnull(line);
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(line, "result"), "subseed")), 40);
    json_t *seeds = json_object_get(json_object_get(line, "result"), "seeds");
    ck_assert_int_eq(json_integer_value(json_array_get(seeds, 0)), 3);
    ck_assert_int_eq(json_integer_value(json_array_get(seeds, 1)), 3); /* the variation seed moves instead */
    json_decref(line);
    run_free(&r);
}
END_TEST

/* What served one attention problem in turn: of each problem two generations, the later one from a step in
 * the middle on. */
static void check_steps(const json_t *attention) {
    size_t i, k, pairs = 0;
    json_t *now, *before;
    json_array_foreach(attention, i, now) {
        if (!json_integer_value(json_object_get(now, "first_unit")))
            continue;
        ck_assert_int_gt(json_integer_value(json_object_get(now, "calls")), 0);
        json_array_foreach(attention, k, before) {
            if (k == i || !json_equal(json_object_get(now, "problem"), json_object_get(before, "problem")))
                continue;
            ++pairs;
            ck_assert_int_eq(json_integer_value(json_object_get(before, "first_unit")), 0);
            ck_assert_int_gt(json_integer_value(json_object_get(before, "calls")), 0);
            ck_assert_int_lt(json_integer_value(json_object_get(before, "generation")),
                             json_integer_value(json_object_get(now, "generation")));
        }
    }
    ck_assert_uint_gt(pairs, 0);
}

/* A swap in the middle of a picture that follows: the result says that generations are mixed and lists who
 * served from which step on; the file is that of an undisturbed run. */
START_TEST(test_lines_mixed_generations) {
    run_result r =
        run("mkfifo lines; \"$HOST\" session <lines >answers & exec 3>lines\n"
            "await() { while kill -0 $! 2>/dev/null && ! grep -q \"$1\" answers; do sleep 0.01; done; }\n"
            "echo '{\"id\": \"a\", \"prompt\": \"red apple\", \"steps\": 60, \"width\": 64, \"height\": 64, "
            "\"seed\": 3, \"policy\": \"step\", \"output\": \"a.png\"}' >&3\n"
            "await '\"done\":3'; echo '{\"swap\": \"%s\"}' >&3; exec 3>&-; wait $! && cat answers && "
            "\"$HOST\" txt2img -q 'red apple' --steps 60 --width 64 --height 64 --seed 3 -o c.png >&2 && "
            "cmp a.png c.png",
            second_build());
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    json_t *line = find_line(r.out, "a", "result"), *swapped = find_line(r.out, NULL, "swap");
    ck_assert_msg(line && swapped, "%s", r.out);
    const json_t *result = json_object_get(line, "result");
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(swapped, "swap"), "swapped")), 1);
    ck_assert_str_eq(json_string_value(json_object_get(result, "served_by")), "mixed generations");
    check_steps(json_object_get(result, "attention"));
    json_decref(line);
    json_decref(swapped);
    run_free(&r);
}
END_TEST

START_TEST(test_lines_cancel) {
    run_result r = run(
        "printf '%%s\\n' '{\"id\": \"long\", \"prompt\": \"x\", \"steps\": 1000}' '{\"cancel\": \"long\"}' | "
        "$HOST session");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    json_t *line = find_line(r.out, "long", "error");
    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(line, "error"), "code")), "CANCELLED");
    json_decref(line);
    run_free(&r);
}
END_TEST

/* `plugins --watch`: a build is replaced, then deleted; each state is shown, each reason told once. */
START_TEST(test_lines_plugins_watch) {
    const char *old = fixture_folder(), *new = fixture_folder();
    (void)put_plain(old, "plain", PUT_RENAMED);
    (void)put_plain(new, "plain_tls", PUT_RENAMED);
    run_result r = run("\"$HOST\" plugins --plugin '%s/manifest.json' --watch >seen 2>said & pid=$!\n"
                       "await() { while kill -0 $pid && ! grep -q \"$1\" $2; do sleep 0.02; done; }\n"
                       "replace() { cp -p \"$1/$2\" '%s/new' && mv '%s/new' '%s/'$2; }\n"
                       "await '^generation 1  fixture-plain 1.2.3  active  1 leases' seen\n"
                       "replace '%s' plug.so; replace '%s' manifest.json; await 'active.*thread-local' seen\n"
                       "rm '%s/plug.so'; await 'cannot open' said\n"
                       "kill -INT $pid; wait $pid; echo $?; cat seen",
                       old, old, old, old, new, new, old);
    ck_assert_msg(strncmp(r.out, "130\n", 4) == 0, "%s%s", r.out, r.err);
    const char *next = strstr(r.out, "thread-local");
    ck_assert_msg(next && (SANITIZED || !strstr(next, "generation 1 ")), "%s",
                  r.out); /* the old one is gone */
    run_free(&r);
    r = run("cat said");
    ck_assert_msg(run_lines(r.out) == 2, "%s", r.out);
    ck_assert_ptr_nonnull(strstr(r.out, "swap refused at the stage check"));
    ck_assert_ptr_nonnull(strstr(r.out, ", serves on"));
    ck_assert_ptr_nonnull(strstr(r.out, "sample_host: interrupted"));
    run_free(&r);
}
END_TEST

/* Nobody reads: it ends by itself. */
START_TEST(test_lines_plugins_watch_without_a_reader) {
    run_fails("\"$HOST\" plugins --watch >/dev/full", 1, "cannot write to standard output");
    run_fails("\"$HOST\" plugins --watch --json >/dev/null", 2, "only one of the two");
}
END_TEST

TCase *line_cases(void) {
    TCase *cases = tcase_create("lines");
    tcase_add_test(cases, test_lines_several_requests);
    tcase_add_test(cases, test_lines_bad_input);
    tcase_add_test(cases, test_lines_noise_and_layers);
    tcase_add_test(cases, test_lines_mixed_generations);
    tcase_add_test(cases, test_lines_cancel);
    tcase_add_test(cases, test_lines_plugins_watch);
    tcase_add_test(cases, test_lines_plugins_watch_without_a_reader);
    tcase_set_timeout(cases, 0);
    return cases;
}
