/*
 * choose.c: name asked for → hard filters → cost → priority → name, and a reason for each candidate.
 *
 * Costs are estimates, so those within 5 % of the fastest count as equal: a difference that a measurement
 * would not reproduce must not overrule the priorities that users know from the web UI.
 */
#include "choose.h"
#include "find_library.h"
#include "structs.h"
#include <stdlib.h>

#define COST_TOLERANCE 20 /* one part in 20 */

/* How far a candidate came: of several refusals the one that came furthest is the one to tell. */
enum {
    STAGE_DEVICE = ATTUNE_FILTER_PASSED, /* before it come the wish's own filters */
    STAGE_SHAPE,
    STAGE_CLASS,
    STAGE_QUERY,
    STAGE_BUDGET,
    STAGE_SERVES
};

typedef struct option {
    attune_generation *generation;
    const attune_attention_info *info;
    uint32_t index;
    bool asked; /* its name or an alias is the one asked for */
    int stage;
    attune_code code;
    attune_attention_answer answer;
    char reason[192];
} option;

typedef struct choosing {
    const attune_snapshot *snapshot;
    const attune_wish *wish;
    const attune_attention_problem *problem;
    option *options;
    uint32_t count;
} choosing;

__attribute__((format(printf, 4, 5))) static void refuse(option *one, int stage, attune_code code,
                                                         const char *format, ...) {
    va_list list;
    one->stage = stage;
    one->code = code;
    va_start(list, format);
    (void)vsnprintf(one->reason, sizeof one->reason, format, list);
    va_end(list);
}

static uint32_t dtype_bit(attune_dtype dtype) {
    if (attune_dtype_equal(dtype, ATTUNE_F32))
        return ATTUNE_DTYPE_BIT_F32;
    if (attune_dtype_equal(dtype, ATTUNE_F16))
        return ATTUNE_DTYPE_BIT_F16;
    return attune_dtype_equal(dtype, ATTUNE_BF16) ? ATTUNE_DTYPE_BIT_BF16 : 0;
}

static void judge_device(const choosing *in, option *one) {
    char reason[192];
    const attune_attention_info *info = one->info;
    int filter = attune_wish_device(in->snapshot, in->wish, &info->device, info->vendor,
                                    one->generation->memory_min[one->index], reason);
    if (filter != ATTUNE_FILTER_PASSED) {
        refuse(one, filter, ATTUNE_UNAVAILABLE, "%s", reason);
        return;
    }
    if (attune_device_same(&info->device, &in->problem->device))
        return;
    const attune_device_info *its =
        attune_snapshot_find_device(in->snapshot, &info->device, NULL, NULL, NULL);
    const attune_device_info *theirs =
        attune_snapshot_find_device(in->snapshot, &in->problem->device, NULL, NULL, NULL);
    const char *name = its ? its->name : "another device";
    if (!theirs && in->problem->device.type == ATTUNE_DEVICE_CPU && info->device.type == ATTUNE_DEVICE_CPU)
        refuse(one, STAGE_DEVICE, ATTUNE_FAILED_PRECONDITION,
               "runs on %s, the tensors carry another CPU's id (attune_cpu_device gives the right one)",
               name);
    else
        refuse(one, STAGE_DEVICE, ATTUNE_FAILED_PRECONDITION,
               "runs on %s, the tensors are on %s, and nothing is copied implicitly", name,
               theirs ? theirs->name : "a device that no plugin drives");
}

static void judge_libraries(option *one) {
    const char *const lacks = one->generation->lacks[one->index];
    if (*lacks)
        refuse(one, STAGE_DEVICE, ATTUNE_UNAVAILABLE, "needs %s, which is not found: %s", lacks,
               ATTUNE_FIND_ADVICE);
}

static void judge_shape(const choosing *in, option *one) {
    const attune_attention_info *info = one->info;
    const attune_attention_problem *problem = in->problem;
    int64_t head = problem->d_qk > problem->d_v ? problem->d_qk : problem->d_v;
    int64_t least = problem->d_qk < problem->d_v ? problem->d_qk : problem->d_v;
    static const char *const masks[] = {"no mask", "a bool mask", "a float mask"};
    if (!(info->dtypes & dtype_bit(problem->dtype)))
        refuse(one, STAGE_SHAPE, ATTUNE_UNIMPLEMENTED, "%s is not supported",
               attune_dtype_name(problem->dtype));
    else if (!(info->masks & (1u << problem->mask)))
        refuse(one, STAGE_SHAPE, ATTUNE_UNIMPLEMENTED, "%s is not supported", masks[problem->mask]);
    else if (problem->causal && !(info->masks & ATTUNE_MASK_BIT_CAUSAL))
        refuse(one, STAGE_SHAPE, ATTUNE_UNIMPLEMENTED, "causal attention is not supported");
    else if (info->head_dim_max && head > info->head_dim_max)
        refuse(one, STAGE_SHAPE, ATTUNE_OUT_OF_RANGE, "head size %lld is above %u", (long long)head,
               info->head_dim_max);
    else if (least < info->head_dim_min)
        refuse(one, STAGE_SHAPE, ATTUNE_OUT_OF_RANGE, "head size %lld is below %u", (long long)least,
               info->head_dim_min);
}

static void judge_class(const choosing *in, option *one, int32_t kept) {
    if (kept < in->problem->determinism)
        refuse(one, STAGE_CLASS, ATTUNE_FAILED_PRECONDITION, "keeps determinism class %s, %s is asked for",
               attune_text_class(kept), attune_text_class(in->problem->determinism));
}

static void judge_query(const choosing *in, option *one) {
    attune_error error;
    attune_attention_answer *answer = &one->answer;
    memset(&error, 0, sizeof error);
    answer->struct_size = sizeof *answer;
    attune_code code =
        one->generation->attention->query(one->generation->instance, one->index, in->problem, answer, &error);
    answer->reason[sizeof answer->reason - 1] = 0;
    if (code)
        refuse(one, STAGE_QUERY, code, "%s", *error.message ? error.message : attune_code_name(code));
    else if (answer->code)
        refuse(one, STAGE_QUERY, answer->code, "%s",
               *answer->reason ? answer->reason : attune_code_name(answer->code));
    attune_printable(one->reason);
}

static void judge_answer(const choosing *in, option *one) {
    int32_t kept = one->answer.determinism;
    if (!attune_determinism_name(kept) || kept > one->info->determinism)
        refuse(one, STAGE_QUERY, ATTUNE_INTERNAL, "answers class %d, its table says %s", kept,
               attune_text_class(one->info->determinism));
    else
        judge_class(in, one, kept);
    if (!one->code && one->answer.workspace > in->problem->budget) {
        char needs[32], has[32];
        attune_text_bytes(needs, one->answer.workspace);
        attune_text_bytes(has, in->problem->budget);
        refuse(one, STAGE_BUDGET, ATTUNE_RESOURCE_EXHAUSTED, "needs %s of workspace, the budget is %s", needs,
               has);
    }
}

static void judge(const choosing *in, option *one) {
    judge_device(in, one);
    if (!one->code)
        judge_libraries(one);
    if (!one->code)
        judge_shape(in, one);
    if (!one->code)
        judge_class(in, one, one->info->determinism);
    if (!one->code)
        judge_query(in, one);
    if (!one->code)
        judge_answer(in, one);
    if (!one->code)
        one->stage = STAGE_SERVES;
}

static bool answers_to(const attune_attention_info *info, const char *name) {
    if (strcmp(info->name, name) == 0)
        return true;
    for (int i = 0; i < ATTUNE_MAX_ALIASES; ++i)
        if (*info->aliases[i] && strcmp(info->aliases[i], name) == 0)
            return true;
    return false;
}

static attune_code gather(choosing *in, attune_error *error) {
    uint32_t room = 0;
    for (uint32_t i = 0; i < in->snapshot->count; ++i)
        room += in->snapshot->generation[i]->attention_count;
    in->options = calloc(room ? room : 1, sizeof *in->options);
    if (!in->options)
        return attune_fail(error, ATTUNE_RESOURCE_EXHAUSTED, ATTUNE_DOMAIN, "attune_choose",
                           "no memory for %u candidates", room);
    for (uint32_t i = 0; i < in->snapshot->count; ++i)
        for (uint32_t k = 0; k < in->snapshot->generation[i]->attention_count; ++k) {
            option *one = &in->options[in->count++];
            one->generation = in->snapshot->generation[i];
            one->index = k;
            one->info = &one->generation->backends[k];
            one->asked = in->wish->attention && answers_to(one->info, in->wish->attention);
            judge(in, one);
        }
    return ATTUNE_OK;
}

/* A backend that gives no estimate comes after all that do. */
static uint64_t cost(const option *one) {
    return one->answer.nanoseconds ? one->answer.nanoseconds : UINT64_MAX;
}

static bool about_equal(uint64_t value, uint64_t fastest) {
    return value - fastest <= fastest / COST_TOLERANCE;
}

/* Of two whose costs count as equal: priority, then name, then plugin, then order of loading. */
static bool precedes(const option *a, const option *b) {
    if (a->info->priority != b->info->priority)
        return a->info->priority > b->info->priority;
    int names = strcmp(a->info->name, b->info->name);
    if (names == 0)
        names = strcmp(a->generation->id, b->generation->id);
    return names != 0 ? names < 0 : a < b;
}

/* The best that can serve, of those asked for or of all; NULL = none. `*fastest` is the least cost of these.
 */
static option *best(const choosing *in, bool asked, uint64_t *fastest) {
    option *found = NULL;
    *fastest = UINT64_MAX;
    for (uint32_t i = 0; i < in->count; ++i)
        if (!in->options[i].code && (in->options[i].asked || !asked) && cost(&in->options[i]) < *fastest)
            *fastest = cost(&in->options[i]);
    for (uint32_t i = 0; i < in->count; ++i) {
        option *one = &in->options[i];
        if (!one->code && (one->asked || !asked) && about_equal(cost(one), *fastest) &&
            (!found || precedes(one, found)))
            found = one;
    }
    return found;
}

/* The refusal to tell: of those asked for where there are any, the one that came furthest, then by priority.
 */
static const option *nearest(const choosing *in, bool asked) {
    const option *found = NULL;
    for (uint32_t i = 0; i < in->count; ++i) {
        const option *one = &in->options[i];
        if (one->code && (one->asked || !asked) &&
            (!found || one->stage > found->stage || (one->stage == found->stage && precedes(one, found))))
            found = one;
    }
    return found;
}

static bool any_asked(const choosing *in) {
    for (uint32_t i = 0; i < in->count; ++i)
        if (in->options[i].asked)
            return true;
    return false;
}

static void time_text(char out[32], uint64_t nanoseconds) {
    if (!nanoseconds)
        attune_text_copy(out, 32, "unknown");
    else if (nanoseconds < 1000000)
        (void)snprintf(out, 32, "%.3g us", (double)nanoseconds / 1e3);
    else
        (void)snprintf(out, 32, "%.3g ms", (double)nanoseconds / 1e6);
}

/* "sdp, sdp-no-mem": each name once; cut where it gets long. */
static void list_names(const choosing *in, char *out, size_t size) {
    *out = 0;
    for (uint32_t i = 0; i < in->count; ++i) {
        bool repeated = false;
        for (uint32_t k = 0; k < i; ++k)
            repeated |= strcmp(in->options[k].info->name, in->options[i].info->name) == 0;
        size_t used = strlen(out);
        if (!repeated && used + 36 < size)
            (void)snprintf(out + used, size - used, "%s%s", used ? ", " : "", in->options[i].info->name);
    }
    if (!*out)
        attune_text_copy(out, size, "none");
}

static const char *similar(const choosing *in, char names[][32]) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < in->count && count < ATTUNE_MAX_CANDIDATES; ++i)
        attune_text_copy(names[count++], 32, in->options[i].info->name);
    return attune_did_you_mean(in->wish->attention, names[0], 32, count);
}

/* Why `asked` is not what serves: its refusal, or that nobody offers it. */
static void missing_text(const choosing *in, char *out, size_t size) {
    const option *one = any_asked(in) ? nearest(in, true) : NULL;
    char names[ATTUNE_MAX_CANDIDATES][32];
    if (one) {
        attune_text_copy(out, size, one->reason);
        return;
    }
    const char *meant = similar(in, names);
    (void)snprintf(out, size, "no loaded plugin offers it%s%s%s", meant ? " (did you mean " : "",
                   meant ? meant : "", meant ? "?)" : "");
}

/* Why the chosen one was chosen, in its row. */
static void explain_chosen(const choosing *in, option *one, bool fallback, uint64_t fastest) {
    uint32_t serve = 0, equal = 0;
    for (uint32_t i = 0; i < in->count; ++i) {
        const option *other = &in->options[i];
        if (other->code || (in->wish->attention && !fallback && !other->asked))
            continue;
        ++serve;
        equal += about_equal(cost(other), fastest);
    }
    const char *kind = in->wish->attention && !fallback ? "asked for by name" : "";
    if (*kind && serve == 1)
        (void)snprintf(one->reason, sizeof one->reason, "chosen: %s", kind);
    else if (serve == 1)
        (void)snprintf(one->reason, sizeof one->reason, "chosen: the only one of %u that can serve",
                       in->count);
    else if (equal > 1)
        (void)snprintf(one->reason, sizeof one->reason,
                       "chosen: %s%spriority %d, of %u that are equally fast (within 5 %%)", kind,
                       *kind ? ", " : "", one->info->priority, equal);
    else
        (void)snprintf(one->reason, sizeof one->reason, "chosen: %s%sfastest of %u that can serve", kind,
                       *kind ? ", " : "", serve);
}

static void explain_others(const choosing *in, const option *chosen, bool fallback, uint64_t fastest) {
    char its[32], ours[32];
    time_text(ours, chosen->answer.nanoseconds);
    for (uint32_t i = 0; i < in->count; ++i) {
        option *one = &in->options[i];
        if (one == chosen || one->code)
            continue;
        time_text(its, one->answer.nanoseconds);
        if (in->wish->attention && !fallback && !one->asked)
            (void)snprintf(one->reason, sizeof one->reason, "not chosen: %s was asked for",
                           chosen->info->name);
        else if (!about_equal(cost(one), fastest))
            (void)snprintf(one->reason, sizeof one->reason, "not chosen: estimated at %s, %s at %s", its,
                           chosen->info->name, ours);
        else if (one->info->priority < chosen->info->priority)
            (void)snprintf(one->reason, sizeof one->reason,
                           "not chosen: as fast, but priority %d is below %d of %s", one->info->priority,
                           chosen->info->priority, chosen->info->name);
        else
            (void)snprintf(one->reason, sizeof one->reason,
                           "not chosen: as fast and of equal priority, but \"%s\" (%s) sorts first",
                           chosen->info->name, chosen->generation->id);
    }
}

static void prefix_refusals(const choosing *in) {
    for (uint32_t i = 0; i < in->count; ++i) {
        option *one = &in->options[i];
        char reason[192];
        if (!one->code)
            continue;
        attune_text_copy(reason, sizeof reason, one->reason);
        (void)snprintf(one->reason, sizeof one->reason, "refused: %.182s", reason);
    }
}

/* Copy the rows out; where there are more than fit, the chosen one has the last row. */
static void fill_choice(const choosing *in, const option *chosen, attune_choice *choice) {
    uint32_t rows = in->count < ATTUNE_MAX_CANDIDATES ? in->count : ATTUNE_MAX_CANDIDATES;
    choice->candidates = rows;
    for (uint32_t i = 0; i < rows; ++i) {
        const option *one = &in->options[i];
        attune_candidate *row = &choice->candidate[i];
        if (i + 1 == rows && chosen && chosen > one)
            one = chosen;
        attune_text_copy(row->backend, sizeof row->backend, one->info->name);
        attune_text_copy(row->plugin, sizeof row->plugin, one->generation->id);
        row->code = one->code;
        row->determinism = one->code ? 0 : one->answer.determinism;
        row->chosen = one == chosen;
        row->nanoseconds = one->code ? 0 : one->answer.nanoseconds;
        attune_text_copy(row->reason, sizeof row->reason, one->reason);
    }
    if (!chosen)
        return;
    choice->determinism = chosen->answer.determinism;
    attune_text_copy(choice->backend, sizeof choice->backend, chosen->info->name);
    attune_text_copy(choice->plugin, sizeof choice->plugin, chosen->generation->id);
    attune_text_copy(choice->version, sizeof choice->version, chosen->generation->version);
    attune_text_copy(choice->arithmetic, sizeof choice->arithmetic, chosen->info->arithmetic);
    attune_text_copy(choice->isa, sizeof choice->isa, chosen->info->isa);
    choice->generation = chosen->generation->number;
    choice->workspace = chosen->answer.workspace;
}

/* Whether no candidate is on a device or of a vendor that was asked for: a library that was refused might
 * have been. */
static bool nobody_there(const choosing *in) {
    for (uint32_t i = 0; i < in->count; ++i)
        if (in->options[i].stage > ATTUNE_FILTER_VENDOR)
            return false;
    return true;
}

/* Who could have served: first who does serve where only the name stood in the way, then who keeps which
 * class. */
static void hint_who(const choosing *in, attune_error *error) {
    uint64_t fastest;
    const option *other = best(in, false, &fastest);
    if (other) {
        attune_hint(error, "%s (%s) can serve this and keeps %s; do not require %s", other->info->name,
                    other->generation->id, attune_text_class(other->answer.determinism), in->wish->attention);
        return;
    }
    char text[160] = "";
    for (uint32_t i = 0; i < in->count; ++i) {
        const option *one = &in->options[i];
        size_t used = strlen(text);
        if (one->stage == STAGE_CLASS && used + 90 < sizeof text)
            (void)snprintf(text + used, sizeof text - used, "%s%s (%s) keeps %s", used ? "; " : "",
                           one->info->name, one->generation->id,
                           attune_text_class(one->answer.struct_size ? one->answer.determinism
                                                                     : one->info->determinism));
        else if (one->stage == STAGE_BUDGET && used + 90 < sizeof text) {
            char needs[32];
            attune_text_bytes(needs, one->answer.workspace);
            (void)snprintf(text + used, sizeof text - used, "%s%s (%s) would need %s", used ? "; " : "",
                           one->info->name, one->generation->id, needs);
        }
    }
    const attune_generation *refused = attune_snapshot_refused(in->snapshot);
    if (*text)
        attune_hint(error, "%s", text);
    else if (refused && nobody_there(in))
        attune_hint(error, "%s was refused: %s", refused->id, refused->refused);
    else if (!in->count)
        attune_hint(error, "load a plugin: --plugin MANIFEST or ATTUNE_PLUGIN_PATH");
    else
        attune_hint(error, "ask with --explain for every backend's reason");
}

static attune_code nobody(const choosing *in, attune_error *error) {
    const attune_wish *wish = in->wish;
    char known[200], names[ATTUNE_MAX_CANDIDATES][32];
    if (wish->required && !any_asked(in)) {
        const char *meant = similar(in, names);
        list_names(in, known, sizeof known);
        (void)attune_fail(error, ATTUNE_NOT_FOUND, ATTUNE_DOMAIN, "attune_choose",
                          "no loaded plugin offers the attention backend \"%.64s\"; known are: %s",
                          wish->attention, known);
        if (meant)
            attune_hint(error, "did you mean %s?", meant);
        return ATTUNE_NOT_FOUND;
    }
    const option *one = nearest(in, wish->required);
    if (!one)
        (void)attune_fail(error, ATTUNE_UNAVAILABLE, ATTUNE_DOMAIN, "attune_choose",
                          "no attention backend is loaded");
    else
        (void)attune_fail(error, ATTUNE_UNAVAILABLE, one->generation->id, one->info->name,
                          "no attention backend can serve this%s; nearest is %s (%s): %s",
                          wish->required ? " as required" : "", one->info->name, one->generation->id,
                          one->reason);
    hint_who(in, error);
    return ATTUNE_UNAVAILABLE;
}

attune_code attune_choose_from(const attune_snapshot *snapshot, const attune_wish *wish,
                               const attune_attention_problem *problem, attune_choice *choice,
                               attune_chosen *chosen, attune_error *error) {
    choosing in = {.snapshot = snapshot, .wish = wish, .problem = problem};
    attune_choice rows;
    memset(&rows, 0, sizeof rows);
    attune_code code = gather(&in, error);
    if (code)
        return code;
    uint64_t fastest;
    option *found = best(&in, wish->attention != NULL, &fastest);
    bool fallback = !found && wish->attention && !wish->required;
    if (fallback)
        found = best(&in, false, &fastest);
    if (found && fallback) {
        char why[192];
        missing_text(&in, why, sizeof why);
        (void)snprintf(rows.fallback, sizeof rows.fallback, "asked %.32s, got %s because %.170s",
                       wish->attention, found->info->name, why);
    }
    if (found) {
        explain_chosen(&in, found, fallback, fastest);
        explain_others(&in, found, fallback, fastest);
        if (chosen)
            *chosen =
                (attune_chosen){attune_generation_lease(found->generation), found->index, found->answer};
    } else {
        code = nobody(&in, error);
        for (uint32_t i = 0; i < in.count; ++i) /* only where another name was required */
            if (!in.options[i].code)
                (void)snprintf(in.options[i].reason, sizeof in.options[i].reason,
                               "not chosen: %.32s was required", wish->attention);
    }
    prefix_refusals(&in);
    fill_choice(&in, found, &rows);
    free(in.options);
    if (choice) {
        rows.struct_size = sizeof rows;
        *choice = rows;
    }
    return code;
}
