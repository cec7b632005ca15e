/* check_webui.c: the web UI's flags, its titles of attention choices, and COMMANDLINE_ARGS. */
#include "sample_host/commandline_args.h"
#include "sample_host/webui.h"
#include "suite.h"
#include "tests/support/fixture_plugins.h"
#include "tests/support/run.h"

#include <stdlib.h>
#include <string.h>

/* From the strongest to the weakest; of the three of priority 10 as in the web UI's list. */
static const struct {
    const char *flag, *asks;
} strongest_first[] = {
    {"--disable-opt-split-attention", "None"},
    {"--xformers", "xformers"},
    {"--opt-split-attention", "Doggettx"},
    {"--opt-sdp-no-mem-attention", "sdp-no-mem"},
    {"--opt-sdp-attention", "sdp"},
    {"--opt-sub-quad-attention", "sub-quadratic"},
    {"--opt-split-attention-v1", "V1"},
    {"--opt-split-attention-invokeai", "InvokeAI"},
    {"--force-enable-xformers", "xformers"},
};
enum { FLAGS = sizeof strongest_first / sizeof strongest_first[0] };

/* The backend of attune-cpu that answers to a name of the web UI's. */
static const char *serves(const char *name) {
    static const char *const aliases[][2] = {
        {"None", "math"}, {"Doggettx", "split"}, {"V1", "split"}, {"InvokeAI", "split"}};
    for (size_t i = 0; i < sizeof aliases / sizeof aliases[0]; ++i)
        if (strcmp(name, aliases[i][0]) == 0)
            return aliases[i][1];
    return name;
}

/* The warnings of a reply, one a line. */
static void warnings_of(json_t *reply, char *text, size_t size) {
    size_t i, used = 0;
    json_t *line;
    text[0] = 0;
    json_array_foreach(json_object_get(reply, "warnings"), i, line) used +=
        (size_t)snprintf(text + used, used < size ? size - used : 0, "%s\n", json_string_value(line));
    ck_assert_uint_lt(used, size);
}

/* `command` asks for the attention backend `name` (NULL = for none) and is served by it, or where nobody
 * `offers` it by another that is explained; and it warns of `warning` (NULL = of nothing but the fallback).
 */
static void asks_of(int offers, const char *command, const char *name, const char *warning) {
    char warnings[4096], expected[64];
    run_result r = run("D=\"$S/tests/golden/data/attention_cross_amplitude_0.04\"\n%s --json -q", command);
    ck_assert_msg(r.status == 0, "%s: status %d\n%s", command, r.status, r.err);
    ck_assert_str_eq(r.err, "");
    json_t *reply = run_json(&r), *choice = json_object_get(reply, "choice");
    const char *fallback = json_string_value(json_object_get(choice, "fallback"));
    warnings_of(reply, warnings, sizeof warnings);
    if (!name)
        ck_assert_msg(!fallback, "%s: %s", command, fallback);
    else if (offers) {
        ck_assert_msg(!fallback, "%s: %s", command, fallback);
        ck_assert_str_eq(json_string_value(json_object_get(choice, "backend")), serves(name));
    } else {
        (void)snprintf(expected, sizeof expected, "asked %s, got sdp", name);
        ck_assert_msg(fallback && strncmp(fallback, expected, strlen(expected)) == 0 &&
                          strstr(fallback, " because "),
                      "%s: no \"%s\" but %s", command, expected, fallback ? fallback : "no fallback");
        ck_assert_msg(strstr(warnings, fallback) != NULL, "%s: %s is not in\n%s", command, fallback,
                      warnings);
    }
    if (warning)
        ck_assert_msg(strstr(warnings, warning) != NULL, "%s: no \"%s\" in\n%s", command, warning, warnings);
    ck_assert_msg(run_lines(warnings) == (size_t)(fallback != NULL) + (warning != NULL), "%s warns\n%s",
                  command, warnings);
    json_t *class = json_object_get(reply, "determinism");
    if (class) /* a picture: sdp-no-mem asks for what the sampler keeps */
        ck_assert_str_eq(json_string_value(json_object_get(class, "asked")),
                         name && strcmp(name, "sdp-no-mem") == 0 ? "portable" : "none");
    json_decref(reply);
    run_free(&r);
}

static void asks(const char *command, const char *name, const char *warning) {
    asks_of(1, command, name, warning);
}

#define ATTENTION "\"$HOST\" attention --q \"${D}_q.npy\" --k \"${D}_k.npy\" --v \"${D}_v.npy\" -o out.npy "
#define TXT2IMG   "\"$HOST\" txt2img 'red apple' --seed 1 --steps 1 -o f.png "

START_TEST(every_flag_asks_for_its_backend) {
    char command[512];
    asks(ATTENTION, NULL, NULL);
    for (int i = 0; i < FLAGS; ++i) {
        (void)snprintf(command, sizeof command, ATTENTION "%s", strongest_first[i].flag);
        asks(command, strongest_first[i].asks, NULL);
    }
    asks(TXT2IMG "--opt-sdp-attention", "sdp", NULL);
    asks(TXT2IMG "--xformers", "xformers", NULL);
}
END_TEST

START_TEST(warnings_are_on_standard_error_too) {
    run_result r = run("\"$HOST\" txt2img 'red apple' --steps 1 --xformers --opt-sdp-attention -o f.png");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.err, "warning: --xformers and --opt-sdp-attention were both given"));
    run_free(&r);
    /* 8.3 MB hold the activations and any backend's workspace but the matrix of math */
    r = run("\"$HOST\" txt2img 'red apple' --steps 1 --attention None --memory-limit 8300000 -o f.png");
    ck_assert_int_eq(r.status, 0);
    ck_assert_ptr_nonnull(strstr(r.err, "warning: asked None, got sdp-no-mem because needs "));
    ck_assert_ptr_nonnull(strstr(r.err, " bytes of workspace, the budget is "));
    run_free(&r);
}
END_TEST

START_TEST(the_stronger_flag_wins_in_either_order) {
    char command[512], warning[256];
    for (int i = 0; i + 1 < FLAGS; ++i) {
        const char *strong = strongest_first[i].flag, *weak = strongest_first[i + 1].flag;
        (void)snprintf(warning, sizeof warning, "%s and %s were both given; %s is used, as in the web UI",
                       strong, weak, strongest_first[i].asks);
        (void)snprintf(command, sizeof command, ATTENTION "%s %s", strong, weak);
        asks(command, strongest_first[i].asks, warning);
        (void)snprintf(command, sizeof command, ATTENTION "%s %s", weak, strong);
        asks(command, strongest_first[i].asks, warning);
    }
    asks(ATTENTION "--xformers --force-enable-xformers", "xformers", NULL);
}
END_TEST

START_TEST(every_pair_of_flags_is_ordered) {
    for (int i = 0; i < FLAGS; ++i)
        for (int k = i; k < FLAGS; ++k) {
            int given[WEBUI_FLAGS];
            for (int f = 0; f < WEBUI_FLAGS; ++f)
                given[f] = strcmp(strongest_first[i].flag + 2, webui_flags[f].flag) == 0 ||
                           strcmp(strongest_first[k].flag + 2, webui_flags[f].flag) == 0;
            ck_assert_str_eq(webui_pick(given)->flag, strongest_first[i].flag + 2);
        }
    ck_assert_ptr_null(webui_pick((int[WEBUI_FLAGS]){0}));
}
END_TEST

START_TEST(attention_beats_every_flag) {
    asks(ATTENTION "--disable-opt-split-attention --attention sdp", "sdp",
         "--disable-opt-split-attention is overruled by --attention sdp");
    asks(ATTENTION "--xformers --attention sdp --attention-required sdp-no-mem", "sdp-no-mem",
         "--xformers is overruled by --attention-required sdp-no-mem");
    asks(ATTENTION "--opt-sdp-attention --attention sdp", "sdp", NULL);
    asks(ATTENTION "--opt-sdp-attention --attention Automatic", "sdp", NULL);
    asks(ATTENTION "--attention automatic", NULL, NULL);
    asks(ATTENTION "--attention Automatic --attention-required sdp", "sdp", NULL);
    asks(ATTENTION "--opt-sdp-attention --attention None", "None",
         "--opt-sdp-attention is overruled by --attention None");
    run_fails(ATTENTION "--attention-required Automatic", 2, "no attention backend is called \"Automatic\"");
}
END_TEST

START_TEST(titles_compare_without_case_and_label) {
    asks(ATTENTION "--attention SDP", "sdp", NULL);
    asks(ATTENTION "--attention 'sdp - scaled dot product'", "sdp", NULL);
    asks(ATTENTION "--attention 'sdp-no-mem - scaled dot product without memory efficient attention'",
         "sdp-no-mem", NULL);
    asks(ATTENTION "--attention-required 'Sdp_No_Mem - an alias'", "sdp-no-mem", NULL);
    asks(TXT2IMG "--attention sdp_no_mem", "sdp-no-mem", NULL);
    asks(ATTENTION "--attention doggettx", "Doggettx", NULL);
    asks(ATTENTION "--attention 'v1 - original v1'", "V1", NULL);
    run_fails("\"$HOST\" txt2img apple -q --attention 'sdp-no'", 2,
              "no attention backend is called \"sdp-no\"");
    run_fails("\"$HOST\" txt2img apple -q --attention 'sdp -'", 2,
              "no attention backend is called \"sdp -\"");
    run_fails("\"$HOST\" txt2img apple -q --attention ''", 2, "no attention backend is called \"\"");
}
END_TEST

/* A host that finds no plugins by itself, with one that offers sdp and sdp-no-mem. */
START_TEST(what_no_plugin_offers_falls_back_or_is_status_3) {
    static const char *const names[] = {"xformers", "Doggettx", "sub-quadratic", "V1", "InvokeAI", "None"};
    const char *plugin = fixture_plugins("plain", NULL);
    char command[5000];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        (void)snprintf(command, sizeof command,
                       "mkdir -p few; cp \"$HOST\" few/host; HOST=few/host; " ATTENTION
                       "--plugin '%s' --attention '%s'",
                       plugin, names[i]);
        asks_of(0, command, names[i], NULL);
        (void)snprintf(command, sizeof command,
                       "D=\"$S/tests/golden/data/attention_cross_amplitude_0.04\"; HOST=few/host; " ATTENTION
                       "-q --plugin '%s' --attention-required '%s - title'",
                       plugin, names[i]);
        run_fails(command, 3, "no loaded plugin offers the attention backend");
    }
}
END_TEST

static json_int_t workspace_of(json_t *reply, const char *backend) {
    json_t *entry;
    size_t i;
    json_array_foreach(json_object_get(reply, "results"), i,
                       entry) if (strcmp(json_string_value(json_object_get(entry, "backend")), backend) ==
                                  0) return json_integer_value(json_object_get(entry, "workspace_bytes"));
    ck_abort_msg("no %s", backend);
}

START_TEST(chunk_sizes_are_whole_numbers_and_need_their_backend) {
    static const char *const options[] = {"--sub-quad-q-chunk-size", "--sub-quad-kv-chunk-size",
                                          "--sub-quad-chunk-threshold"};
    static const char *const wrong[] = {"''", "many", "1.5", "-1", "99999999999"};
    char command[512];
    for (size_t i = 0; i < 3; ++i) {
        (void)snprintf(command, sizeof command, ATTENTION "%s 64", options[i]);
        asks(command, NULL, "no sub-quadratic backend");
        for (size_t k = 0; k < sizeof wrong / sizeof wrong[0]; ++k) {
            (void)snprintf(command, sizeof command, "\"$HOST\" txt2img apple %s %s", options[i], wrong[k]);
            run_fails(command, 2, options[i]);
        }
    }
    asks(ATTENTION "--sub-quad-kv-chunk-size 0 --sub-quad-chunk-threshold 0", NULL,
         "no sub-quadratic backend");
    asks(ATTENTION "--sub-quad-chunk-threshold 100 --opt-sub-quad-attention", "sub-quadratic", NULL);
    asks(ATTENTION "--sub-quad-chunk-threshold 100 --opt-split-attention", "Doggettx",
         "no sub-quadratic backend");
    run_fails("\"$HOST\" txt2img apple --sub-quad-q-chunk-size 0", 2, "is less than 1");
    run_fails("\"$HOST\" txt2img apple --sub-quad-chunk-threshold 101", 2, "more than 100 per cent");
}
END_TEST

/* Keys per chunk show in the bits, queries per chunk do not; a threshold above what the scores need is a
 * chunk of all keys, as is a chunk as long, and makes the class what depends on memory can keep. */
START_TEST(chunk_sizes_reach_their_backend) {
    run_result r =
        run("D=\"$S/tests/golden/data/attention_many_keys\"; a() { O=$1; shift; " ATTENTION
            "-q --attention-required sub-quadratic \"$@\" >&2 && mv out.npy $O.npy; }; "
            "a default && a fourteen --sub-quad-kv-chunk-size 14 && a sixteen --sub-quad-kv-chunk-size 16 && "
            "a queries --sub-quad-q-chunk-size 2 && a whole --sub-quad-kv-chunk-size 100000 && "
            "a share --sub-quad-chunk-threshold 100 && cmp default.npy fourteen.npy && "
            "! cmp default.npy sixteen.npy >&2 && cmp default.npy queries.npy && cmp whole.npy share.npy && "
            "! cmp default.npy whole.npy >&2");
    ck_assert_msg(r.status == 0, "%d %s%s", r.status, r.out, r.err);
    run_free(&r);
    run_fails("D=\"$S/tests/golden/data/attention_many_keys\"; " ATTENTION
              "-q --attention-required sub-quadratic --sub-quad-chunk-threshold 50 --determinism invariant",
              3, "keeps determinism class repeatable, invariant is asked for");
    r = run("draw() { O=$1; shift; \"$HOST\" txt2img 'red apple' --seed 1 --steps 1 -q -o $O.png "
            "--attention-required sub-quadratic \"$@\"; }; "
            "draw a >&2 && draw b --sub-quad-q-chunk-size 7 >&2 && cmp a.png b.png && "
            "draw c --sub-quad-chunk-threshold 50 --json");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    json_t *picture = run_json(&r);
    ck_assert_str_eq(json_string_value(json_object_get(json_object_get(picture, "choice"), "determinism")),
                     "repeatable");
    json_decref(picture);
    run_free(&r);
    r = run("A='bench attention --shape 1,1,512,512,8 --threads 1 -q --json'; "
            "\"$HOST\" $A --sub-quad-kv-chunk-size 200 && \"$HOST\" $A >&2");
    ck_assert_msg(r.status == 0, "%s%s", r.out, r.err);
    json_t *given = run_json(&r), *usual = json_loads(r.err, 0, NULL);
    ck_assert_uint_eq(json_array_size(json_object_get(given, "warnings")), 0);
    ck_assert_ptr_nonnull(usual);
    ck_assert_int_gt(workspace_of(given, "sub-quadratic"), workspace_of(usual, "sub-quadratic"));
    ck_assert_int_eq(workspace_of(given, "sdp"), workspace_of(usual, "sdp"));
    json_decref(given);
    json_decref(usual);
    run_free(&r);
}
END_TEST

START_TEST(flags_without_a_counterpart_warn) {
    asks(ATTENTION "--no-half --no-half-vae --precision full --upcast-sampling", NULL,
         "no counterpart in Attune, ignored: --no-half --no-half-vae --precision full --upcast-sampling");
    run_fails("\"$HOST\" txt2img apple --precision", 2, "--precision needs a value");
    run_fails("\"$HOST\" txt2img apple --medvramm", 2, "did you mean --medvram?");
    run_fails("\"$HOST\" txt2img apple --listen", 2, "unknown option --listen");
}
END_TEST

/* COMMANDLINE_ARGS, as text between single quotes of the shell: what is asked for, and the warning. */
START_TEST(commandline_args_is_read_as_the_webui_does) {
    asks("COMMANDLINE_ARGS='--opt-sdp-attention' " TXT2IMG, "sdp", NULL);
    asks("COMMANDLINE_ARGS='' " TXT2IMG, NULL, NULL);
    asks("COMMANDLINE_ARGS=' \t\n ' " TXT2IMG, NULL, NULL);
    asks("COMMANDLINE_ARGS='--opt-sdp-attention\t\n--no-half\r\n' " TXT2IMG, "sdp",
         "COMMANDLINE_ARGS: no counterpart in Attune, ignored: --no-half");
    asks("COMMANDLINE_ARGS='--attention \"SDP - scaled dot product\"' " TXT2IMG "--attention sdp-no-mem",
         "sdp", NULL);
    asks("COMMANDLINE_ARGS='--opt-sdp-no-mem-attention' " TXT2IMG "--opt-sdp-attention", "sdp-no-mem",
         "were both given");
    asks("COMMANDLINE_ARGS='--no-half-vae --api --listen --port 7860 -f \"a\ncat\" --theme=dark "
         "--opt-sdp-attention "
         "-- --xformers' " TXT2IMG,
         "sdp",
         "COMMANDLINE_ARGS: no counterpart in Attune, ignored: --no-half-vae --api --listen --port 7860 -f "
         "a?cat "
         "--theme=dark --xformers");
}
END_TEST

START_TEST(commandline_args_wins_over_argv) {
    run_result r = run(
        "COMMANDLINE_ARGS='--seed 7 --steps 2 --negative-prompt \"green \\\"pear\\\"\"' \"$HOST\" txt2img "
        "'red apple' --seed 1 --steps 1 --negative-prompt blue --json -q -o f.png && "
        "grep -aq 'Negative prompt: green \"pear\"$' f.png && grep -aq '^Steps: 2,' f.png");
    ck_assert_msg(r.status == 0, "%s\n%s", r.err, r.out);
    json_t *json = run_json(&r);
    ck_assert_int_eq(json_integer_value(json_array_get(json_object_get(json, "seeds"), 0)), 7);
    json_decref(json);
    run_free(&r);
}
END_TEST

START_TEST(errors_in_commandline_args_name_it) {
    run_fails("COMMANDLINE_ARGS='--attention \"sdp' \"$HOST\" txt2img apple", 2, "COMMANDLINE_ARGS: a quote");
    run_fails("COMMANDLINE_ARGS='--xformers \\' \"$HOST\" txt2img apple", 2, "COMMANDLINE_ARGS: a quote");
    run_fails("COMMANDLINE_ARGS='--steps many' \"$HOST\" txt2img apple", 2,
              "COMMANDLINE_ARGS: --steps: \"many\"");
    run_fails("COMMANDLINE_ARGS='--width 0' \"$HOST\" txt2img apple", 2, "COMMANDLINE_ARGS: --width 0");
    run_fails("COMMANDLINE_ARGS='--steps' \"$HOST\" txt2img apple", 2,
              "COMMANDLINE_ARGS: option --steps needs");
    run_fails("COMMANDLINE_ARGS='red apple' \"$HOST\" txt2img -q", 2, "a prompt is missing");
    run_fails("COMMANDLINE_ARGS='--steps many' \"$HOST\" txt2img -- '--red apple'", 2,
              "COMMANDLINE_ARGS: --steps");
    run_result r = run("COMMANDLINE_ARGS='--steps many --json' \"$HOST\" txt2img apple");
    json_t *json = run_json(&r);
    ck_assert_int_eq(r.status, 2);
    ck_assert(json_is_object(json_object_get(json, "error")));
    json_decref(json);
    run_free(&r);
}
END_TEST

START_TEST(only_commands_that_draw_read_commandline_args) {
    run_result r =
        run("export COMMANDLINE_ARGS='--nothing \"'; \"$HOST\" plugins && \"$HOST\" txt2img --help && "
            "COMMANDLINE_ARGS='--api --help' \"$HOST\" txt2img apple");
    ck_assert_msg(r.status == 0, "%s", r.err);
    ck_assert_ptr_null(strstr(r.err, "error"));
    run_free(&r);
}
END_TEST

/* Under check-san an earlier value that is lost fails here. */
START_TEST(of_options_given_twice_the_last_counts) {
    run_result r = run(
        "COMMANDLINE_ARGS='--sampler Euler --determinism none --device cpu' \"$HOST\" txt2img 'red apple' "
        "--sampler DDIM --sampler 'Euler a' --determinism portable --determinism repeatable --device cpu "
        "--seed 1 --seed 2 --attention nothing --attention sdp --steps 3 --steps 1 -o e.png -o f.png "
        "--threads 1 --threads 2 --json -q && ! test -e e.png && grep -aq 'Sampler: Euler,' f.png");
    ck_assert_msg(r.status == 0, "%s\n%s", r.err, r.out);
    json_t *json = run_json(&r);
    ck_assert_int_eq(json_integer_value(json_array_get(json_object_get(json, "seeds"), 0)), 2);
    json_decref(json);
    run_free(&r);
}
END_TEST

START_TEST(help_lists_the_webuis_flags) {
    run_result r = run("\"$HOST\" txt2img --help");
    for (int i = 0; i < FLAGS; ++i)
        ck_assert_msg(strstr(r.out, strongest_first[i].flag) != NULL, "no %s", strongest_first[i].flag);
    for (const struct poptOption *o = webui_ignored; o->longName; ++o)
        ck_assert_msg(strstr(r.out, o->longName) != NULL, "no --%s", o->longName);
    ck_assert_ptr_nonnull(strstr(r.out, "--sub-quad-q-chunk-size=N"));
    ck_assert_ptr_nonnull(strstr(r.out, "--sub-quad-kv-chunk-size=N"));
    ck_assert_ptr_nonnull(strstr(r.out, "--sub-quad-chunk-threshold=PERCENT"));
    run_free(&r);
}
END_TEST

/* Expected words as Python 3.11's shlex.split gives them; NULL where it raises. */
START_TEST(words_are_split_as_by_shlex) {
    static const struct {
        const char *text, *words;
    } cases[] = {{"", ""},
                 {" \t\r\n", ""},
                 {"a b", "[a][b]"},
                 {"  a\t b\n", "[a][b]"},
                 {"''", "[]"},
                 {"a '' \"\"", "[a][][]"},
                 {"'a b'\"c d\"e", "[a bc de]"},
                 {"a\\ b", "[a b]"},
                 {"'a\\'", "[a\\]"},
                 {"\"a\\\"b\\\\c\\d\\'\"", "[a\"b\\c\\d\\']"},
                 {"\\\"", "[\"]"},
                 {"a#b #c", "[a#b][#c]"},
                 {"$HOME * ~ `x`", "[$HOME][*][~][`x`]"},
                 {"\"a", NULL},
                 {"a'", NULL},
                 {"a\\", NULL},
                 {"\"a\\", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char text[256] = "";
        const char **word;
        int count = commandline_args_split(cases[i].text, &word);
        for (int w = 0; w < count; ++w)
            (void)snprintf(text + strlen(text), sizeof text - strlen(text), "[%s]", word[w]);
        free(word);
        ck_assert_msg((count == -1) == !cases[i].words, "<%s>: %d words", cases[i].text, count);
        if (cases[i].words)
            ck_assert_str_eq(text, cases[i].words);
    }
}
END_TEST

TCase *webui_cases(void) {
    TCase *cases = tcase_create("webui");
    tcase_add_test(cases, every_flag_asks_for_its_backend);
    tcase_add_test(cases, warnings_are_on_standard_error_too);
    tcase_add_test(cases, the_stronger_flag_wins_in_either_order);
    tcase_add_test(cases, every_pair_of_flags_is_ordered);
    tcase_add_test(cases, attention_beats_every_flag);
    tcase_add_test(cases, titles_compare_without_case_and_label);
    tcase_add_test(cases, what_no_plugin_offers_falls_back_or_is_status_3);
    tcase_add_test(cases, chunk_sizes_are_whole_numbers_and_need_their_backend);
    tcase_add_test(cases, chunk_sizes_reach_their_backend);
    tcase_add_test(cases, flags_without_a_counterpart_warn);
    tcase_add_test(cases, commandline_args_is_read_as_the_webui_does);
    tcase_add_test(cases, commandline_args_wins_over_argv);
    tcase_add_test(cases, errors_in_commandline_args_name_it);
    tcase_add_test(cases, only_commands_that_draw_read_commandline_args);
    tcase_add_test(cases, of_options_given_twice_the_last_counts);
    tcase_add_test(cases, help_lists_the_webuis_flags);
    tcase_add_test(cases, words_are_split_as_by_shlex);
    return cases;
}
