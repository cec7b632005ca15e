/*
 * flow.c: what is known of a kernel before it runs: where diverged lanes meet again (immediate
 * post-dominators, as hardware's reconvergence points), which reads may see a register that was never
 * written, and a place in the register file for each register, shared where lifetimes allow so that a warp's
 * file stays in the CPU's caches. Post-dominators: Cooper, Harvey, Kennedy, "A simple, fast dominance
 * algorithm", 2001, on the reversed graph.
 */
#include "tests/cuda_emulator/ptx.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct block {
    int first, last; /* instructions [first, last) */
    int next[2];     /* successors; `exit` for the end, -1 for none */
    int post;        /* immediate post-dominator */
    int order;       /* in the reversed graph's postorder */
} block;

typedef struct flow {
    ptx_kernel *k;
    block *blocks;
    int count, exit; /* blocks[exit] is the virtual end */
    int *of;         /* block of an instruction */
    int *preds, *pred_start;
    size_t words;
    uint64_t *sets; /* one bit set per block and use */
} flow;

static bool ends_block(const ptx_instruction *i) {
    return i->op == OP_BRA || i->op == OP_EXIT;
}

static bool make_blocks(flow *f) {
    const int n = (int)f->k->length;
    unsigned char *leader = calloc((size_t)n + 1, 1);
    f->of = calloc((size_t)n + 1, sizeof *f->of);
    if (!leader || !f->of) {
        free(leader);
        return false;
    }
    leader[0] = 1;
    for (int i = 0; i < n; ++i) {
        if (f->k->code[i].op == OP_BRA)
            leader[f->k->code[i].target] = 1;
        if (ends_block(&f->k->code[i]))
            leader[i + 1] = 1;
    }
    for (int i = 0; i < n; ++i)
        f->count += leader[i];
    f->exit = f->count;
    f->blocks = calloc((size_t)f->count + 1, sizeof *f->blocks);
    if (!f->blocks) {
        free(leader);
        return false;
    }
    int b = -1;
    for (int i = 0; i < n; ++i) {
        if (leader[i])
            f->blocks[++b].first = i;
        f->blocks[b].last = i + 1;
        f->of[i] = b;
    }
    free(leader);
    for (b = 0; b <= f->count; ++b) {
        block *made = &f->blocks[b];
        made->next[0] = made->next[1] = -1;
        if (b == f->exit)
            break;
        const ptx_instruction *last = &f->k->code[made->last - 1];
        const int after = made->last < n ? f->of[made->last] : f->exit;
        const bool guarded = last->guard != NO_REGISTER;
        if (last->op == OP_BRA || last->op == OP_EXIT) {
            made->next[0] = last->op == OP_EXIT ? f->exit : f->of[last->target];
            made->next[1] = guarded ? after : -1;
        } else {
            made->next[0] = after;
        }
    }
    return true;
}

static bool make_predecessors(flow *f) {
    const int n = f->count + 1;
    f->pred_start = calloc((size_t)n + 1, sizeof *f->pred_start);
    f->preds = calloc((size_t)n * 2, sizeof *f->preds);
    if (!f->pred_start || !f->preds)
        return false;
    for (int b = 0; b < f->count; ++b)
        for (int s = 0; s < 2; ++s)
            if (f->blocks[b].next[s] >= 0)
                ++f->pred_start[f->blocks[b].next[s] + 1];
    for (int b = 0; b < n; ++b)
        f->pred_start[b + 1] += f->pred_start[b];
    int *fill = calloc((size_t)n, sizeof *fill);
    if (!fill)
        return false;
    for (int b = 0; b < f->count; ++b)
        for (int s = 0; s < 2; ++s) {
            const int to = f->blocks[b].next[s];
            if (to >= 0)
                f->preds[f->pred_start[to] + fill[to]++] = b;
        }
    free(fill);
    return true;
}

static int intersect(const flow *f, int a, int b) {
    while (a != b) {
        while (f->blocks[a].order < f->blocks[b].order)
            a = f->blocks[a].post;
        while (f->blocks[b].order < f->blocks[a].order)
            b = f->blocks[b].post;
    }
    return a;
}

static bool post_dominators(flow *f) {
    const int n = f->count + 1;
    int *stack = calloc((size_t)n, sizeof *stack), *at = calloc((size_t)n, sizeof *at),
        *sorted = calloc((size_t)n, sizeof *sorted);
    int depth = 0, done = 0;
    const bool ok = stack && at && sorted;
    if (ok) {
        for (int b = 0; b < n; ++b)
            f->blocks[b].order = f->blocks[b].post = -1;
        stack[depth++] = f->exit;
        f->blocks[f->exit].order = -2; /* seen */
        while (depth) {
            const int b = stack[depth - 1];
            if (at[b] < f->pred_start[b + 1] - f->pred_start[b]) {
                const int from = f->preds[f->pred_start[b] + at[b]++];
                if (f->blocks[from].order == -1) {
                    f->blocks[from].order = -2;
                    stack[depth++] = from;
                }
            } else {
                f->blocks[b].order = done;
                sorted[done++] = b;
                --depth;
            }
        }
        f->blocks[f->exit].post = f->exit;
        for (bool changed = true; changed;) {
            changed = false;
            for (int s = done - 2; s >= 0; --s) { /* reverse postorder; the last is the exit */
                block *b = &f->blocks[sorted[s]];
                int found = -1;
                for (int e = 0; e < 2; ++e)
                    if (b->next[e] >= 0 && f->blocks[b->next[e]].post >= 0)
                        found = found < 0 ? b->next[e] : intersect(f, found, b->next[e]);
                if (found != b->post) {
                    b->post = found;
                    changed = true;
                }
            }
        }
    }
    free(stack);
    free(at);
    free(sorted);
    return ok;
}

static void set_rejoins(flow *f) {
    for (int b = 0; b < f->count; ++b) {
        ptx_instruction *last = &f->k->code[f->blocks[b].last - 1];
        const int post = f->blocks[b].post;
        if (last->op == OP_BRA)
            last->rejoin = post < 0 || post == f->exit ? -1 : f->blocks[post].first;
    }
}

/* ---- sets of registers ---- */

static uint64_t *set_of(const flow *f, int use, int b) {
    return f->sets + ((size_t)use * (size_t)(f->count + 1) + (size_t)b) * f->words;
}

static bool has(const uint64_t *set, uint32_t reg) {
    return set[reg / 64] >> (reg % 64) & 1;
}

static void add(uint64_t *set, uint32_t reg) {
    set[reg / 64] |= 1ull << (reg % 64);
}

static void drop(uint64_t *set, uint32_t reg) {
    set[reg / 64] &= ~(1ull << (reg % 64));
}

static bool variable(const flow *f, uint32_t reg) {
    return f->k->registers[reg].kind <= KIND_64;
}

/* Forward: which registers are surely written at a block's beginning. Every use that is not sure is checked
 * as it runs. */
static void mark_undefined(flow *f, uint64_t *now) {
    for (int b = 0; b < f->count; ++b)
        memset(set_of(f, 0, b), b == 0 ? 0 : 0xff, f->words * 8);
    for (bool changed = true; changed;) {
        changed = false;
        for (int b = 0; b < f->count; ++b) {
            memcpy(now, set_of(f, 0, b), f->words * 8);
            for (int i = f->blocks[b].first; i < f->blocks[b].last; ++i) {
                const ptx_instruction *in = &f->k->code[i];
                if (in->guard == NO_REGISTER)
                    for (int w = 0; w < in->writes; ++w)
                        add(now, in->r[w]);
            }
            for (int s = 0; s < 2; ++s) {
                const int to = f->blocks[b].next[s];
                if (to < 0 || to == f->exit)
                    continue;
                uint64_t *there = set_of(f, 0, to);
                for (size_t w = 0; w < f->words; ++w) {
                    const uint64_t both = there[w] & now[w];
                    changed |= both != there[w];
                    there[w] = both;
                }
            }
        }
    }
    for (int b = 0; b < f->count; ++b) {
        memcpy(now, set_of(f, 0, b), f->words * 8);
        for (int i = f->blocks[b].first; i < f->blocks[b].last; ++i) {
            ptx_instruction *in = &f->k->code[i];
            for (int r = in->writes; r < in->writes + in->reads; ++r)
                if (variable(f, in->r[r]) && !has(now, in->r[r])) {
                    in->flags |= CHECK_READS;
                    f->k->registers[in->r[r]].tracked = true;
                }
            if (in->guard != NO_REGISTER && !has(now, in->guard)) {
                in->flags |= CHECK_READS;
                f->k->registers[in->guard].tracked = true;
            }
            if (in->guard == NO_REGISTER)
                for (int w = 0; w < in->writes; ++w)
                    add(now, in->r[w]);
        }
    }
    for (size_t i = 0; i < f->k->length; ++i)
        for (int w = 0; w < f->k->code[i].writes; ++w)
            if (f->k->registers[f->k->code[i].r[w]].tracked)
                f->k->code[i].flags |= TRACK_WRITES;
}

/* One instruction backwards through a set of live registers. */
static void step_back(const flow *f, const ptx_instruction *in, uint64_t *live) {
    if (in->guard == NO_REGISTER)
        for (int w = 0; w < in->writes; ++w)
            drop(live, in->r[w]);
    for (int r = in->writes; r < in->writes + in->reads; ++r)
        if (variable(f, in->r[r]))
            add(live, in->r[r]);
    if (in->guard != NO_REGISTER)
        add(live, in->guard);
}

/* Backward: use 1 holds what is live at a block's end. */
static void live_registers(flow *f, uint64_t *now) {
    for (bool changed = true; changed;) {
        changed = false;
        for (int b = f->count; b-- > 0;) {
            memcpy(now, set_of(f, 1, b), f->words * 8);
            for (int i = f->blocks[b].last; i-- > f->blocks[b].first;)
                step_back(f, &f->k->code[i], now);
            for (int e = f->pred_start[b]; e < f->pred_start[b + 1]; ++e) {
                uint64_t *there = set_of(f, 1, f->preds[e]);
                for (size_t w = 0; w < f->words; ++w) {
                    changed |= (now[w] & ~there[w]) != 0;
                    there[w] |= now[w];
                }
            }
        }
    }
}

/* ---- places: linear scan over lifetimes in the order of the text (Poletto and Sarkar, 1999) ---- */

typedef struct lifetime {
    int begin, end;
    uint32_t reg;
} lifetime;

static int by_begin(const void *a, const void *b) {
    const lifetime *x = a, *y = b;
    return x->begin != y->begin ? (x->begin < y->begin ? -1 : 1) : x->reg < y->reg ? -1 : x->reg > y->reg;
}

static void stretch(lifetime *l, int at) {
    if (l->begin < 0 || at < l->begin)
        l->begin = at;
    if (at > l->end)
        l->end = at;
}

static void find_lifetimes(const flow *f, lifetime *lives) {
    for (size_t r = 0; r < f->k->register_count; ++r)
        lives[r] = (lifetime){-1, -1, (uint32_t)r};
    for (size_t i = 0; i < f->k->length; ++i) {
        const ptx_instruction *in = &f->k->code[i];
        for (int r = 0; r < in->writes + in->reads; ++r)
            stretch(&lives[in->r[r]], (int)i);
        if (in->guard != NO_REGISTER)
            stretch(&lives[in->guard], (int)i);
    }
    for (int b = 0; b < f->count; ++b)
        for (uint32_t r = 0; r < f->k->register_count; ++r) {
            if (variable(f, r) &&
                has(set_of(f, 1, b), r)) { /* live at the end: to the next block's begin at least */
                stretch(&lives[r], f->blocks[b].last - 1);
                for (int s = 0; s < 2; ++s)
                    if (f->blocks[b].next[s] >= 0 && f->blocks[b].next[s] != f->exit)
                        stretch(&lives[r], f->blocks[f->blocks[b].next[s]].first);
            }
        }
}

typedef struct places {
    int *free_lines[2]; /* stacks of free places of one and of two lines */
    int free_count[2];
    uint32_t lines;
} places;

static uint32_t take(places *p, int wide) {
    if (p->free_count[wide])
        return (uint32_t)p->free_lines[wide][--p->free_count[wide]];
    const uint32_t at = p->lines;
    p->lines += wide ? 2 : 1;
    return at;
}

static bool give_places(flow *f) {
    ptx_kernel *k = f->k;
    const size_t n = k->register_count;
    lifetime *lives = calloc(n + 1, sizeof *lives);
    lifetime *active = calloc(n + 1, sizeof *active);
    places p = {{calloc(n + 1, sizeof(int)), calloc(n + 1, sizeof(int))}, {0, 0}, 0};
    const bool ok = lives && active && p.free_lines[0] && p.free_lines[1];
    if (ok) {
        find_lifetimes(f, lives);
        qsort(lives, n, sizeof *lives, by_begin);
        size_t active_count = 0;
        for (size_t l = 0; l < n; ++l) {
            ptx_register *r = &k->registers[lives[l].reg];
            const bool fixed = r->kind > KIND_64 || r->tracked;
            const int wide = r->kind == KIND_64 || r->kind == KIND_CONSTANT_64;
            if (lives[l].begin < 0 && r->kind != KIND_SPECIAL)
                continue; /* never used */
            size_t kept = 0;
            for (size_t a = 0; a < active_count; ++a) {
                const ptx_register *old = &k->registers[active[a].reg];
                if (active[a].end <
                    lives[l].begin) /* strictly: an instruction's results never overlay its sources */
                    p.free_lines[old->kind == KIND_64][p.free_count[old->kind == KIND_64]++] = old->place;
                else
                    active[kept++] = active[a];
            }
            active_count = kept;
            uint32_t at;
            if (fixed) {
                at = p.lines;
                p.lines += wide ? 2 : 1;
            } else {
                at = take(&p, wide);
                active[active_count++] = lives[l];
            }
            r->place = (uint16_t)at;
        }
        k->lines = p.lines;
    }
    free(lives);
    free(active);
    free(p.free_lines[0]);
    free(p.free_lines[1]);
    return ok && k->lines < NO_REGISTER;
}

static void rename_operands(ptx_kernel *k) {
    for (size_t i = 0; i < k->length; ++i) {
        ptx_instruction *in = &k->code[i];
        for (int r = 0; r < in->writes + in->reads; ++r)
            in->r[r] = k->registers[in->r[r]].place;
        if (in->guard != NO_REGISTER)
            in->guard = k->registers[in->guard].place;
    }
    for (int s = 0; s < SPECIAL_COUNT; ++s)
        k->special[s] = NO_REGISTER;
    for (size_t r = 0; r < k->register_count; ++r)
        if (k->registers[r].kind == KIND_SPECIAL)
            k->special[k->registers[r].value] = k->registers[r].place;
}

bool ptx_finish(ptx_kernel *k, char *error, size_t error_size) {
    if (k->finished)
        return true;
    flow f = {.k = k, .words = (k->register_count + 63) / 64};
    uint64_t *now = calloc(f.words + 1, 8);
    bool ok = now && make_blocks(&f) && make_predecessors(&f) && post_dominators(&f);
    if (ok) {
        f.sets = calloc(2 * (size_t)(f.count + 1) * f.words + 1, 8);
        ok = f.sets != NULL;
    }
    if (ok) {
        set_rejoins(&f);
        mark_undefined(&f, now);
        live_registers(&f, now);
        ok = give_places(&f);
    }
    k->finished = ok;
    if (ok)
        rename_operands(k);
    else
        snprintf(error, error_size, "out of memory, or too many registers");
    free(now);
    free(f.blocks);
    free(f.of);
    free(f.preds);
    free(f.pred_start);
    free(f.sets);
    return ok;
}
