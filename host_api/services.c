/* services.c: counted memory, log, parallel_for and clock, as plugin.h specifies them. */
#include "services.h"
#include "structs.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

/* In front of every block, as large as the alignment that the service promises. */
typedef struct block {
    uint64_t bytes;
    uint64_t tag;
    uint64_t padding[6];
} block;
_Static_assert(sizeof(block) == 64, "keeps the memory behind it aligned to 64");

void attune_log(const attune_logger *logger, int32_t level, const char *domain, const char *format, ...) {
    if (!logger->log)
        return;
    char line[1024];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(line, sizeof line, format, list);
    va_end(list);
    ++attune_inside;
    logger->log(logger->context, level, domain, line);
    --attune_inside;
}

static void account_add(attune_account *account, uint64_t bytes) {
    for (; account; account = account->parent) {
        uint64_t current = atomic_fetch_add_explicit(&account->current, bytes, memory_order_relaxed) + bytes;
        uint64_t peak = atomic_load_explicit(&account->peak, memory_order_relaxed);
        while (peak < current &&
               !atomic_compare_exchange_weak_explicit(&account->peak, &peak, current, memory_order_relaxed,
                                                      memory_order_relaxed))
            continue;
    }
}

static void account_remove(attune_account *account, uint64_t bytes) {
    for (; account; account = account->parent)
        (void)atomic_fetch_sub_explicit(&account->current, bytes, memory_order_relaxed);
}

/* Find or claim the tag's row. Tags are static text, so their pointers may be kept while the library is
 * mapped. */
static uint64_t tag_row(attune_services *services, const char *tag) {
    for (uint64_t i = 0; i + 1 < ATTUNE_MAX_TAGS; ++i) {
        const char *known = atomic_load_explicit(&services->tags[i].tag, memory_order_acquire);
        if (!known && atomic_compare_exchange_strong_explicit(&services->tags[i].tag, &known, tag,
                                                              memory_order_acq_rel, memory_order_acquire))
            return i;
        if (known == tag || strcmp(known, tag) == 0)
            return i;
    }
    return ATTUNE_MAX_TAGS - 1;
}

/* Huge pages, where the kernel has some: memory for activations is read across many pages at once. What is
 * smaller may not fill them, and is worth less than making room for them costs. A refusal changes nothing. */
static void *allocate(size_t total) {
    enum { HUGE_PAGE = 2 << 20, HUGE_FROM = 32 << 20 };
    if (total < HUGE_FROM)
        return aligned_alloc(64, total);
    void *memory = aligned_alloc(HUGE_PAGE, total);
    if (memory)
        (void)madvise(memory, total / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    return memory;
}

void *attune_services_alloc(void *context, uint64_t bytes, const char *tag) {
    attune_services *services = context;
    if (bytes > SIZE_MAX / 2)
        return NULL;
    size_t total = sizeof(block) + (((size_t)bytes + 63) & ~(size_t)63);
    block *head = allocate(total);
    if (!head)
        return NULL;
    head->bytes = bytes;
    head->tag = tag_row(services, tag ? tag : "untagged");
    account_add(&services->account, bytes);
    (void)atomic_fetch_add_explicit(&services->tags[head->tag].current, bytes, memory_order_relaxed);
    return head + 1;
}

void attune_services_free(void *context, void *memory) {
    attune_services *services = context;
    if (!memory)
        return;
    block *head = (block *)memory - 1;
    account_remove(&services->account, head->bytes);
    (void)atomic_fetch_sub_explicit(&services->tags[head->tag].current, head->bytes, memory_order_relaxed);
    free(head);
}

uint64_t attune_services_now(void *context) {
    (void)context;
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void log_line(void *context, int32_t level, const char *message) {
    const attune_services *services = context;
    if (services->logger->log && message)
        services->logger->log(services->logger->context, level, services->id, message);
}

static const void *get_service(const attune_host *host, const char *id) {
    const attune_services *services = host->context;
    if (strcmp(id, "attune.memory/1") == 0)
        return &services->memory;
    if (strcmp(id, "attune.log/1") == 0)
        return &services->log;
    if (strcmp(id, "attune.parallel/1") == 0)
        return &services->parallel;
    return strcmp(id, "attune.clock/1") == 0 ? &services->clock : NULL;
}

void attune_services_init(attune_services *services, const char *id, uint32_t abi, attune_pool *pool,
                          const attune_logger *logger, attune_account *total) {
    memset(services, 0, sizeof *services);
    attune_text_copy(services->id, sizeof services->id, id);
    services->logger = logger;
    services->account.parent = total;
    services->tags[ATTUNE_MAX_TAGS - 1].tag = "other";
    services->memory = (attune_memory_service){sizeof services->memory, 0, attune_services_alloc,
                                               attune_services_free, services};
    services->log = (attune_log_service){sizeof services->log, 0, log_line, services};
    services->parallel = (attune_parallel_service){sizeof services->parallel, 0, attune_pool_run, pool};
    services->clock = (attune_clock_service){sizeof services->clock, 0, attune_services_now, services};
    services->host = (attune_host){sizeof services->host, abi, services, get_service};
}

void attune_services_report_leaks(const attune_services *services) {
    for (int i = 0; i < ATTUNE_MAX_TAGS; ++i) {
        uint64_t bytes = atomic_load_explicit(&services->tags[i].current, memory_order_relaxed);
        if (bytes)
            attune_log(services->logger, ATTUNE_LOG_WARNING, services->id,
                       "%llu bytes tagged \"%s\" were not freed by destroy", (unsigned long long)bytes,
                       services->tags[i].tag);
    }
}
