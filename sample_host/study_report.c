/* study_report.c: what a study found: rows, a verdict, JSON, difference pictures. */
#include "png_file.h"
#include "study.h"

static const struct {
    const char *name, *between;
    int32_t promised_from; /* lowest class that covers it: docs/cli.md */
} variations[STUDY_VARIATIONS] = {{"runs", "runs", ATTUNE_DETERMINISM_REPEATABLE},
                                  {"threads", "thread counts", ATTUNE_DETERMINISM_INVARIANT},
                                  {"batch", "places in a batch", ATTUNE_DETERMINISM_INVARIANT},
                                  {"memory", "uses of memory", ATTUNE_DETERMINISM_INVARIANT},
                                  {"isa", "instruction sets", ATTUNE_DETERMINISM_PORTABLE}};

/* By ATTUNE_MEMORY_…, as the options that ask for them. */
static const char *const memory_names[] = {"keep", "medvram", "lowvram"};

static int promised(const study_backend *b, int kind) {
    return b->plan.determinism >= variations[kind].promised_from;
}

static int broken(const study_backend *b, int kind) {
    return promised(b, kind) && b->variation[kind].differ;
}

/* "differs between runs (3 of 12 pictures, up to 7 of 16384 pixels, up to 1/255)", or that nothing does; only
 * what was promised with `promised_only`. */
static void verdict_text(const study_backend *b, int promised_only, char *text, size_t size) {
    uint64_t total = (uint64_t)b->plan.width * b->plan.height;
    uint32_t comparisons = 0;
    size_t used = 0;
    for (int kind = 0; kind < STUDY_VARIATIONS; ++kind) {
        const study_variation *v = &b->variation[kind];
        comparisons += v->comparisons;
        if (v->differ && (promised(b, kind) || !promised_only))
            used +=
                (size_t)snprintf(text + used, size - used,
                                 "%s between %s (%u of %u pictures, up to %llu of %llu pixels, up to %u/255)",
                                 used ? "," : "differs", variations[kind].between, v->differ, v->comparisons,
                                 (unsigned long long)v->pixels, (unsigned long long)total, v->largest);
    }
    if (!used)
        (void)snprintf(text, size, "same bits in all %u comparisons", comparisons);
}

attune_code study_judge(struct app *app, const study_backend *b) {
    char verdict[768];
    int any = 0;
    for (int kind = 0; kind < STUDY_VARIATIONS; ++kind)
        any |= broken(b, kind);
    if (!any)
        return ATTUNE_OK;
    verdict_text(b, 1, verdict, sizeof verdict);
    attune_fail(&app->error, ATTUNE_INTERNAL, "sample_host", b->name,
                "%s (%s %s) broke its promise: class %s, but the picture %s", b->name, b->choice.plugin,
                b->choice.version, attune_determinism_name(b->plan.determinism), verdict);
    attune_hint(&app->error, "do not rely on its class, and tell its maker");
    return ATTUNE_INTERNAL;
}

/* The worst pair's difference, as bright as it can be. */
static attune_code write_picture(struct app *app, study_backend *b, int kind, const char *folder,
                                 json_t *row) {
    study_variation *v = &b->variation[kind];
    char path[4400], text[640];
    uint32_t scale = difference_scale(v->difference.largest);
    attune_image image = {.struct_size = sizeof image,
                          .width = b->plan.width,
                          .height = b->plan.height,
                          .stride = b->plan.width * 3,
                          .pixels = v->absolute};
    for (size_t i = 0; i < (size_t)image.stride * image.height; ++i)
        v->absolute[i] = (uint8_t)(v->absolute[i] * scale);
    (void)snprintf(path, sizeof path, "%s/%s-%s.png", folder, b->name, variations[kind].name);
    (void)snprintf(
        text, sizeof text,
        "Difference between %s, times %u\nAttention: %s (%s %s), Seed: %llu, Threads: %u, Run: %u, "
        "Batch size: %u, Place: %u, Memory: %s, Instruction set: %s, Pixels: %llu, Largest: %u/255",
        variations[kind].between, scale, b->name, b->choice.plugin, b->choice.version,
        (unsigned long long)v->worst.seed, v->worst.threads, v->worst.run, v->worst.batch, v->worst.place,
        memory_names[v->worst.memory], *v->worst.isa ? v->worst.isa : b->choice.isa,
        (unsigned long long)v->difference.pixels, v->difference.largest);
    attune_code code = png_write(path, &image, text, 0, &app->error);
    if (code != ATTUNE_OK)
        return code;
    json_object_set_new(row, "output", json_text(path));
    json_object_set_new(row, "scale", json_integer((json_int_t)scale));
    if (!app->json)
        printf("           %s, differences times %u\n", path, scale);
    return ATTUNE_OK;
}

static json_t *row_json(const study_backend *b, int kind) {
    const study_variation *v = &b->variation[kind];
    json_t *row =
        json_pack("{s:s, s:b, s:i, s:i, s:I, s:i, s:f}", "variation", variations[kind].name, "promised",
                  promised(b, kind), "comparisons", (int)v->comparisons, "differ", (int)v->differ, "pixels",
                  (json_int_t)v->pixels, "largest", (int)v->largest, "mean", v->mean);
    if (v->differ)
        json_object_set_new(row, "worst",
                            json_pack("{s:I, s:i, s:i, s:i, s:i, s:s, s:s}", "seed",
                                      (json_int_t)v->worst.seed, "threads", (int)v->worst.threads, "run",
                                      (int)v->worst.run, "batch_size", (int)v->worst.batch, "place",
                                      (int)v->worst.place, "memory", memory_names[v->worst.memory], "isa",
                                      *v->worst.isa ? v->worst.isa : b->choice.isa));
    return row;
}

static void print_row(const study_backend *b, int kind) {
    const study_variation *v = &b->variation[kind];
    printf("  %-8s %8s %8u %8u %8llu %4u/255 %11.3g\n", variations[kind].name,
           broken(b, kind)     ? "BROKEN"
           : promised(b, kind) ? "yes"
                               : "no",
           v->comparisons, v->differ, (unsigned long long)v->pixels, v->largest, v->mean);
}

static attune_code put_rows(struct app *app, study_backend *b, const char *folder, json_t *entry) {
    json_t *rows = json_array();
    char verdict[768];
    attune_code code = ATTUNE_OK;
    json_object_set_new(entry, "variations", rows);
    for (int kind = 0; kind < STUDY_VARIATIONS && code == ATTUNE_OK; ++kind) {
        if (!b->variation[kind].comparisons)
            continue;
        json_t *row = row_json(b, kind);
        json_array_append_new(rows, row);
        if (!app->json)
            print_row(b, kind);
        if (folder && b->variation[kind].differ)
            code = write_picture(app, b, kind, folder, row);
    }
    verdict_text(b, 0, verdict, sizeof verdict);
    json_object_set_new(entry, "verdict", json_string(verdict));
    if (!app->json)
        printf("  %s\n", verdict);
    return code;
}

attune_code study_report(struct app *app, study_backend *b, const char *folder) {
    attune_code code = ATTUNE_OK;
    json_t *entry = json_pack("{s:s, s:o}", "backend", b->name, "choice", choice_json(&b->choice));
    json_array_append_new(json_object_get(app->reply, "backends"), entry);
    if (b->plan.units) { /* a picture was begun */
        const char *class = attune_determinism_name(b->plan.determinism);
        json_object_set_new(entry, "determinism",
                            json_pack("{s:s, s:s, s:s}", "attention",
                                      attune_determinism_name(b->choice.determinism), "picture", class,
                                      "limited_by", b->plan.limited_by));
        if (!app->json)
            printf("%s (%s %s): attention %s, the picture %s%s%s\n"
                   "  varied   promised compared   differ   pixels  largest   mean /255\n",
                   b->name, b->choice.plugin, b->choice.version,
                   attune_determinism_name(b->choice.determinism), class,
                   *b->plan.limited_by ? ", limited by " : "", b->plan.limited_by);
        code = put_rows(app, b, folder, entry);
    }
    if (b->refused[0]) {
        json_object_set_new(entry, "refused", json_text(b->refused));
        if (!app->json)
            printf("%s refused: %s\n", b->name, b->refused);
    }
    fflush(stdout);
    return code;
}
