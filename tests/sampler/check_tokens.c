/* check_tokens.c: ids against transformers (tests/golden), what is cut, hostile text and hostile files. */
#include "plugin/sampler/tokens.h"
#include "tests/sampler/goldens.h"
#include "tests/sampler/suite.h"
#include "tests/support/run.h"
#include "tests/support/test_memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static test_memory memory;

static void setup(void) {
    test_memory_init(&memory, 0);
}

static void teardown(void) {
    ck_assert_int_eq(memory.live, 0);
}

/* A tokenizer of the repository: "models/emoji" has CLIP's 49,408 ids, "tests/golden/data/tiny" 1,024. */
static tokenizer *open_model(const char *model) {
    char folder[4352];
    (void)snprintf(folder, sizeof folder, "%s/%s/tokenizer", run_source(), model);
    tokenizer *tokens;
    attune_error error;
    ck_assert_msg(tokenizer_open(&memory.service, folder, &tokens, &error) == ATTUNE_OK, "%s: %s",
                  error.where, error.message);
    return tokens;
}

static void compare_with_golden(const char *model, const char *stem) {
    char name[64];
    (void)snprintf(name, sizeof name, "%s_prompts", stem);
    golden_lines prompts = golden_read_lines(name);
    npy_array ids = golden_read((attune_dtype){ATTUNE_TYPE_INT, 32, 1}, 2, "%s_ids", stem);
    ck_assert_int_eq(ids.tensor.shape[0], (int64_t)prompts.count);
    ck_assert_int_eq(ids.tensor.shape[1], TOKENIZER_CHUNK);
    tokenizer *tokens = open_model(model);
    for (size_t i = 0; i < prompts.count; i++) {
        int32_t got[TOKENIZER_CHUNK];
        ck_assert_int_eq(tokenizer_chunk77(tokens, prompts.text[i], got, NULL, NULL), ATTUNE_OK);
        const int32_t *want = (const int32_t *)ids.tensor.data + i * TOKENIZER_CHUNK;
        for (int k = 0; k < TOKENIZER_CHUNK; k++)
            ck_assert_msg(got[k] == want[k], "prompt %zu '%s', id %d: %d, transformers %d", i,
                          prompts.text[i], k, got[k], want[k]);
    }
    tokenizer_close(tokens);
    npy_free(&ids);
    golden_lines_free(&prompts);
}

START_TEST(ids_are_transformers) {
    compare_with_golden("models/emoji", "tokenizer");
    compare_with_golden("tests/golden/data/tiny", "tokenizer_tiny");
}
END_TEST

/* Each of CLIP's 32,875 whole words of a–z is one token: transformers agrees, and it takes nearly every
 * merge. */
START_TEST(words_of_the_vocabulary_are_one_token) {
    char path[4352];
    (void)snprintf(path, sizeof path, "%s/models/emoji/tokenizer/vocab.json", run_source());
    json_t *vocabulary = json_load_file(path, 0, NULL), *id;
    const char *symbol;
    tokenizer *tokens = open_model("models/emoji");
    size_t words = 0;
    json_object_foreach(vocabulary, symbol, id) {
        char word[256];
        size_t letters = strspn(symbol, "abcdefghijklmnopqrstuvwxyz"), count;
        if (letters == 0 || strcmp(symbol + letters, "</w>") != 0)
            continue;
        int32_t got;
        (void)snprintf(word, sizeof word, "%.*s", (int)letters, symbol);
        ck_assert_int_eq(tokenizer_encode(tokens, word, &got, 1, &count, NULL), ATTUNE_OK);
        ck_assert_msg(count == 1 && got == json_integer_value(id), "%s: %zu tokens, the first %d", word,
                      count, got);
        words++;
    }
    ck_assert_uint_eq(words, 32875);
    json_decref(vocabulary);
    tokenizer_close(tokens);
}
END_TEST

START_TEST(encode_counts_beyond_its_capacity) {
    tokenizer *tokens = open_model("models/emoji");
    ck_assert_uint_eq(tokenizer_size(tokens), 49408);
    ck_assert_int_eq(tokenizer_start(tokens), 49406);
    ck_assert_int_eq(tokenizer_end(tokens), 49407);
    ck_assert_int_eq(tokenizer_pad(tokens), 49407);
    int32_t ids[4] = {-7, -7, -7, -7};
    size_t count = 9;
    ck_assert_int_eq(tokenizer_encode(tokens, "Red  APPLE<|startoftext|>", ids, 2, &count, NULL), ATTUNE_OK);
    ck_assert_uint_eq(count, 3);
    ck_assert(ids[0] == 736 && ids[1] == 3055 && ids[2] == -7);
    const char *specials = "<|endoftext|><|startoftext|> <|<|endoftext|>";
    ck_assert_int_eq(tokenizer_encode(tokens, specials, ids, 4, &count, NULL), ATTUNE_OK);
    ck_assert(count == 5 && ids[0] == 49407 && ids[1] == 49406);
    ck_assert_int_eq(tokenizer_encode(tokens, "", NULL, 0, &count, NULL), ATTUNE_OK);
    ck_assert_uint_eq(count, 0);
    tokenizer_close(tokens);
    tokenizer_close(NULL);
}
END_TEST

/* `head` n times, then `tail`. */
static char *repeated(const char *head, size_t n, const char *tail) {
    char *text = malloc(strlen(head) * n + strlen(tail) + 1), *at = text;
    for (size_t i = 0; i < n; i++)
        at += strlen(strcpy(at, head));
    strcpy(at, tail);
    return text;
}

START_TEST(cut_says_what_and_where) {
    static const struct {
        const char *head;
        size_t n;
        const char *tail;
        tokenizer_cut cut;
    } rows[] = {
        {"", 0, "", {0, 0, 0}},
        {"cat ", 75, "", {75, 0, 0}},
        {"cat ", 76, "", {76, 1, 300}},
        {" \t cat", 77, "", {77, 2, 75 * 6 + 3}},
        {"caf\xc3\xa9\xc2\xa0", 75, "dog dog", {77, 2, 75 * 7}},  /* no-break spaces, bytes and not letters */
        {"cafe\xcc\x81\xe3\x80\x80", 75, "dog", {76, 1, 75 * 9}}, /* composed before it is counted */
        {"cat ", 74, "supercalifragilistic", {79, 4, 296}},       /* a word that is kept in part only */
        {"cat ", 74, "<|endoftext|>dog cat", {77, 2, 296}},       /* a special token does not end a word */
        {"!",
         0,
         "1111111111111111111111111111111111111111111111111111111111111111111111111111111111",
         {82, 7, 0}},
    };
    tokenizer *tokens = open_model("models/emoji");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text = repeated(rows[i].head, rows[i].n, rows[i].tail);
        int32_t ids[TOKENIZER_CHUNK];
        tokenizer_cut cut = {9, 9, 9};
        ck_assert_int_eq(tokenizer_chunk77(tokens, text, ids, &cut, NULL), ATTUNE_OK);
        ck_assert_msg(memcmp(&cut, &rows[i].cut, sizeof cut) == 0,
                      "row %zu: %zu tokens, %zu dropped from %zu", i, cut.tokens, cut.dropped, cut.offset);
        ck_assert_int_eq(ids[0], 49406);
        ck_assert_int_eq(ids[76], 49407);
        free(text);
    }
    tokenizer_close(tokens);
}
END_TEST

START_TEST(text_that_is_not_utf8_is_refused) {
    static const struct {
        const char *text;
        int offset;
    } rows[] = {
        {"\x80", 0},
        {"ab\xff", 2},
        {"a\xc3", 1},
        {"\xc3(", 0},
        {"a\xc0\xaf", 1},
        {"\xe2\x82", 0},
        {"x\xed\xa0\x80", 1},    /* a surrogate */
        {"\xf4\x90\x80\x80", 0}, /* above U+10FFFF */
        {"<|endoftext|>\xfe", 13},
        {"\xf0\x9f\x8d\x8e\xf0\x9f\x8d", 4},
    };
    tokenizer *tokens = open_model("tests/golden/data/tiny");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        attune_error error = {0};
        size_t count = 5;
        char said[32];
        ck_assert_int_eq(tokenizer_encode(tokens, rows[i].text, NULL, 0, &count, &error),
                         ATTUNE_INVALID_ARGUMENT);
        (void)snprintf(said, sizeof said, "byte offset %d ", rows[i].offset);
        ck_assert_msg(strstr(error.message, said) != NULL, "row %zu: %s", i, error.message);
        ck_assert_uint_eq(count, 0);
    }
    tokenizer_close(tokens);
}
END_TEST

/* A megabyte of one word, and of special tokens: quadratic work would take an hour. */
/* Canonical ordering sorts runs of marks by insertion: a prompt of nothing else would take minutes. */
START_TEST(runs_of_marks_are_bounded) {
    size_t count;
    attune_error error = {0};
    tokenizer *tokens = open_model("models/emoji");
    char *most = repeated("\xcc\x81\xcc\x96", 512, "a"),
         *more = repeated("\xcc\x81\xcc\x96", 512, "\xcc\x81");
    ck_assert_int_eq(tokenizer_encode(tokens, most, NULL, 0, &count, &error), ATTUNE_OK);
    ck_assert_int_eq(tokenizer_encode(tokens, more, NULL, 0, &count, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(error.message, "2048"));
    free(most);
    free(more);
    tokenizer_close(tokens);
}
END_TEST

START_TEST(long_text) {
    tokenizer *tokens = open_model("models/emoji");
    char *text = repeated("a", 1 << 20, "");
    size_t count;
    ck_assert_int_eq(tokenizer_encode(tokens, text, NULL, 0, &count, NULL), ATTUNE_OK);
    ck_assert_uint_eq(count, (1 << 20) / 8 + 1); /* "aaaaaaaa" is a symbol; the last is split for its </w> */
    free(text);
    text = repeated("<|startoftext|>", (1 << 20) / 15, "");
    ck_assert_int_eq(tokenizer_encode(tokens, text, NULL, 0, &count, NULL), ATTUNE_OK);
    ck_assert_uint_eq(count, (1 << 20) / 15);
    free(text);
    text = repeated("a", (1 << 20) + 1, "");
    ck_assert_int_eq(tokenizer_encode(tokens, text, NULL, 0, &count, NULL), ATTUNE_INVALID_ARGUMENT);
    free(text);
    tokenizer_close(tokens);
}
END_TEST

/* ---- several threads ---- */

typedef struct encoder {
    pthread_t thread;
    const tokenizer *tokens;
    const golden_lines *prompts;
    int32_t ids[200][TOKENIZER_CHUNK];
} encoder;

static void *encode_all(void *context) {
    encoder *self = context;
    for (size_t i = 0; i < self->prompts->count; i++)
        (void)tokenizer_chunk77(self->tokens, self->prompts->text[i], self->ids[i], NULL, NULL);
    return NULL;
}

static void *plain_alloc(void *context, uint64_t bytes, const char *tag) {
    (void)context;
    (void)tag;
    return malloc(bytes);
}

static void plain_free(void *context, void *block) {
    (void)context;
    free(block);
}

START_TEST(threads_share_a_tokenizer) {
    golden_lines prompts = golden_read_lines("tokenizer_prompts");
    ck_assert_uint_eq(prompts.count, 200);
    attune_memory_service plain = {sizeof plain, 0, plain_alloc, plain_free,
                                   NULL}; /* the counting one is for one thread */
    char folder[4352];
    (void)snprintf(folder, sizeof folder, "%s/models/emoji/tokenizer", run_source());
    tokenizer *tokens;
    ck_assert_int_eq(tokenizer_open(&plain, folder, &tokens, NULL), ATTUNE_OK);
    encoder *all = calloc(4, sizeof *all);
    for (int i = 0; i < 4; i++) {
        all[i].tokens = tokens;
        all[i].prompts = &prompts;
        ck_assert_int_eq(pthread_create(&all[i].thread, NULL, encode_all, &all[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_join(all[i].thread, NULL), 0);
    for (int i = 1; i < 4; i++)
        ck_assert(memcmp(all[i].ids, all[0].ids, sizeof all[0].ids) == 0);
    free(all);
    tokenizer_close(tokens);
    golden_lines_free(&prompts);
}
END_TEST

/* ---- files made here ---- */

/* NULL text: no such file. */
static void write_file(const char *name, const char *text) {
    char path[4352];
    (void)snprintf(path, sizeof path, "%s/%s", run_folder(), name);
    (void)unlink(path);
    if (!text)
        return;
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, strlen(text), file), strlen(text));
    ck_assert_int_eq(fclose(file), 0);
}

static attune_code open_files(const char *vocabulary, const char *merges, const char *config, const char *map,
                              tokenizer **tokens, attune_error *error) {
    write_file("vocab.json", vocabulary);
    write_file("merges.txt", merges);
    write_file("tokenizer_config.json", config);
    write_file("special_tokens_map.json", map);
    return tokenizer_open(&memory.service, run_folder(), tokens, error);
}

#define SPECIALS "\"<|startoftext|>\": 0, \"<|endoftext|>\": 1"
#define LETTERS                                                                                              \
    ", \"a\": 2, \"b\": 3, \"c\": 4, \"a</w>\": 5, \"b</w>\": 6, \"c</w>\": 7, \"ab\": 8, \"bc\": 9, "       \
    "\"bc</w>\": 10, "                                                                                       \
    "\"abc</w>\": 11, \"aa\": 12, \"aa</w>\": 13, \"aaaa\": 14, \"!\": 15, \"abab\": 16"
#define SMALL "{" SPECIALS LETTERS "}"

static void expect_ids(const tokenizer *tokens, const char *text, size_t want_count, const int32_t *want) {
    int32_t ids[16];
    size_t count;
    ck_assert_int_eq(tokenizer_encode(tokens, text, ids, 16, &count, NULL), ATTUNE_OK);
    ck_assert_msg(count == want_count && memcmp(ids, want, count * sizeof *ids) == 0, "%s: %zu ids, first %d",
                  text, count, ids[0]);
}

/* Worked by hand: rank before place, then the leftmost; a byte without a symbol is the end token, as
 * unk_token. */
START_TEST(merges_go_by_rank_then_leftmost) {
    tokenizer *tokens;
    attune_error error = {0};
    ck_assert_msg(open_files(SMALL, "#version: 0.2\nb c</w>\na b\na bc</w>\na a\naa aa\nab ab", NULL, NULL,
                             &tokens, &error) == ATTUNE_OK,
                  "%s", error.message);
    expect_ids(tokens, "abc", 1, (int32_t[]){11}); /* bc</w> comes first although ab is further left */
    expect_ids(tokens, "abcabc", 3, (int32_t[]){8, 4, 11});
    expect_ids(tokens, "aaaa", 3,
               (int32_t[]){12, 2, 5}); /* the last one is a</w>, and "a a</w>" is no merge */
    expect_ids(tokens, "aaaaaa", 3, (int32_t[]){14, 2, 5});
    expect_ids(tokens, "ababc abab", 5, (int32_t[]){8, 11, 8, 2, 6});
    tokenizer_close(tokens);
}
END_TEST

START_TEST(windows_lines_and_blank_lines) {
    tokenizer *tokens;
    ck_assert_int_eq(open_files(SMALL, "#version: 0.2\r\na a\r\n\r\na b\r\n", NULL, NULL, &tokens, NULL),
                     ATTUNE_OK);
    expect_ids(tokens, "aaab", 3, (int32_t[]){12, 2, 6});
    expect_ids(tokens, "aba", 2, (int32_t[]){8, 5});
    expect_ids(tokens, "d", 1, (int32_t[]){1});
    expect_ids(tokens, "ad b", 3, (int32_t[]){2, 1, 6});
    tokenizer_close(tokens);
    /* no heading; the last of two equal merges counts */
    ck_assert_int_eq(open_files(SMALL, "a b\nb c</w>\na b", NULL, NULL, &tokens, NULL), ATTUNE_OK);
    expect_ids(tokens, "abc", 2, (int32_t[]){2, 10});
    tokenizer_close(tokens);
    ck_assert_int_eq(open_files(SMALL, "", NULL, NULL, &tokens, NULL), ATTUNE_OK);
    expect_ids(tokens, "ab", 2, (int32_t[]){2, 6});
    tokenizer_close(tokens);
}
END_TEST

START_TEST(pad_token_is_read) {
    static const struct {
        const char *config, *map;
        int32_t pad;
    } rows[] = {
        {NULL, NULL, 1},
        {"{\"pad_token\": \"!\"}", NULL, 15},
        {NULL, "{\"pad_token\": {\"content\": \"!\", \"lstrip\": false}}", 15},
        {"{\"pad_token\": \"<|endoftext|>\"}", "{\"pad_token\": \"!\"}", 1},
        {"{\"pad_token\": null}", "{}", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tokenizer *tokens;
        int32_t ids[TOKENIZER_CHUNK];
        ck_assert_int_eq(open_files(SMALL, "a b", rows[i].config, rows[i].map, &tokens, NULL), ATTUNE_OK);
        ck_assert_int_eq(tokenizer_pad(tokens), rows[i].pad);
        ck_assert_int_eq(tokenizer_chunk77(tokens, "a", ids, NULL, NULL), ATTUNE_OK);
        ck_assert(ids[0] == 0 && ids[1] == 5 && ids[2] == 1 && ids[3] == rows[i].pad &&
                  ids[76] == rows[i].pad);
        tokenizer_close(tokens);
    }
}
END_TEST

START_TEST(hostile_files_are_refused) {
    static const struct {
        const char *vocabulary, *merges, *config;
        attune_code code;
        const char *file, *said;
    } rows[] = {
        {NULL, "", NULL, ATTUNE_NOT_FOUND, "/vocab.json", "cannot open"},
        {SMALL, NULL, NULL, ATTUNE_NOT_FOUND, "/merges.txt", "cannot open"},
        {"", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "line 1"},
        {"{" SPECIALS, "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "line 1"},
        {"[1, 2]", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "not a JSON object"},
        {"{}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "<|startoftext|> is missing"},
        {"{\"<|startoftext|>\": 0, \"a\": 1}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json",
         "<|endoftext|> is missing"},
        {"{" SPECIALS ", \"a\": -1}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json",
         "'a' is not an integer from 0 to 2"},
        {"{" SPECIALS ", \"a\": 3}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json",
         "'a' is not"}, /* 2 is a hole */
        {"{" SPECIALS ", \"a\": 1}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "id 1 is given twice"},
        {"{" SPECIALS ", \"a\": 4294967298}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "'a' is not"},
        {"{" SPECIALS ", \"a\": 2.0}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "'a' is not"},
        {"{" SPECIALS ", \"a\": \"2\"}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "'a' is not"},
        {"{" SPECIALS ", \"a\": 2, \"a\": 2}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "duplicate"},
        {"{" SPECIALS ", \"\xff\": 2}", "", NULL, ATTUNE_DATA_LOSS, "/vocab.json", "line 1"},
        {SMALL, "a b\na d", NULL, ATTUNE_DATA_LOSS, "/merges.txt", "line 2 merges to or from 'd'"},
        {SMALL, "d a", NULL, ATTUNE_DATA_LOSS, "/merges.txt", "line 1 merges to or from 'd'"},
        {SMALL, "#version: 0.2\nc a", NULL, ATTUNE_DATA_LOSS, "/merges.txt", "line 2 merges to or from 'ca'"},
        {SMALL, "a b\n#version: 0.2", NULL, ATTUNE_DATA_LOSS, "/merges.txt",
         "line 2 merges to or from '#version:'"},
        {SMALL, "ab", NULL, ATTUNE_DATA_LOSS, "/merges.txt", "line 1 is not two symbols"},
        {SMALL, "a b c", NULL, ATTUNE_DATA_LOSS, "/merges.txt", "line 1 is not two symbols"},
        {SMALL, "a  b", NULL, ATTUNE_DATA_LOSS, "/merges.txt", "line 1 is not two symbols"},
        {SMALL, " b", NULL, ATTUNE_DATA_LOSS, "/merges.txt", "line 1 is not two symbols"},
        {SMALL, "a ", NULL, ATTUNE_DATA_LOSS, "/merges.txt", "line 1 is not two symbols"},
        {SMALL, "a b", "{", ATTUNE_DATA_LOSS, "/tokenizer_config.json", "line 1"},
        {SMALL, "a b", "{\"pad_token\": \"x\"}", ATTUNE_DATA_LOSS, "/tokenizer_config.json",
         "'x' is not in vocab.json"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tokenizer *tokens;
        attune_error error = {0};
        attune_code code =
            open_files(rows[i].vocabulary, rows[i].merges, rows[i].config, NULL, &tokens, &error);
        ck_assert_msg(code == rows[i].code && error.code == code, "row %zu: %d %s", i, code, error.message);
        ck_assert_ptr_null(tokens);
        ck_assert_msg(strstr(error.where, rows[i].file) != NULL, "row %zu: %s", i, error.where);
        ck_assert_msg(strstr(error.message, rows[i].said) != NULL, "row %zu: %s", i, error.message);
        ck_assert_int_eq(memory.live, 0);
    }
}
END_TEST

/* Things in the place of a file, a line and a file that are too long, and a path that is. */
START_TEST(odd_files_are_refused) {
    tokenizer *tokens;
    attune_error error = {0};
    char path[4352], *text = repeated("a", 5000, "");
    (void)snprintf(path, sizeof path, "%s/merges.txt", run_folder());
    ck_assert_int_eq(tokenizer_open(&memory.service, text, &tokens, &error), ATTUNE_INVALID_ARGUMENT);
    text[2000] = ' ';
    ck_assert_int_eq(open_files(SMALL, text, NULL, NULL, &tokens, &error), ATTUNE_DATA_LOSS);
    free(text);
    ck_assert_int_eq(truncate(path, (16 << 20) + 1), 0); /* sparse */
    ck_assert_int_eq(tokenizer_open(&memory.service, run_folder(), &tokens, &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_ptr_nonnull(strstr(error.message, "16777217"));
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkfifo(path, 0600), 0); /* nobody writes: a reader would wait for ever */
    ck_assert_int_eq(tokenizer_open(&memory.service, run_folder(), &tokens, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    ck_assert_int_eq(tokenizer_open(&memory.service, run_folder(), &tokens, &error), ATTUNE_INVALID_ARGUMENT);
    ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

/* Every allocation fails once: RESOURCE_EXHAUSTED each time, and nothing stays. */
START_TEST(memory_runs_out) {
    const char *config = "{\"pad_token\": \"!\"}";
    uint64_t failures = 0;
    for (attune_code code = ATTUNE_RESOURCE_EXHAUSTED; code != ATTUNE_OK; failures++) {
        tokenizer *tokens;
        test_memory_init(&memory, failures + 1);
        code = open_files(SMALL, "a b", config, NULL, &tokens, NULL);
        ck_assert(code == ATTUNE_OK || code == ATTUNE_RESOURCE_EXHAUSTED);
        tokenizer_close(tokens);
        ck_assert_int_eq(memory.live, 0);
    }
    ck_assert_uint_eq(failures - 1, 6); /* the tokenizer, three files, the ids that were seen, the merges */
    test_memory_init(&memory, 0);
    tokenizer *tokens = open_model("tests/golden/data/tiny");
    char *text = repeated("a", 500, "<|endoftext|>b");
    failures = 0;
    for (attune_code code = ATTUNE_RESOURCE_EXHAUSTED; code != ATTUNE_OK; failures++) {
        size_t count;
        memory.fail_at = memory.calls + failures + 1;
        code = tokenizer_encode(tokens, text, NULL, 0, &count, NULL);
        ck_assert(code == ATTUNE_OK || code == ATTUNE_RESOURCE_EXHAUSTED);
    }
    ck_assert_uint_eq(failures - 1, 3); /* two stretches, one long word */
    free(text);
    tokenizer_close(tokens);
}
END_TEST

TCase *tokens_cases(void) {
    TCase *cases = tcase_create("tokens");
    tcase_set_timeout(cases, 0);
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_add_test(cases, ids_are_transformers);
    tcase_add_test(cases, words_of_the_vocabulary_are_one_token);
    tcase_add_test(cases, encode_counts_beyond_its_capacity);
    tcase_add_test(cases, cut_says_what_and_where);
    tcase_add_test(cases, text_that_is_not_utf8_is_refused);
    tcase_add_test(cases, runs_of_marks_are_bounded);
    tcase_add_test(cases, long_text);
    tcase_add_test(cases, threads_share_a_tokenizer);
    tcase_add_test(cases, merges_go_by_rank_then_leftmost);
    tcase_add_test(cases, windows_lines_and_blank_lines);
    tcase_add_test(cases, pad_token_is_read);
    tcase_add_test(cases, hostile_files_are_refused);
    tcase_add_test(cases, odd_files_are_refused);
    tcase_add_test(cases, memory_runs_out);
    return cases;
}
