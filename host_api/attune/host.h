/*
 * attune/host.h: what an application links (libattune): load plugins, choose a backend per request and see
 * why, run one attention, make one picture. examples/host.c does all of it in about 60 lines.
 *
 * Order of calls: attune_open → attune_load… → any number of requests, from any threads → attune_close.
 * Ownership: every `out` handle is the caller's until its release/close call; every struct is the caller's
 * memory; no pointer into a plugin is ever handed out. A handle keeps (leases) the plugin generation that
 * serves it. Structs: the caller sets `struct_size` in those that it passes in and in those that it wants
 * filled. Errors: each call returns an attune_code and fills `error` (may be NULL) with one line fit to show
 * a user.
 */
#ifndef ATTUNE_HOST_H
#define ATTUNE_HOST_H

#include "attune/device.h"
#include "attune/sampler.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attune attune;                   /* a host: pool, services, registry */
typedef struct attune_snapshot attune_snapshot; /* an immutable view of the registry */
typedef struct attune_binding attune_binding;   /* a chosen backend for one problem, leased */
typedef struct attune_model attune_model;       /* an open model, leased */
typedef struct attune_session attune_session;   /* one batch being made */
typedef struct attune_buffer attune_buffer;     /* memory of a device */

typedef struct attune_options {
    uint32_t struct_size;
    uint32_t threads;       /* 0 = the CPUs that this process is allowed */
    const char *plugin_dir; /* where the application's own manifest.json lies; NULL = libattune's compiled-in
                               folder */
    const char *vocabulary; /* folder with vocab.json and merges.txt for models without; NULL = none */
    void (*log)(void *context, int32_t level, const char *domain,
                const char *message); /* NULL = silent; [any]; must not call Attune */
    void *log_context;
} attune_options;

/* [any] Make a host; starts threads − 1 threads. `options` may be NULL. Errors: RESOURCE_EXHAUSTED. */
ATTUNE_EXPORT attune_code attune_open(const attune_options *options, attune **out, attune_error *error);
/* [main] Retire every plugin and stop the threads. All handles must be closed before; NULL is allowed. */
ATTUNE_EXPORT void attune_close(attune *host);

/* [any] Load every library of one manifest that fits this machine. A library that is refused stays in the
 * registry with the reason. Blocks (reads, hashes, dlopen). Errors: the manifest itself is bad, or it names
 * no library that loaded (the first refusal is the error). */
ATTUNE_EXPORT attune_code attune_load(attune *host, const char *manifest_path, attune_error *error);
/* [any] Search and load as docs/embed.md says: ATTUNE_PLUGIN_PATH, $XDG_DATA_HOME/attune/plugins.d,
 * $XDG_DATA_DIRS/…, options.plugin_dir. An id that is loaded already is skipped. Errors: NOT_FOUND where
 * nothing was found at all. */
ATTUNE_EXPORT attune_code attune_load_default(attune *host, attune_error *error);

/* ---- what is loaded ---- */

typedef struct attune_plugin_status {
    uint32_t struct_size;
    uint32_t abi;
    uint64_t generation; /* counts up with every load of the host */
    char id[64];
    char version[32];
    char vendor[64];
    char path[512];    /* of the library's file */
    char state[16];    /* "active", "refused"; of attune_generation_at also those below */
    char refused[320]; /* why, or "" */
    uint32_t devices;  /* counts for the calls below */
    uint32_t attention;
    uint32_t samplers;
    int32_t refused_code; /* OK where it is not refused; UNAVAILABLE: this machine lacks what it needs */
} attune_plugin_status;

/* [any] The registry as it is now. It stays so until released, and leases what it shows. Never blocks. */
ATTUNE_EXPORT attune_snapshot *attune_snapshot_acquire(attune *host);
ATTUNE_EXPORT void attune_snapshot_release(attune_snapshot *snapshot);
ATTUNE_EXPORT uint32_t attune_snapshot_count(const attune_snapshot *snapshot);
/* [any] Plugin i, and its j-th device, attention backend and sampler. Errors: OUT_OF_RANGE. */
ATTUNE_EXPORT attune_code attune_snapshot_plugin(const attune_snapshot *snapshot, uint32_t i,
                                                 attune_plugin_status *out, attune_error *error);
ATTUNE_EXPORT attune_code attune_snapshot_device(const attune_snapshot *snapshot, uint32_t i, uint32_t j,
                                                 attune_device_info *out, attune_error *error);
ATTUNE_EXPORT attune_code attune_snapshot_attention(const attune_snapshot *snapshot, uint32_t i, uint32_t j,
                                                    attune_attention_info *out, attune_error *error);
ATTUNE_EXPORT attune_code attune_snapshot_sampler(const attune_snapshot *snapshot, uint32_t i, uint32_t j,
                                                  attune_sampler_info *out, attune_error *error);
/* [any] The shared library for want of which plugin i's j-th attention backend serves nobody, "" = none;
 * NULL = no such backend. The text lives as long as the snapshot. */
ATTUNE_EXPORT const char *attune_snapshot_lacks(const attune_snapshot *snapshot, uint32_t i, uint32_t j);

/* ---- choosing a backend ---- */

/* What a request wants. Zeroed (but for struct_size) it is: automatic, the fastest, on the first device, no
 * limits. */
typedef struct attune_wish {
    uint32_t struct_size;
    int32_t determinism;   /* the lowest class that will do (ATTUNE_DETERMINISM_…) */
    const char *attention; /* backend name or alias; NULL = automatic */
    uint32_t required;     /* 1: that backend or an error, never a fallback */
    uint32_t threads;      /* of a session, at most the host's; 0 = the host's */
    const char *vendor;    /* hard filters; NULL or 0 = any */
    const char *device;
    uint64_t min_memory;   /* bytes of memory_total that the device must have */
    uint64_t memory_limit; /* bytes; 0 = any */
    attune_chunks chunks;  /* for sub-quadratic; 0 = its defaults */
    uint32_t swap;         /* of a session, when a plugin is swapped meanwhile: ATTUNE_SWAP_… */
    uint32_t reserved;
} attune_wish;

/* PIN: one generation of each plugin for the whole image. STEP: move to the new ones before the next
 * session_step, where they keep what the session's plan promised. */
enum { ATTUNE_SWAP_PIN = 0, ATTUNE_SWAP_STEP = 1 };

#define ATTUNE_MAX_CANDIDATES 32

typedef struct attune_candidate {
    char backend[32];
    char plugin[64];
    int32_t code;        /* OK = could serve */
    int32_t determinism; /* class kept for the problem, where it could serve */
    uint32_t chosen;     /* 1 for the one that serves */
    uint32_t reserved;
    uint64_t nanoseconds; /* estimate, where it could serve */
    char reason[192];     /* why not, or why chosen; never empty */
} attune_candidate;

typedef struct attune_choice {
    uint32_t struct_size;
    int32_t determinism; /* kept */
    char backend[32];
    char plugin[64];
    char version[32]; /* of the plugin */
    char arithmetic[32];
    char isa[32];
    uint64_t generation;
    uint64_t workspace;
    char fallback[256]; /* "asked xformers, got sdp because …", or "" */
    uint32_t candidates;
    uint32_t reserved;
    attune_candidate candidate[ATTUNE_MAX_CANDIDATES];
} attune_choice;

/* [any] A problem from views of the tensors: axes (batch, head, token, channel), mask broadcastable to (B,
 * Hq, Nq, Nk) or NULL. Everything else keeps its default: scale 0, not causal, class none, any budget, 1
 * worker. Errors: INVALID_ARGUMENT where the shapes, types or devices do not fit together, with both shapes.
 */
ATTUNE_EXPORT attune_code attune_attention_problem_init(attune_attention_problem *problem,
                                                        const attune_tensor *q, const attune_tensor *k,
                                                        const attune_tensor *v, const attune_tensor *mask,
                                                        const attune_tensor *out, attune_error *error);

/* [any] Name asked for → hard filters (device, vendor, memory, dtype, mask, determinism, budget) → cost →
 * priority → name. `choice` (may be NULL) is filled on failure too, with every candidate's reason. `binding`
 * (may be NULL: only ask). The wish's determinism, memory_limit and chunks are written over the problem's.
 * Errors: UNAVAILABLE no backend can serve (the message names the nearest reason, the hint who could have);
 * NOT_FOUND a required name that nobody offers. */
ATTUNE_EXPORT attune_code attune_choose(attune *host, const attune_wish *wish,
                                        const attune_attention_problem *problem, attune_choice *choice,
                                        attune_binding **binding, attune_error *error);
ATTUNE_EXPORT void attune_binding_release(attune_binding *binding);
/* [any] Run a binding; the tensors must have the problem's shapes and strides. With workspace NULL the host
 * provides it. */
ATTUNE_EXPORT attune_code attune_attend(attune_binding *binding, const attune_attention_args *args,
                                        const attune_stream *stream, const attune_control *control,
                                        attune_error *error);

/* [any] A stream for a device: on a CPU the host's pool with `threads` workers (0 = the host's). The caller
 * destroys it. */
ATTUNE_EXPORT attune_code attune_stream_create(attune *host, const attune_device_id *device, uint32_t threads,
                                               attune_stream *out, attune_error *error);
ATTUNE_EXPORT void attune_stream_destroy(attune_stream *stream);
/* [session] Enqueue a copy of `bytes`, `direction` as device.h's ATTUNE_COPY_…; both ends live until the
 * stream has passed it. On a CPU stream it is done on return. Errors: as device.h's copy. */
ATTUNE_EXPORT attune_code attune_stream_copy(const attune_stream *stream, void *to, const void *from,
                                             uint64_t bytes, int32_t direction, attune_error *error);
/* [session] Block until the stream's work is done; late errors surface here, named. */
ATTUNE_EXPORT attune_code attune_stream_synchronize(const attune_stream *stream, attune_error *error);
/* [any] Memory of a device, aligned as the device says, not cleared: `data` is its address there. The caller
 * releases it once no stream uses it. Errors: UNAVAILABLE no plugin drives the device; RESOURCE_EXHAUSTED. */
ATTUNE_EXPORT attune_code attune_buffer_create(attune *host, const attune_device_id *device, uint64_t bytes,
                                               attune_buffer **out, void **data, attune_error *error);
ATTUNE_EXPORT void attune_buffer_release(attune_buffer *buffer);
/* [any] The id of this machine's CPU as the loaded device plugin gives it. Errors: UNAVAILABLE no plugin
 * drives it. */
ATTUNE_EXPORT attune_code attune_cpu_device(attune *host, attune_device_id *out, attune_error *error);

/* ---- pictures ---- */

/* [any] Open a model with the first sampler that the wish's filters let through. Blocks. Errors: as
 * sampler.h's model_open; UNAVAILABLE where no sampler is loaded for the device. `control` may be NULL. */
ATTUNE_EXPORT attune_code attune_model_open(attune *host, const char *path, const attune_wish *wish,
                                            const attune_control *control, attune_model **out,
                                            attune_error *error);
/* [any] The same, with what concerns this model alone: `options` (may be NULL) with a vocabulary instead of
 * the host's and a configuration for a checkpoint in one file. Its texts are borrowed for the call. */
ATTUNE_EXPORT attune_code attune_model_open_with(attune *host, const char *path,
                                                 const attune_model_options *options, const attune_wish *wish,
                                                 const attune_control *control, attune_model **out,
                                                 attune_error *error);
ATTUNE_EXPORT attune_code attune_model_describe(attune_model *model, attune_model_info *out,
                                                attune_error *error);
/* The plugin that serves the model. */
ATTUNE_EXPORT attune_code attune_model_sampler(attune_model *model, attune_sampler_info *info,
                                               attune_plugin_status *plugin, attune_error *error);
ATTUNE_EXPORT void attune_model_close(attune_model *model);

/* [any] Begin one batch: binds each attention problem by the wish, checks classes and memory. The larger of
 * request.determinism and wish.determinism is asked of every part. `choice` (may be NULL) is filled with that
 * of the problem with the most arithmetic, or on failure with the one that could not be made (candidates 0
 * where the failure was another). Blocks while weights are made ready; `control` may be NULL. Errors: as
 * session_begin's and attune_choose's. */
ATTUNE_EXPORT attune_code attune_session_open(attune_model *model, const attune_request *request,
                                              const attune_wish *wish, const attune_control *control,
                                              attune_session **out, attune_session_plan *plan,
                                              attune_choice *choice, attune_error *error);
/* As sampler.h's session_step, session_preview, session_image; [session]. */
ATTUNE_EXPORT attune_code attune_session_step(attune_session *session, const attune_control *control,
                                              attune_progress *progress, attune_error *error);
ATTUNE_EXPORT attune_code attune_session_preview(attune_session *session, uint32_t index,
                                                 const attune_control *control, attune_image *image,
                                                 attune_error *error);
ATTUNE_EXPORT attune_code attune_session_image(attune_session *session, uint32_t index, attune_image *image,
                                               attune_error *error);
ATTUNE_EXPORT void attune_session_close(attune_session *session);

/* What served each attention problem of a session, the one with the most arithmetic first; then what served
 * before the session moved to other generations, the latest first. */
typedef struct attune_attention_record {
    uint32_t struct_size;
    uint32_t first_unit; /* session_step calls done before it served */
    uint64_t calls;      /* so far */
    attune_attention_problem problem;
    attune_choice choice;
} attune_attention_record;
/* [session] Record i. Errors: OUT_OF_RANGE ends the list. */
ATTUNE_EXPORT attune_code attune_session_attention(attune_session *session, uint32_t i,
                                                   attune_attention_record *out, attune_error *error);

/* How swaps have touched a session. */
typedef struct attune_session_moves {
    uint32_t struct_size;
    uint32_t moves;       /* times that it moved to other generations */
    uint32_t generations; /* different ones that have served attention: above 1 = "mixed generations" */
    uint32_t reserved;
    char stayed[256]; /* why the latest swap was not followed, or "" */
} attune_session_moves;
/* [session] */
ATTUNE_EXPORT attune_code attune_session_moved(attune_session *session, attune_session_moves *out,
                                               attune_error *error);

/* ---- hot swap ---- */

/* What came of a swap. */
typedef struct attune_swap_report {
    uint32_t struct_size;
    uint32_t swapped;   /* libraries that took another generation's place */
    uint32_t added;     /* whose id was new */
    uint32_t unchanged; /* whose bytes serve already */
    uint32_t refused;
    uint32_t reserved;
    uint64_t generation;  /* the last that was published; 0 = none */
    uint64_t replaced;    /* the one whose place it took; 0 = none */
    uint64_t nanoseconds; /* from the call to the last publication */
    char plugin[64];      /* the last that was published, or of the first refusal */
    char version[32];
    char stage[16]; /* of the first refusal: "read", "check", "libraries", "probe", "load",
                       "negotiate", "create", "tables", "self-test", "publish"; "" = none */
} attune_swap_report;

/*
 * [any, not from inside a callback] Bring what a manifest names into service while requests run. Each library
 * whose bytes differ from those that serve under its id, or of which a backend lacked a shared library that
 * is there now, goes through: private copy and its checks → a look for the shared libraries that it needs → a
 * probe of its constructors in a child process → dlopen of the copy → negotiation → create → tables → known
 * answers → publication. From then on requests choose it; the old generation ends with its last lease.
 * Whatever fails leaves the old one serving, and is the error. Swaps run one after another. Blocks; `report`
 * may be NULL. Errors: FAILED_PRECONDITION (from inside a callback, or a check), RESOURCE_EXHAUSTED (too many
 * parked generations, memory), CANCELLED (the host is closing), else those of attune_load.
 */
ATTUNE_EXPORT attune_code attune_swap(attune *host, const char *manifest_path, attune_swap_report *report,
                                      attune_error *error);

/* A generation, in service or not. */
typedef struct attune_generation_info {
    uint32_t struct_size;
    uint32_t leases;
    attune_plugin_status plugin; /* state: "staged", "active", "refused", "retired" (leases are left), "stuck"
                                    (quiesce has not come back), "parked" (ended, its code still mapped) */
    char unload_risk[96];        /* why its code stays mapped, where a scan found a reason; or "" */
} attune_generation_info;
/* [any] Generation i of those that still take memory, the newest first. Errors: OUT_OF_RANGE ends the list.
 */
ATTUNE_EXPORT attune_code attune_generation_at(attune *host, uint32_t i, attune_generation_info *out,
                                               attune_error *error);

typedef struct attune_watch attune_watch; /* of the plugin folders */

/* [any] Watch the folders of what is loaded and those of the search (inotify). The caller closes it, before
 * the host. Errors: RESOURCE_EXHAUSTED, UNAVAILABLE. */
ATTUNE_EXPORT attune_code attune_watch_open(attune *host, attune_watch **out, attune_error *error);
/*
 * [one thread at a time] Wait at most `milliseconds` for a change in the folders and do what attune_swap does
 * with each manifest that changed, once the hashes in it match: what is still being copied is waited for.
 * Changes are taken together until 50 ms pass without one, but no longer than 500 ms. Returns OK and a report
 * when something came of it; DEADLINE_EXCEEDED when nothing did; else why the old generations serve on (each
 * reason once).
 */
ATTUNE_EXPORT attune_code attune_watch_wait(attune_watch *watch, uint32_t milliseconds,
                                            attune_swap_report *report, attune_error *error);
ATTUNE_EXPORT void attune_watch_close(attune_watch *watch);

/* ---- memory ---- */

typedef struct attune_memory_usage {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t current; /* bytes that plugins hold through the memory service now */
    uint64_t peak;    /* the most so far */
} attune_memory_usage;
/* [any] Of one plugin id, or of all with NULL. */
ATTUNE_EXPORT attune_code attune_memory(attune *host, const char *plugin, attune_memory_usage *out,
                                        attune_error *error);

#ifdef __cplusplus
}
#endif
#endif
