/*
 * check_files.c: what stands in place of a model's files: pipes, sockets, devices and folders, files that are
 * too large, and a tokenizer of which a part is missing. None is waited for.
 */
#include "tests/sampler/rig.h"
#include "tests/sampler/suite.h"
#include "tests/support/run.h"
#include "tests/support/single_file.h"

#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *vocabulary(void) {
    static char path[4500];
    (void)snprintf(path, sizeof path, "%s/tokenizer", rig_model_path("tiny"));
    return path;
}

static attune_code try_open(rig *r, const char *path, const char *config, attune_error *error) {
    attune_model_options options = {
        .struct_size = sizeof options, .vocabulary = vocabulary(), .config = config};
    void *made = NULL;
    memset(error, 0, sizeof *error);
    attune_code code = r->sampler->model_open(r->instance, path, &options, &r->stream, NULL, &made, error);
    if (code == ATTUNE_OK)
        r->sampler->model_close(made);
    return code;
}

static void put_socket(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char here[4096];
    const char *slash = strrchr(path, '/'); /* a socket's path is short: go there */
    (void)snprintf(here, sizeof here, "%.*s", (int)(slash - path), path);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", slash + 1);
    int made = socket(AF_UNIX, SOCK_STREAM, 0), back = open(".", O_RDONLY | O_DIRECTORY);
    ck_assert_int_eq(chdir(here), 0);
    ck_assert_int_eq(bind(made, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(fchdir(back), 0);
    ck_assert_int_eq(close(made) | close(back), 0);
}

static void put_pipe(const char *path) {
    ck_assert_int_eq(mkfifo(path, 0600), 0); /* nobody writes: a reader would wait for ever */
}

static void put_folder(const char *path) {
    ck_assert_int_eq(mkdir(path, 0700), 0);
}

static void put_zeros(const char *path) {
    ck_assert_int_eq(symlink("/dev/zero", path), 0); /* a reader would never see the end */
}

static void (*const kinds[])(const char *) = {put_pipe, put_folder, put_zeros, put_socket};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

START_TEST(a_folders_files_must_be_files) {
    static const char *const names[] = {"model_index.json",
                                        "scheduler/scheduler_config.json",
                                        "text_encoder/config.json",
                                        "unet/config.json",
                                        "vae/config.json",
                                        "tokenizer/vocab.json",
                                        "tokenizer/merges.txt",
                                        "tokenizer/tokenizer_config.json",
                                        "text_encoder/model.safetensors",
                                        "unet/diffusion_pytorch_model.safetensors",
                                        "vae/diffusion_pytorch_model.safetensors"};
    rig r;
    attune_error error;
    char path[4500], kept[4500];
    rig_open(&r, 1);
    const char *folder = rig_copy_model("tiny");
    (void)snprintf(kept, sizeof kept, "%s/kept", folder);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        int there = rename(path, kept) == 0;
        for (size_t k = 0; k < KINDS; ++k) {
            kinds[k](path);
            ck_assert_msg(try_open(&r, folder, NULL, &error) == ATTUNE_INVALID_ARGUMENT, "%s, %zu: %s",
                          names[i], k, error.message);
            ck_assert_msg(strstr(error.message, names[i]) && strstr(error.message, "is not a regular file"),
                          "%s, %zu: %s", names[i], k, error.message);
            ck_assert_int_eq(remove(path), 0);
        }
        ck_assert(!there || rename(kept, path) == 0);
    }
    ck_assert_msg(try_open(&r, folder, NULL, &error) == ATTUNE_OK, "%s", error.message);
    rig_close(&r);
}
END_TEST

START_TEST(a_checkpoints_files_must_be_files) {
    rig r;
    attune_error error;
    char whole[4500], beside[4500], odd[4500];
    rig_open(&r, 1);
    (void)snprintf(whole, sizeof whole, "%s/x.safetensors", run_folder());
    (void)snprintf(beside, sizeof beside, "%s/x.json", run_folder());
    (void)snprintf(odd, sizeof odd, "%s/odd", run_folder());
    single_file_write("tiny", whole);
    for (size_t k = 0; k < KINDS; ++k) {
        kinds[k](beside);
        kinds[k](odd);
        ck_assert_int_eq(try_open(&r, whole, NULL, &error), ATTUNE_INVALID_ARGUMENT);
        ck_assert_msg(strstr(error.message, "x.json is not a regular file") != NULL, "%s", error.message);
        ck_assert_int_eq(try_open(&r, whole, odd, &error), ATTUNE_INVALID_ARGUMENT);
        ck_assert_msg(strstr(error.message, "odd is not a regular file") != NULL, "%s", error.message);
        ck_assert_int_eq(try_open(&r, odd, NULL, &error), ATTUNE_NOT_FOUND); /* no folder of a model either */
        ck_assert_ptr_nonnull(strstr(error.message, "odd/model_index.json"));
        ck_assert_int_eq(remove(beside), 0);
        ck_assert_int_eq(remove(odd), 0);
    }
    rig_close(&r);
}
END_TEST

START_TEST(configurations_have_a_largest_size) {
    rig r;
    attune_error error;
    char path[4500];
    rig_open(&r, 1);
    const char *folder = rig_copy_model("tiny");
    (void)snprintf(path, sizeof path, "%s/vae/config.json", folder);
    ck_assert_int_eq(truncate(path, (16 << 20) + 1), 0); /* sparse */
    ck_assert_int_eq(try_open(&r, folder, NULL, &error), ATTUNE_OUT_OF_RANGE);
    ck_assert_msg(strstr(error.message, "vae/config.json has 16777217 bytes") != NULL, "%s", error.message);
    rig_close(&r);
}
END_TEST

/* The installed vocabulary stands for a tokenizer that is not there at all, never for the half of one. */
START_TEST(half_a_tokenizer_is_an_error) {
    static const char *const names[] = {"vocab.json", "merges.txt"};
    rig r;
    attune_error error;
    char path[2][4500];
    rig_open(&r, 1);
    const char *folder = rig_copy_model("tiny");
    for (int i = 0; i < 2; ++i) {
        (void)snprintf(path[0], sizeof path[0], "%s/tokenizer/%s", folder, names[i]);
        (void)snprintf(path[1], sizeof path[1], "%s/kept", folder);
        ck_assert_int_eq(rename(path[0], path[1]), 0);
        ck_assert_int_eq(try_open(&r, folder, NULL, &error), ATTUNE_NOT_FOUND);
        ck_assert_msg(strstr(error.message, names[i]) != NULL, "%s", error.message);
        ck_assert_int_eq(rename(path[1], path[0]), 0);
    }
    for (int i = 0; i < 2; ++i) {
        (void)snprintf(path[0], sizeof path[0], "%s/tokenizer/%s", folder, names[i]);
        ck_assert_int_eq(unlink(path[0]), 0);
    }
    ck_assert_msg(try_open(&r, folder, NULL, &error) == ATTUNE_OK, "%s", error.message);
    rig_close(&r);
}
END_TEST

TCase *files_cases(void) {
    TCase *cases = tcase_create("files");
    tcase_set_timeout(cases, 0);
    tcase_add_test(cases, a_folders_files_must_be_files);
    tcase_add_test(cases, a_checkpoints_files_must_be_files);
    tcase_add_test(cases, configurations_have_a_largest_size);
    tcase_add_test(cases, half_a_tokenizer_is_an_error);
    return cases;
}
