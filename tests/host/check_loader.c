/* check_loader.c: libraries that must not be loaded, each refused with the reason, before their code runs
 * where possible. */
#include "cases.h"
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED
#endif
#endif

/* Load a manifest that must fail; the library stays in the registry as refused, with the reason. */
static void refused(json_t *manifest, attune_code code, const char *text) {
    attune *host = open_host();
    attune_error error;
    assert_fails(attune_load(host, fixture_install(fixture_folder(), manifest), &error), error, code, text);
    ck_assert_uint_eq(plugin_count(host), 1);
    attune_plugin_status status = plugin_status(host, 0);
    ck_assert_str_eq(status.state, "refused");
    ck_assert_msg(strstr(status.refused, error.message) != NULL, "\"%s\" lacks \"%s\"", status.refused,
                  error.message);
    ck_assert_msg(strstr(status.refused, error.hint) != NULL, "\"%s\" lacks \"%s\"", status.refused,
                  error.hint);
    ck_assert_msg(strstr(test_log(), "refused"), "the log does not say it");
    attune_close(host);
}

static json_t *with(const char *fixture, const char *path, json_t *value) {
    json_t *manifest = fixture_manifest(fixture, NULL);
    fixture_set(manifest, path, value);
    return manifest;
}

/* A host that runs for weeks and tries again must not fill up: one refusal per library stays. */
START_TEST(test_load_refusals_do_not_pile_up) {
    attune *host = open_host();
    attune_error error;
    const char *path = fixture_install(
        fixture_folder(), with("plain", "libraries.0.attention.0.determinism", json_string("none")));
    for (int i = 0; i < 20; ++i)
        ck_assert_int_ne(attune_load(host, path, &error), ATTUNE_OK);
    ck_assert_uint_eq(plugin_count(host), 1);
    attune_close(host);
    host = open_with("plain", NULL);
    path = fixture_plugins("plain", NULL);
    for (int i = 0; i < 20; ++i)
        assert_fails(attune_load(host, path, &error), error, ATTUNE_ALREADY_EXISTS, "already");
    ck_assert_uint_le(plugin_count(host), 2);
    attune_close(host);
}
END_TEST

/* The copy that was hashed cannot be written any more, by anyone who finds its descriptor. */
START_TEST(test_load_copy_is_sealed) {
    attune *host = open_with("plain", NULL);
    int sealed = 0;
    for (int fd = 0; fd < 256; ++fd) {
        char path[64], target[256] = "";
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof target - 1) > 0 && strncmp(target, "/memfd:", 7) == 0) {
            ++sealed;
            ck_assert_int_eq(fcntl(fd, F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK),
                             F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK);
        }
    }
    ck_assert_int_eq(sealed, 1);
    attune_close(host);
}
END_TEST

/* Two plugins export the same symbol: neither may become what the other, or the application, finds. */
START_TEST(test_load_symbols_stay_local) {
    attune *host = open_with("plain", "racy", NULL);
    ck_assert_ptr_null(dlsym(RTLD_DEFAULT, ATTUNE_PLUGIN_ENTRY));
    attune_close(host);
}
END_TEST

START_TEST(test_load_plain) {
    attune *host = open_with("plain", NULL);
    attune_error error;
    attune_plugin_status status = plugin_status(host, 0);
    ck_assert_str_eq(status.state, "active");
    ck_assert_str_eq(status.refused, "");
    ck_assert_str_eq(status.id, "fixture-plain");
    ck_assert_str_eq(status.version, "1.2.3");
    ck_assert_str_eq(status.vendor, "Fixture");
    ck_assert_uint_eq(status.abi, 1);
    ck_assert_uint_eq(status.generation, 1);
    ck_assert_uint_eq(status.devices, 1);
    ck_assert_uint_eq(status.attention, 2);
    ck_assert_uint_eq(status.samplers, 0);
    ck_assert_ptr_nonnull(strstr(status.path, "/plain.so"));
    attune_device_id cpu;
    assert_ok(attune_cpu_device(host, &cpu, &error), error);
    ck_assert_int_eq(cpu.type, ATTUNE_DEVICE_CPU);
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    attune_device_info device = {.struct_size = sizeof device};
    assert_ok(attune_snapshot_device(snapshot, 0, 0, &device, &error), error);
    ck_assert_str_eq(device.name, "cpu");
    ck_assert_uint_eq(device.memory_free, 1u << 29);
    attune_attention_info info = {.struct_size = sizeof info};
    assert_ok(attune_snapshot_attention(snapshot, 0, 1, &info, &error), error);
    ck_assert_str_eq(info.name, "sdp");
    assert_fails(attune_snapshot_attention(snapshot, 0, 2, &info, &error), error, ATTUNE_OUT_OF_RANGE,
                 "2 of 2");
    assert_fails(attune_snapshot_device(snapshot, 1, 0, &device, &error), error, ATTUNE_OUT_OF_RANGE,
                 "1 of 1");
    attune_sampler_info sampler = {.struct_size = sizeof sampler};
    assert_fails(attune_snapshot_sampler(snapshot, 0, 0, &sampler, &error), error, ATTUNE_OUT_OF_RANGE,
                 "0 of 0");
    attune_snapshot_release(snapshot);
    attune_close(host);
}
END_TEST

/* The manifest against the library's tables: the field, and both values. */
static const struct {
    const char *path, *value, *text;
} lies[] = {
    {"libraries.0.version", "\"1.2.4\"", "version: the manifest says \"1.2.4\", the library \"1.2.3\""},
    {"libraries.0.id", "\"fixture-other\"",
     "id: the manifest says \"fixture-other\", the library \"fixture-plain\""},
    {"libraries.0.attention.0.determinism", "\"none\"",
     "attention \"sdp-no-mem\": determinism is none in the manifest and portable in the library"},
    {"libraries.0.attention.0.id", "\"flash\"", "\"sdp-no-mem\" is not in the manifest"},
    {"libraries.0.attention.2",
     "{\"id\": \"more\", \"aliases\": [], \"priority\": 1, \"devices\": [\"cpu\"], \"vendors\": [\"*\"], "
     "\"dtypes\": [\"float32\"], \"masks\": [\"none\"], \"head_dim\": {\"min\": 1, \"max\": 0}, "
     "\"determinism\": \"none\", \"arithmetic\": \"a\"}",
     "\"more\" is in the manifest and not in the library"},
    {"libraries.0.attention.1.priority", "71", "priority is 71 in the manifest and 70 in the library"},
    {"libraries.0.attention.1.arithmetic", "\"fixture-f64-3\"",
     "arithmetic is \"fixture-f64-3\" in the manifest and \"fixture-f64-2\""},
    {"libraries.0.attention.1.dtypes", "[\"float32\", \"float16\"]", "dtypes"},
    {"libraries.0.attention.1.masks", "[\"none\"]", "masks"},
    {"libraries.0.attention.1.head_dim.max", "128",
     "head_dim is 1 to 128 in the manifest and 1 to 0 in the library"},
    {"libraries.0.attention.1.devices", "[\"cuda\"]", "devices in the manifest lack cpu"},
    {"libraries.0.attention.1.vendors", "[\"NVIDIA\"]", "vendors in the manifest lack \"Fixture\""},
    {"libraries.0.attention.1.aliases", "[]", "the alias \"scaled-dot-product\" is not in the manifest"},
    {"libraries.0.attention.1.aliases", "[\"scaled-dot-product\", \"more\"]",
     "2 aliases are in the manifest and 1 in the library"},
    {"libraries.0.interfaces", "[\"attune.device/1\"]",
     "interfaces: attune.attention/1 is not in the manifest and in the library"},
    {"libraries.0.interfaces", "[\"attune.device/1\", \"attune.attention/1\", \"attune.sampler/1\"]",
     "interfaces: attune.sampler/1 is in the manifest and not in the library"},
    {"libraries.0.interfaces", "[\"attune.device/1\", \"attune.attention/1\", \"attune.dance/7\"]",
     "interfaces: attune.dance/7 is in the manifest and not in the library"},
};

START_TEST(test_load_manifest_lies) {
    json_error_t problem;
    json_t *value = json_loads(lies[_i].value, JSON_DECODE_ANY, &problem);
    ck_assert_msg(value != NULL, "%s", problem.text);
    refused(with("plain", lies[_i].path, value), ATTUNE_FAILED_PRECONDITION, lies[_i].text);
}
END_TEST

START_TEST(test_load_sampler_lies) {
    refused(with("painter", "libraries.0.samplers.0.determinism", json_string("portable")),
            ATTUNE_FAILED_PRECONDITION,
            "sampler \"painter\": determinism is portable in the manifest and repeatable in the library");
    refused(with("painter", "libraries.0.samplers.0.id", json_string("sculptor")), ATTUNE_FAILED_PRECONDITION,
            "\"painter\" is not in the manifest");
}
END_TEST

/* Other bits than the manifest's hash: refused before the library's constructor could run. */
START_TEST(test_load_hash_before_code) {
    char mark[4200];
    attune_error error;
    (void)snprintf(mark, sizeof mark, "%s/mark", run_folder());
    ck_assert_int_eq(setenv("ATTUNE_FIXTURE_MARK", mark, 1), 0);
    refused(with("nosymbol", "libraries.0.sha256",
                 json_string("00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff")),
            ATTUNE_UNAUTHENTICATED, "the manifest says 00112233");
    ck_assert_msg(access(mark, F_OK) != 0, "the library's code ran");
    /* with the right hash it does run, and is then found to be no plugin */
    attune *host = open_host();
    assert_fails(attune_load(host, fixture_plugins("nosymbol", NULL), &error), error, ATTUNE_NOT_FOUND,
                 "attune_plugin_entry");
    ck_assert_msg(access(mark, F_OK) == 0, "the mark was never made, so the test shows nothing");
    attune_close(host);
}
END_TEST

START_TEST(test_load_wrong_size) {
    refused(with("plain", "libraries.0.size", json_integer(77)), ATTUNE_DATA_LOSS, "the manifest says 77");
}
END_TEST

START_TEST(test_load_other_machine) {
    refused(with("plain", "libraries.0.os", json_string("plan9")), ATTUNE_UNAVAILABLE, "is for plan9");
    refused(with("plain", "libraries.0.arch", json_string("riscv64")), ATTUNE_UNAVAILABLE,
            "riscv64; this machine is linux");
    refused(with("plain", "libraries.0.isa_min", json_string("x86-64-v9")), ATTUNE_UNAVAILABLE, "x86-64-v9");
}
END_TEST

/* The same id for two machines: the one that fits is loaded, and the other one is no failure. */
START_TEST(test_load_best_of_several_builds) {
    attune *host = open_host();
    attune_error error;
    json_t *manifest = fixture_manifest("plain", "plain", NULL);
    fixture_set(manifest, "libraries.0.arch", json_string("riscv64"));
    assert_ok(attune_load(host, fixture_install(fixture_folder(), manifest), &error), error);
    ck_assert_uint_eq(plugin_count(host), 1);
    ck_assert_str_eq(plugin_status(host, 0).state, "active");
    attune_close(host);
}
END_TEST

START_TEST(test_load_unknown_requirement) {
    refused(with("plain", "libraries.0.requires", json_pack("[s]", "attune.dance/1")),
            ATTUNE_FAILED_PRECONDITION, "requires the interface attune.dance/1");
}
END_TEST

/* A manifest at `folder`, changed on disk by a command (with $D the folder), is refused with this code and
 * text. */
static void refused_on_disk(const char *change, attune_code code, const char *text) {
    attune *host = open_host();
    attune_error error;
    const char *folder = fixture_folder();
    const char *path = fixture_install(folder, fixture_manifest("plain", NULL));
    run_result result = run("D='%s'; %s", folder, change);
    ck_assert_msg(result.status == 0, "%s", result.err);
    run_free(&result);
    assert_fails(attune_load(host, path, &error), error, code, text);
    attune_close(host);
}

START_TEST(test_load_unsafe_files) {
    refused_on_disk("chmod g+w $D/plain.so", ATTUNE_PERMISSION_DENIED, "chmod go-w ");
    refused_on_disk("chmod o+w $D/plain.so", ATTUNE_PERMISSION_DENIED, "written by everybody (mode 0757)");
    refused_on_disk("chmod g+w $D", ATTUNE_PERMISSION_DENIED, "the folder can be written by its group");
    refused_on_disk("chmod 1777 $D", ATTUNE_PERMISSION_DENIED, "the folder can be written by everybody");
    refused_on_disk("chmod g+w $D/manifest.json", ATTUNE_PERMISSION_DENIED, "chmod go-w");
    refused_on_disk("mv $D/plain.so $D/real.so && ln -s real.so $D/plain.so", ATTUNE_PERMISSION_DENIED,
                    "symbolic link");
    refused_on_disk("rm $D/plain.so && mkdir $D/plain.so", ATTUNE_FAILED_PRECONDITION, "not a regular file");
    refused_on_disk("rm $D/plain.so && mkfifo -m 600 $D/plain.so", ATTUNE_FAILED_PRECONDITION,
                    "not a regular file");
    refused_on_disk("rm $D/plain.so", ATTUNE_NOT_FOUND, "No such file");
    refused_on_disk("rm $D/manifest.json", ATTUNE_NOT_FOUND, "no such manifest");
    refused_on_disk("truncate -s 100 $D/plain.so", ATTUNE_DATA_LOSS, "has 100 bytes");
}
END_TEST

/* The ELF headers are looked at before dlopen, and the manifest is true: only the stack's flags are spoilt.
 */
START_TEST(test_load_executable_stack) {
    attune *host = open_host();
    attune_error error;
    size_t size;
    char library[4200];
    const char *folder = fixture_folder();
    const char *path = fixture_install(folder, fixture_manifest("plain", NULL));
    (void)snprintf(library, sizeof library, "%s/plain.so", folder);
    char *bytes = run_read(library, &size);
    Elf64_Phdr *part = (Elf64_Phdr *)(bytes + ((Elf64_Ehdr *)bytes)->e_phoff);
    while (part->p_type != PT_GNU_STACK)
        ++part;
    part->p_flags |= PF_X;
    FILE *file = fopen(library, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
    free(bytes);
    run_result result = run("\"$B/tools/fill_manifest\" %s %s %s", path, folder, path);
    ck_assert_msg(result.status == 0, "%s", result.err);
    run_free(&result);
    assert_fails(attune_load(host, path, &error), error, ATTUNE_FAILED_PRECONDITION, "executable stack");
    attune_close(host);
}
END_TEST

/* What to do is never cut, however long the message. */
START_TEST(test_load_refusal_keeps_the_hint) {
    attune_error error;
    char deep[4200];
    const char *folder = fixture_folder();
    json_t *manifest = fixture_manifest("plain", NULL);
    (void)snprintf(deep, sizeof deep, "%s/a-folder-whose-name-is-long-so-that-the-hint-is-long-as-well",
                   folder);
    ck_assert_int_eq(mkdir(deep, 0755), 0);
    const char *path = fixture_install(deep, manifest);
    run_result result = run("chmod g+w %s/plain.so", deep);
    run_free(&result);
    attune *host = open_host();
    assert_fails(attune_load(host, path, &error), error, ATTUNE_PERMISSION_DENIED, "chmod go-w ");
    const attune_plugin_status status = plugin_status(host, 0);
    ck_assert_uint_gt(strlen(error.hint), 80);
    ck_assert_msg(strstr(status.refused, error.hint) != NULL, "\"%s\" lacks \"%s\"", status.refused,
                  error.hint);
    ck_assert_ptr_nonnull(strstr(status.refused, "can be written by its group"));
    attune_close(host);
}
END_TEST

/* Nor is a refusal cut that a swap of the same bytes repeats. */
START_TEST(test_load_refusal_is_repeated_whole) {
    attune_error error;
    const char *folder = fixture_folder();
    const char *path = fixture_install(folder, fixture_manifest("failing", NULL));
    run_result result = run(
        "sed \"s/no pretended GPU is there/$(printf %%0290d 0)/\" $S/tests/fixtures/failing.c > long.c && "
        "cc -shared -fPIC -I$S/host_api -I$S -I$S/tests/fixtures -D_GNU_SOURCE -fvisibility=hidden "
        "-Wl,-z,noexecstack long.c -o %s/failing.so && chmod go-w %s/failing.so && "
        "$B/tools/fill_manifest %s %s %s",
        folder, folder, path, folder, path);
    ck_assert_msg(result.status == 0, "%s", result.err);
    run_free(&result);
    attune *host = open_host();
    assert_fails(attune_load(host, path, &error), error, ATTUNE_UNAVAILABLE, "0000");
    assert_fails(attune_swap(host, path, NULL, &error), error, ATTUNE_UNAVAILABLE, "0 (buy one)");
    ck_assert_str_eq(error.message, plugin_status(host, 0).refused);
    attune_close(host);
}
END_TEST

/* Only root can give files away, so only root can see that they are refused. */
START_TEST(test_load_foreign_owner) {
    if (geteuid() == 0) {
        refused_on_disk("chown 1234 $D/plain.so", ATTUNE_PERMISSION_DENIED, "belongs to user 1234");
        refused_on_disk("chown 1234 $D", ATTUNE_PERMISSION_DENIED, "the folder belongs to user 1234");
    }
}
END_TEST

/* Folders between the manifest and the library are checked as well. */
START_TEST(test_load_inner_folder) {
    attune_error error;
    const char *folder = fixture_folder();
    char inner[4200];
    (void)snprintf(inner, sizeof inner, "%s/lib", folder);
    ck_assert_int_eq(mkdir(inner, 0755), 0);
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.path", json_string("lib/plain.so"));
    const char *path = fixture_install(folder, manifest);
    ck_assert_int_eq(chmod(inner, 0775), 0);
    attune *host = open_host();
    assert_fails(attune_load(host, path, &error), error, ATTUNE_PERMISSION_DENIED,
                 "the folder can be written by its group");
    ck_assert_int_eq(chmod(inner, 0755), 0);
    assert_ok(attune_load(host, path, &error), error);
    attune_close(host);
    /* and a link to a folder is followed no more than one to a file */
    run_result result = run("mv %s/lib %s/real && ln -s real %s/lib", folder, folder, folder);
    ck_assert_int_eq(result.status, 0);
    run_free(&result);
    host = open_host();
    assert_fails(attune_load(host, path, &error), error, ATTUNE_PERMISSION_DENIED, "symbolic link");
    attune_close(host);
}
END_TEST

/* A path to the manifest may lead over links: what counts is where the manifest really lies. */
START_TEST(test_load_manifest_by_link) {
    attune_error error;
    const char *path = fixture_plugins("plain", NULL);
    char link[4200];
    (void)snprintf(link, sizeof link, "%s/link.json", run_folder());
    ck_assert_int_eq(symlink(path, link), 0);
    attune *host = open_host();
    assert_ok(attune_load(host, link, &error), error);
    attune_close(host);
}
END_TEST

START_TEST(test_load_abi_newer) {
    refused(fixture_manifest("newer", NULL), ATTUNE_UNIMPLEMENTED, "it speaks 99 or newer, the host 1 to 1");
    json_t *manifest = fixture_manifest("newer", NULL);
    fixture_set(manifest, "abi.min", json_integer(99));
    fixture_set(manifest, "abi.max", json_integer(99));
    refused(manifest, ATTUNE_UNIMPLEMENTED, "speaks ABI 99 to 99; this host speaks 1 to 1");
}
END_TEST

/* The manifest's promise about the ABI is compared with the entry's answer. */
START_TEST(test_load_abi_lies) {
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "abi.max", json_integer(7));
    attune *host = open_host();
    attune_error error;
    assert_ok(attune_load(host, fixture_install(fixture_folder(), manifest), &error), error);
    ck_assert_uint_eq(plugin_status(host, 0).abi, 1);
    attune_close(host);
}
END_TEST

START_TEST(test_load_abi_older) {
    refused(fixture_manifest("older", NULL), ATTUNE_UNIMPLEMENTED,
            "attune.attention/1 table has 32 bytes and lacks run");
    attune *host = open_with("older_device", NULL);
    attune_device_id cpu;
    attune_error error;
    attune_stream stream;
    assert_ok(attune_cpu_device(host, &cpu, &error), error);
    assert_ok(attune_stream_create(host, &cpu, 0, &stream, &error), error);
    ck_assert_uint_eq(stream.workers, 2);
    attune_stream_destroy(&stream);
    attune_close(host);
}
END_TEST

START_TEST(test_load_create_fails) {
    refused(fixture_manifest("failing", NULL), ATTUNE_UNAVAILABLE, "no pretended GPU is there");
    refused(fixture_manifest("failing", NULL), ATTUNE_UNAVAILABLE, "buy one");
    ck_assert_int_eq(setenv("LIAR_SAYS_NOTHING", "1", 1), 0);
    refused(fixture_manifest("liar", NULL), ATTUNE_UNAVAILABLE, "describe failed and gave no reason");
    ck_assert_int_eq(unsetenv("LIAR_SAYS_NOTHING"), 0);
}
END_TEST

/* What a plugin says reaches nobody unended or with control characters. */
START_TEST(test_load_text_is_cleaned) {
    attune *host = open_with("liar", NULL);
    attune_error error;
    attune_attention_info info = {.struct_size = sizeof info};
    attune_snapshot *snapshot = attune_snapshot_acquire(host);
    assert_ok(attune_snapshot_attention(snapshot, 0, 0, &info, &error), error);
    ck_assert_uint_eq(strlen(info.label), sizeof info.label - 1);
    ck_assert_int_eq(info.label[1], '?');
    attune_snapshot_release(snapshot);
    attune_close(host);
}
END_TEST

START_TEST(test_load_twice) {
    attune *host = open_with("plain", NULL);
    attune_error error;
    assert_fails(attune_load(host, fixture_plugins("plain", NULL), &error), error, ATTUNE_ALREADY_EXISTS,
                 "fixture-plain is loaded already, version 1.2.3");
    ck_assert_str_eq(plugin_status(host, 0).state, "active");
    ck_assert_str_eq(plugin_status(host, 1).state, "refused");
    attune_close(host);
}
END_TEST

/* One bad library does not take the good ones of its manifest with it. */
START_TEST(test_load_some_refused) {
    attune *host = open_host();
    attune_error error;
    assert_ok(attune_load(host, fixture_plugins("failing", "plain", "nosymbol", NULL), &error), error);
    ck_assert_uint_eq(plugin_count(host), 3);
    ck_assert_str_eq(plugin_status(host, 0).state, "refused");
    ck_assert_str_eq(plugin_status(host, 1).state, "active");
    ck_assert_str_eq(plugin_status(host, 2).state, "refused");
    attune_close(host);
}
END_TEST

/* The library on disk is overwritten in place while it is loaded: what runs is the private copy. */
START_TEST(test_load_overwrite_in_place) {
    const char *folder = fixture_folder();
    const char *path = fixture_install(folder, fixture_manifest("plain", NULL));
    attune *host = open_host();
    attune_error error;
    assert_ok(attune_load(host, path, &error), error);
    run_result result =
        run("s=$(stat -c %%s %s/plain.so); head -c $s /dev/zero >%s/plain.so", folder, folder);
    ck_assert_msg(result.status == 0, "%s", result.err);
    run_free(&result);
    float data[4][64];
    attune_tensor q = filled(data[0], 1, 1, 8, 8, 1), k = filled(data[1], 1, 1, 8, 8, 2),
                  v = filled(data[2], 1, 1, 8, 8, 3), out = filled(data[3], 1, 1, 8, 8, 4);
    attune_attention_problem problem;
    attune_binding *binding;
    attune_stream stream;
    attune_device_id cpu;
    attune_attention_args args = {sizeof args, 0, &q, &k, &v, NULL, &out, NULL, 0};
    assert_ok(attune_attention_problem_init(&problem, &q, &k, &v, NULL, &out, &error), error);
    assert_ok(attune_cpu_device(host, &cpu, &error), error);
    assert_ok(attune_stream_create(host, &cpu, 1, &stream, &error), error);
    assert_ok(attune_choose(host, NULL, &problem, NULL, &binding, &error), error);
    assert_ok(attune_attend(binding, &args, &stream, NULL, &error), error);
    attune_binding_release(binding);
    attune_stream_destroy(&stream);
    attune_close(host);
}
END_TEST

static uint32_t files_in(const char *command) {
    run_result result = run("%s", command);
    uint32_t lines = (uint32_t)run_lines(result.out);
    run_free(&result);
    return lines;
}

/* ATTUNE_PLUGIN_COPY=file: a private file for debuggers, gone when the plugin is. */
START_TEST(test_load_copy_as_file) {
    char temporary[4200], list[8400];
    attune_error error;
    (void)snprintf(temporary, sizeof temporary, "%s/copies", run_folder());
    ck_assert_int_eq(mkdir(temporary, 0700), 0);
    (void)snprintf(list, sizeof list, "find %s -type f -name plain.so -perm 0500", temporary);
    ck_assert_int_eq(setenv("TMPDIR", temporary, 1), 0);
    ck_assert_int_eq(setenv("ATTUNE_PLUGIN_COPY", "file", 1), 0);
    const char *path = fixture_plugins("plain", NULL);
    attune *host = open_host();
    assert_ok(attune_load(host, path, &error), error);
    ck_assert_uint_eq(files_in(list), 1);
    (void)snprintf(list, sizeof list, "find %s -mindepth 1", temporary);
    attune_close(host);
    ck_assert_uint_eq(files_in(list), 0);
}
END_TEST

/* Every load is a copy of its own: the same file loaded by two hosts has two instances and two mappings, and
 * each close lets the other work. "safe" libraries are unmapped, others stay parked. */
START_TEST(test_load_unload_and_park) {
    const char *path = fixture_plugins("plain", NULL);
    json_t *manifest = fixture_manifest("plain", NULL);
    fixture_set(manifest, "libraries.0.unload", json_string("safe"));
    const char *safe = fixture_install(fixture_folder(), manifest);
    attune_error error;
    char maps[64];
    (void)snprintf(maps, sizeof maps, "grep memfd:plain.so /proc/%ld/maps", (long)getpid());
    attune *a = open_host(), *b = open_host(), *c = open_host();
    assert_ok(attune_load(a, path, &error), error);
    uint32_t one = files_in(maps);
    ck_assert_uint_gt(one, 0);
    assert_ok(attune_load(b, path, &error), error);
    assert_ok(attune_load(c, safe, &error), error);
    ck_assert_uint_eq(files_in(maps), 3 * one);
    attune_close(a);
    ck_assert_uint_eq(files_in(maps), 3 * one);
    attune_close(c);
#if defined(SANITIZED)
    ck_assert_uint_eq(files_in(maps), 3 * one); /* kept, so that reports have names */
#else
    ck_assert_uint_eq(files_in(maps), 2 * one);
#endif
    attune_device_id cpu;
    assert_ok(attune_cpu_device(b, &cpu, &error), error);
    attune_close(b);
}
END_TEST

TCase *loader_cases(void) {
    TCase *cases = tcase_create("loader");
    tcase_add_test(cases, test_load_refusals_do_not_pile_up);
    tcase_add_test(cases, test_load_copy_is_sealed);
    tcase_add_test(cases, test_load_symbols_stay_local);
    tcase_add_test(cases, test_load_plain);
    tcase_add_loop_test(cases, test_load_manifest_lies, 0, sizeof lies / sizeof *lies);
    tcase_add_test(cases, test_load_sampler_lies);
    tcase_add_test(cases, test_load_hash_before_code);
    tcase_add_test(cases, test_load_wrong_size);
    tcase_add_test(cases, test_load_other_machine);
    tcase_add_test(cases, test_load_best_of_several_builds);
    tcase_add_test(cases, test_load_unknown_requirement);
    tcase_add_test(cases, test_load_unsafe_files);
    tcase_add_test(cases, test_load_executable_stack);
    tcase_add_test(cases, test_load_refusal_keeps_the_hint);
    tcase_add_test(cases, test_load_refusal_is_repeated_whole);
    tcase_add_test(cases, test_load_foreign_owner);
    tcase_add_test(cases, test_load_inner_folder);
    tcase_add_test(cases, test_load_manifest_by_link);
    tcase_add_test(cases, test_load_abi_newer);
    tcase_add_test(cases, test_load_abi_lies);
    tcase_add_test(cases, test_load_abi_older);
    tcase_add_test(cases, test_load_create_fails);
    tcase_add_test(cases, test_load_text_is_cleaned);
    tcase_add_test(cases, test_load_twice);
    tcase_add_test(cases, test_load_some_refused);
    tcase_add_test(cases, test_load_overwrite_in_place);
    tcase_add_test(cases, test_load_copy_as_file);
    tcase_add_test(cases, test_load_unload_and_park);
    tcase_set_timeout(cases, 0);
    return cases;
}
