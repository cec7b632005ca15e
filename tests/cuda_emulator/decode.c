/*
 * decode.c: a mnemonic with its operands to one instruction. Elementwise opcodes come from ops.h; the others
 * are decoded here by name, modifier by modifier, and a modifier that is not known is refused (PTX ISA 9.0,
 * section 9.7).
 */
#include "tests/cuda_emulator/modes.h"
#include "tests/cuda_emulator/parse.h"

#include <stdio.h>
#include <string.h>

/* ---- elementwise ---- */

enum {
    T_u16 = TYPE_U16,
    T_s16 = TYPE_S16,
    T_u32 = TYPE_U32,
    T_s32 = TYPE_S32,
    T_u64 = TYPE_U64,
    T_s64 = TYPE_S64,
    T_f32 = TYPE_F32,
    T_f64 = TYPE_F64
};

static const struct row {
    const char *mnemonic;
    uint16_t op;
    uint8_t types[4]; /* result, sources */
    uint8_t sources;
} rows[] = {
#define UNARY(name, D, A, expression)         {name, __LINE__, {T_##D, T_##A}, 1},
#define BINARY(name, D, A, B, expression)     {name, __LINE__, {T_##D, T_##A, T_##B}, 2},
#define TERNARY(name, D, A, B, C, expression) {name, __LINE__, {T_##D, T_##A, T_##B, T_##C}, 3},
#define SELECT(name, D)                       {name, __LINE__, {T_##D, T_##D, T_##D, TYPE_PRED}, 3},
#define PREDICATE(name, expression)           {name, __LINE__, {TYPE_PRED, TYPE_PRED, TYPE_PRED}, 0},
#include "tests/cuda_emulator/ops.h"
#undef UNARY
#undef BINARY
#undef TERNARY
#undef SELECT
#undef PREDICATE
};

static bool wide_register(const parser *p, uint32_t reg) {
    const uint8_t kind = p->kernel->registers[reg].kind;
    return kind == KIND_64 || kind == KIND_CONSTANT_64;
}

static uint64_t immediate(parser *p, uint64_t value, char floating, enum ptx_type type) {
    const bool wide = parse_type_size(type) == 8;
    if (floating == 'd' && !wide) {
        double exact;
        memcpy(&exact, &value, 8);
        const float rounded = (float)exact;
        uint32_t bits;
        memcpy(&bits, &rounded, 4);
        return bits;
    }
    if (floating == 'f' && wide)
        parse_fail(p, "a 32-bit float where 64 bits are expected");
    return value;
}

/* The register that holds a source of this type; constants get one. */
static uint32_t source(parser *p, const operand *o, enum ptx_type type) {
    const bool wide = parse_type_size(type) == 8;
    uint32_t reg = o->reg;
    if (o->kind == OPERAND_IMMEDIATE && type == TYPE_PRED) /* a mask of all lanes or none */
        return parse_constant(p, o->value ? UINT32_MAX : 0, false);
    if (o->kind == OPERAND_IMMEDIATE)
        return parse_constant(p, immediate(p, o->value, o->floating, type), wide);
    if (o->kind == OPERAND_WORD && strcmp(o->word, "WARP_SZ") == 0)
        return parse_constant(p, LANES, wide);
    if (o->kind == OPERAND_SYMBOL && !o->symbol->dynamic)
        return parse_constant(p, o->value, wide);
    if (o->kind == OPERAND_SYMBOL)
        reg = wide ? o->pair : o->reg;
    else if (o->kind != OPERAND_REGISTER)
        parse_fail(p, "'%s' is not declared, or no register", o->word);
    if (o->negated)
        parse_fail(p, "a negated predicate here is not emulated");
    if (wide_register(p, reg) != wide ||
        (p->kernel->registers[reg].kind == KIND_PREDICATE) != (type == TYPE_PRED))
        parse_fail(p, "a register's width does not fit the opcode");
    return reg;
}

static uint32_t destination(parser *p, const operand *o, enum ptx_type type) {
    const bool wide = parse_type_size(type) == 8;
    const enum ptx_kind kind = type == TYPE_PRED ? KIND_PREDICATE : wide ? KIND_64 : KIND_32;
    if (o->kind == OPERAND_SINK)
        return parse_new_register(p, kind);
    if (o->kind != OPERAND_REGISTER || p->kernel->registers[o->reg].kind != kind)
        parse_fail(p, "a result's register does not fit the opcode");
    return o->reg;
}

typedef struct context {
    parser *p;
    const char *name; /* whole mnemonic */
    char *next;       /* modifiers that are left */
    operand *o;
    int count;
    ptx_instruction *i;
} context;

static void write_to(context *c, uint32_t reg) {
    c->i->r[c->i->writes++] = (uint16_t)reg;
}

/* Sources are added after all results. */
static void read_from(context *c, uint32_t reg) {
    if (c->i->writes + c->i->reads == MAX_OPERANDS)
        parse_fail(c->p, "too many operands of %s", c->name);
    c->i->r[c->i->writes + c->i->reads++] = (uint16_t)reg;
}

static void need(context *c, int low, int high) {
    if (c->count < low || c->count > high)
        parse_fail(c->p, "%s has %d operands", c->name, c->count);
}

static _Noreturn void unknown(context *c) {
    parse_fail(c->p, "%s is not emulated", c->name);
}

/* The next modifier, or NULL. "::" does not end one. */
static char *modifier(context *c) {
    if (!c->next)
        return NULL;
    char *made = c->next, *dot = strchr(made, '.');
    if (dot)
        *dot++ = 0;
    c->next = dot;
    return made;
}

static bool accept_modifier(context *c, const char *name) {
    const size_t n = strlen(name);
    if (!c->next || strncmp(c->next, name, n) != 0 || (c->next[n] && c->next[n] != '.'))
        return false;
    modifier(c);
    return true;
}

static int which(const char *name, const char *const *names) {
    for (int i = 0; name && names[i]; ++i)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

static bool decode_row(context *c, const char *mnemonic) {
    const size_t n = sizeof rows / sizeof *rows;
    size_t k = 0;
    while (k < n && strcmp(rows[k].mnemonic, mnemonic) != 0)
        ++k;
    if (k == n)
        return false;
    const struct row *row = &rows[k];
    const int sources = row->sources ? row->sources : c->count - 1;
    need(c, sources + 1, sources + 1);
    c->i->op = row->op;
    write_to(c, destination(c->p, &c->o[0], (enum ptx_type)row->types[0]));
    for (int s = 1; s <= sources; ++s)
        read_from(c, source(c->p, &c->o[s], (enum ptx_type)row->types[row->sources ? s : 1]));
    return true;
}

/* ---- comparisons: setp.CMP[.BOOL][.ftz].TYPE p[|q], a, b[, [!]c] (9.7.7.3) ---- */

static void decode_setp(context *c) {
    static const char *const comparisons[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "lo",
                                              "ls",  "hi",  "hs",  "equ", "neu", "ltu", "leu",
                                              "gtu", "geu", "num", "nan", NULL};
    static const char *const bools[] = {"and", "or", "xor", NULL};
    static const uint8_t unsigned_names[] = {COMPARE_LT, COMPARE_LE, COMPARE_GT, COMPARE_GE};
    const int comparison = which(modifier(c), comparisons);
    if (comparison < 0)
        unknown(c);
    c->i->op = OP_SETP;
    c->i->mode = comparison >= 10  ? (uint8_t)(comparison - 4)
                 : comparison >= 6 ? unsigned_names[comparison - 6]
                                   : (uint8_t)comparison;
    char *word = modifier(c);
    const int joined = which(word, bools);
    if (joined >= 0) {
        c->i->mode2 = (uint8_t)(joined + 1);
        word = modifier(c);
    }
    if (word && strcmp(word, "ftz") == 0) {
        c->i->count = 1;
        word = modifier(c);
    }
    const enum ptx_type type = word ? parse_type(word) : TYPE_NONE;
    if (type == TYPE_NONE || type == TYPE_F16X2 || type == TYPE_BF16X2 || parse_type_size(type) < 2)
        unknown(c);
    need(c, joined >= 0 ? 4 : 3, joined >= 0 ? 4 : 3);
    c->i->type = (uint8_t)type;
    write_to(c, destination(c->p, &c->o[0], TYPE_PRED));
    if (c->o[0].pair != NO_REGISTER)
        write_to(c, c->o[0].pair);
    read_from(c, source(c->p, &c->o[1], type));
    read_from(c, source(c->p, &c->o[2], type));
    if (joined >= 0) {
        if (c->o[3].negated)
            c->i->mode2 |= SETP_NOT;
        c->o[3].negated = false;
        read_from(c, source(c->p, &c->o[3], TYPE_PRED));
    }
}

/* ---- moves of parts: mov.b32 d, {a, b} and mov.b32 {d, e}, a (9.7.9.3) ---- */

static uint32_t element_source(context *c, const operand *o, int k, enum ptx_type type) {
    operand one = {.kind = o->element[k].kind,
                   .reg = o->element[k].reg,
                   .value = o->element[k].value,
                   .floating = o->element[k].floating,
                   .pair = NO_REGISTER};
    return source(c->p, &one, type);
}

static uint32_t element_destination(context *c, const operand *o, int k, enum ptx_type type) {
    const operand one = {.kind = o->element[k].kind, .reg = o->element[k].reg};
    return destination(c->p, &one, type);
}

static bool decode_parts(context *c, const char *mnemonic) {
    if (strncmp(mnemonic, "mov.", 4) != 0 || c->count != 2 ||
        (c->o[0].kind != OPERAND_VECTOR && c->o[1].kind != OPERAND_VECTOR))
        return false;
    const enum ptx_type whole = parse_type(mnemonic + 4);
    const operand *vector = c->o[0].kind == OPERAND_VECTOR ? &c->o[0] : &c->o[1];
    const int part_size = whole == TYPE_NONE || !vector->count ? 0 : parse_type_size(whole) / vector->count;
    const enum ptx_type part = part_size == 2 ? TYPE_B16 : part_size == 4 ? TYPE_B32 : TYPE_NONE;
    if (part == TYPE_NONE || parse_type_size(whole) > 8)
        unknown(c);
    c->i->type = (uint8_t)whole;
    c->i->count = (uint8_t)vector->count;
    if (vector == &c->o[1]) {
        c->i->op = OP_PACK;
        write_to(c, destination(c->p, &c->o[0], whole));
        for (int k = 0; k < vector->count; ++k)
            read_from(c, element_source(c, vector, k, part));
    } else {
        c->i->op = OP_UNPACK;
        for (int k = 0; k < vector->count; ++k)
            write_to(c, element_destination(c, vector, k, part));
        read_from(c, source(c->p, &c->o[1], whole));
    }
    return true;
}

/* ---- memory ---- */

/* Modifiers that only say how to cache or order: the emulator's memory is sequentially consistent. */
static bool harmless(const char *word) {
    static const char *const names[] = {"nc",  "ca",       "cg",      "cs",      "lu",      "cv",      "wb",
                                        "wt",  "volatile", "relaxed", "acquire", "release", "acq_rel", "weak",
                                        "cta", "gpu",      "sys",     "unified", NULL};
    return which(word, names) >= 0 || strncmp(word, "L1::", 4) == 0 || strncmp(word, "L2::", 4) == 0;
}

static bool space_of(const char *word, uint8_t *space) {
    static const char *const names[] = {"generic", "global",      "shared",       "local",       "param",
                                        "const",   "shared::cta", "param::entry", "param::func", NULL};
    static const uint8_t spaces[] = {SPACE_GENERIC, SPACE_GLOBAL, SPACE_SHARED, SPACE_LOCAL, SPACE_PARAM,
                                     SPACE_GLOBAL,  SPACE_SHARED, SPACE_PARAM,  SPACE_PARAM};
    const int k = which(word, names);
    if (k >= 0)
        *space = spaces[k];
    return k >= 0;
}

/* The base register of [base + offset]; the offset goes to *offset. */
static uint32_t address(context *c, const operand *o, int64_t *offset) {
    if (o->kind != OPERAND_ADDRESS)
        parse_fail(c->p, "%s needs an address in brackets", c->name);
    if (o->symbol && o->symbol->kind == SYMBOL_LOCAL && c->i->space == SPACE_PARAM)
        c->i->space = SPACE_LOCAL; /* an argument of an expanded call */
    *offset = (int64_t)o->value;
    return o->reg == NO_REGISTER ? parse_constant(c->p, 0, true) : o->reg;
}

static void finish_address(context *c, uint32_t base) {
    if (wide_register(c->p, base))
        c->i->mode2 |= MEMORY_WIDE_BASE;
}

static void data_width(context *c, const operand *o) {
    const uint32_t reg = o->kind == OPERAND_VECTOR ? o->element[0].reg : o->reg;
    const bool immediate_wide = parse_type_size((enum ptx_type)c->i->type) == 8;
    const bool is_register = (o->kind == OPERAND_VECTOR ? o->element[0].kind : o->kind) == OPERAND_REGISTER;
    if (is_register ? wide_register(c->p, reg) : immediate_wide)
        c->i->mode2 |= MEMORY_WIDE_DATA;
}

static void decode_access(context *c, bool store) {
    c->i->op = store ? OP_ST : OP_LD;
    c->i->count = 1;
    c->i->type = TYPE_NONE;
    for (char *word; (word = modifier(c));) {
        if (space_of(word, &c->i->space) || harmless(word))
            continue;
        if (word[0] == 'v' && word[1] >= '2' && word[1] <= '8' && !word[2])
            c->i->count = (uint8_t)(word[1] - '0');
        else if (c->i->type != TYPE_NONE || (c->i->type = (uint8_t)parse_type(word)) == TYPE_NONE)
            unknown(c);
    }
    need(c, 2, 2);
    if (c->i->type == TYPE_NONE || c->i->type == TYPE_PRED || c->i->type == TYPE_B128)
        unknown(c);
    const operand *data = &c->o[store ? 1 : 0];
    if ((data->kind == OPERAND_VECTOR ? data->count : 1) != c->i->count)
        parse_fail(c->p, "%s does not have %d data registers", c->name, c->i->count);
    data_width(c, data);
    const enum ptx_type width = c->i->mode2 & MEMORY_WIDE_DATA ? TYPE_B64 : TYPE_B32;
    int64_t offset = 0;
    if (!store)
        for (int k = 0; k < c->i->count; ++k)
            write_to(c, data->kind == OPERAND_VECTOR ? element_destination(c, data, k, width)
                                                     : destination(c->p, data, width));
    const uint32_t base = address(c, &c->o[store ? 0 : 1], &offset);
    read_from(c, base);
    finish_address(c, base);
    c->i->offset = offset;
    if (store)
        for (int k = 0; k < c->i->count; ++k)
            read_from(c, data->kind == OPERAND_VECTOR ? element_source(c, data, k, width)
                                                      : source(c->p, data, width));
}

static void decode_atomic(context *c, bool result) {
    static const char *const operations[] = {"add",  "min", "max", "and", "or", "xor",
                                             "exch", "cas", "inc", "dec", NULL};
    c->i->op = OP_ATOM;
    c->i->type = TYPE_NONE;
    int operation = -1;
    for (char *word; (word = modifier(c));) {
        if (space_of(word, &c->i->space) || harmless(word) || strcmp(word, "noftz") == 0)
            continue;
        if (operation < 0 && which(word, operations) >= 0)
            operation = which(word, operations);
        else if (c->i->type != TYPE_NONE || (c->i->type = (uint8_t)parse_type(word)) == TYPE_NONE)
            unknown(c);
    }
    if (operation < 0 || c->i->type == TYPE_NONE || parse_type_size((enum ptx_type)c->i->type) < 2)
        unknown(c);
    c->i->mode = (uint8_t)operation;
    const int first = result ? 1 : 0, values = operation == ATOMIC_CAS ? 2 : 1;
    need(c, first + 1 + values, first + 1 + values);
    const enum ptx_type type = (enum ptx_type)c->i->type;
    const operand sink = {.kind = OPERAND_SINK};
    write_to(c, destination(c->p, result ? &c->o[0] : &sink, type));
    int64_t offset = 0;
    const uint32_t base = address(c, &c->o[first], &offset);
    read_from(c, base);
    finish_address(c, base);
    c->i->offset = offset;
    for (int k = 1; k <= values; ++k)
        read_from(c, source(c->p, &c->o[first + k], type));
}

/* cp.async.{ca,cg}.shared.global[.L2::…] [dst], [src], size[, bytes of src that count]; (9.7.9.25.3) */
static void decode_copy(context *c) {
    if (accept_modifier(c, "commit_group")) {
        c->i->op = OP_CP_COMMIT;
        return;
    }
    if (accept_modifier(c, "wait_all") || accept_modifier(c, "wait_group")) {
        c->i->op = OP_CP_WAIT;
        c->i->mode = strstr(c->name, "wait_all") != NULL;
        c->i->offset = c->count ? (int64_t)c->o[0].value : 0;
        return;
    }
    const bool all_levels = accept_modifier(c, "ca");
    if (!all_levels && !accept_modifier(c, "cg"))
        unknown(c);
    if ((!accept_modifier(c, "shared") && !accept_modifier(c, "shared::cta")) ||
        !accept_modifier(c, "global"))
        unknown(c);
    for (char *word; (word = modifier(c));)
        if (strncmp(word, "L2::", 4) != 0)
            unknown(c);
    need(c, 3, 4);
    const uint64_t size = c->o[2].value;
    if (c->o[2].kind != OPERAND_IMMEDIATE || (size != 16 && (!all_levels || (size != 4 && size != 8))))
        parse_fail(c->p, "%s cannot copy %llu bytes", c->name, (unsigned long long)size);
    c->i->op = OP_CP_ASYNC;
    c->i->count = (uint8_t)size;
    int64_t from = 0;
    const uint32_t to_base = address(c, &c->o[0], &c->i->offset), from_base = address(c, &c->o[1], &from);
    read_from(c, to_base);
    finish_address(c, to_base);
    read_from(c, from_base);
    c->i->target = (int32_t)from; /* the second offset; it is no branch */
    if (!wide_register(c->p, from_base))
        parse_fail(c->p, "%s needs a 64-bit source address", c->name);
    read_from(c, c->count == 4 ? source(c->p, &c->o[3], TYPE_U32) : parse_constant(c->p, size, false));
}

static void decode_ldmatrix(context *c) {
    if (!accept_modifier(c, "sync") || !accept_modifier(c, "aligned") || !accept_modifier(c, "m8n8"))
        unknown(c);
    c->i->op = OP_LDMATRIX;
    c->i->count = accept_modifier(c, "x1")   ? 1
                  : accept_modifier(c, "x2") ? 2
                  : accept_modifier(c, "x4") ? 4
                                             : 0;
    c->i->mode = accept_modifier(c, "trans");
    if (!accept_modifier(c, "shared"))
        accept_modifier(c, "shared::cta");
    if (!c->i->count || !accept_modifier(c, "b16") || c->next)
        unknown(c);
    need(c, 2, 2);
    if ((c->o[0].kind == OPERAND_VECTOR ? c->o[0].count : 1) != c->i->count)
        parse_fail(c->p, "%s does not have %d results", c->name, c->i->count);
    c->i->space = SPACE_SHARED;
    for (int k = 0; k < c->i->count; ++k)
        write_to(c, c->o[0].kind == OPERAND_VECTOR ? element_destination(c, &c->o[0], k, TYPE_B32)
                                                   : destination(c->p, &c->o[0], TYPE_B32));
    const uint32_t base = address(c, &c->o[1], &c->i->offset);
    read_from(c, base);
    finish_address(c, base);
}

/* ---- mma.sync (9.7.14.5) ---- */

static void decode_mma(context *c) {
    static const struct {
        const char *name;
        uint8_t mode, depth, c_count, a_count, b_count;
    } shapes[] = {{"sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", MMA_F16, 16, 4, 4, 2},
                  {"sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", MMA_F16, 8, 4, 2, 1},
                  {"sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", MMA_F16_F16, 16, 2, 4, 2},
                  {"sync.aligned.m16n8k8.row.col.f16.f16.f16.f16", MMA_F16_F16, 8, 2, 2, 1},
                  {"sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", MMA_BF16, 16, 4, 4, 2},
                  {"sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", MMA_BF16, 8, 4, 2, 1},
                  {"sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", MMA_TF32, 8, 4, 4, 2},
                  {"sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", MMA_TF32, 4, 4, 2, 1}};
    size_t k = 0;
    while (k < sizeof shapes / sizeof *shapes && (!c->next || strcmp(c->next, shapes[k].name) != 0))
        ++k;
    if (k == sizeof shapes / sizeof *shapes)
        unknown(c);
    need(c, 4, 4);
    const int counts[] = {shapes[k].c_count, shapes[k].a_count, shapes[k].b_count, shapes[k].c_count};
    for (int o = 0; o < 4; ++o)
        if ((c->o[o].kind == OPERAND_VECTOR ? c->o[o].count : 1) != counts[o])
            parse_fail(c->p, "%s: operand %d does not have %d registers", c->name, o, counts[o]);
    c->i->op = OP_MMA;
    c->i->mode = shapes[k].mode;
    c->i->count = shapes[k].depth;
    for (int e = 0; e < counts[0]; ++e)
        write_to(c, element_destination(c, &c->o[0], e, TYPE_B32));
    for (int o = 1; o < 4; ++o)
        for (int e = 0; e < counts[o]; ++e)
            read_from(c, c->o[o].kind == OPERAND_VECTOR ? element_source(c, &c->o[o], e, TYPE_B32)
                                                        : source(c->p, &c->o[o], TYPE_B32));
}

/* ---- the rest of the warp ---- */

static void decode_shuffle(context *c) {
    static const char *const modes[] = {"up", "down", "bfly", "idx", NULL};
    if (!accept_modifier(c, "sync"))
        unknown(c);
    const int mode = which(modifier(c), modes);
    if (mode < 0 || !accept_modifier(c, "b32"))
        unknown(c);
    need(c, 5, 5);
    c->i->op = OP_SHFL;
    c->i->mode = (uint8_t)mode;
    write_to(c, destination(c->p, &c->o[0], TYPE_B32));
    write_to(c, c->o[0].pair == NO_REGISTER ? parse_new_register(c->p, KIND_PREDICATE) : c->o[0].pair);
    for (int k = 1; k < 5; ++k)
        read_from(c, source(c->p, &c->o[k], TYPE_B32));
}

static void decode_vote(context *c) {
    static const char *const modes[] = {"all", "any", "uni", "ballot", NULL};
    if (!accept_modifier(c, "sync"))
        unknown(c);
    const int mode = which(modifier(c), modes);
    if (mode < 0)
        unknown(c);
    need(c, 3, 3);
    c->i->op = OP_VOTE;
    c->i->mode = (uint8_t)mode;
    c->i->count = c->o[1].negated;
    c->o[1].negated = false;
    write_to(c, destination(c->p, &c->o[0], mode == VOTE_BALLOT ? TYPE_B32 : TYPE_PRED));
    read_from(c, source(c->p, &c->o[1], TYPE_PRED));
    read_from(c, source(c->p, &c->o[2], TYPE_B32));
}

static void decode_redux(context *c) {
    static const char *const operations[] = {"add", "min", "max", "and", "or", "xor", NULL};
    if (!accept_modifier(c, "sync"))
        unknown(c);
    const int operation = which(modifier(c), operations);
    const char *word = modifier(c);
    const enum ptx_type type = word ? parse_type(word) : TYPE_NONE;
    if (operation < 0 || (type != TYPE_U32 && type != TYPE_S32 && type != TYPE_B32))
        unknown(c);
    need(c, 3, 3);
    c->i->op = OP_REDUX;
    c->i->mode = (uint8_t)operation;
    c->i->type = (uint8_t)type;
    write_to(c, destination(c->p, &c->o[0], TYPE_B32));
    read_from(c, source(c->p, &c->o[1], TYPE_B32));
    read_from(c, source(c->p, &c->o[2], TYPE_B32));
}

static void decode_barrier(context *c) {
    if (accept_modifier(c, "warp")) {
        if (!accept_modifier(c, "sync"))
            unknown(c);
        need(c, 1, 1);
        c->i->op = OP_BAR_WARP;
        read_from(c, source(c->p, &c->o[0], TYPE_B32));
        return;
    }
    accept_modifier(c, "cta");
    if (!accept_modifier(c, "sync"))
        unknown(c);
    accept_modifier(c, "aligned");
    need(c, 1, 2);
    c->i->op = OP_BAR;
    read_from(c, source(c->p, &c->o[0], TYPE_U32));
    if (c->count == 2)
        read_from(c, source(c->p, &c->o[1], TYPE_U32));
}

static void decode_branch(context *c, const char *target) {
    c->i->op = OP_BRA;
    parse_branch_to(c->p, target, c->p->scope);
}

static bool decode_control(context *c, const char *base) {
    if (strcmp(base, "bra") == 0) {
        accept_modifier(c, "uni");
        need(c, 1, 1);
        if (c->o[0].kind != OPERAND_WORD)
            unknown(c);
        decode_branch(c, c->o[0].word);
    } else if (strcmp(base, "ret") == 0 && c->p->return_to) {
        decode_branch(c, c->p->return_to);
    } else if (strcmp(base, "ret") == 0 || strcmp(base, "exit") == 0) {
        c->i->op = OP_EXIT;
    } else if (strcmp(base, "trap") == 0) {
        c->i->op = OP_TRAP;
    } else if (strcmp(base, "membar") == 0 || strcmp(base, "fence") == 0 || strcmp(base, "nanosleep") == 0 ||
               strcmp(base, "prefetch") == 0) {
        c->i->op = OP_FENCE; /* nothing to do where memory is sequentially consistent and nothing is cached */
    } else if (strcmp(base, "activemask") == 0) {
        c->i->op = OP_ACTIVEMASK;
        need(c, 1, 1);
        write_to(c, destination(c->p, &c->o[0], TYPE_B32));
    } else {
        return false;
    }
    return true;
}

static void decode_bits(context *c, const char *base) {
    if (strcmp(base, "lop3") == 0 && accept_modifier(c, "b32")) {
        need(c, 5, 5);
        c->i->op = OP_LOP3;
        c->i->offset = (int64_t)c->o[4].value;
    } else if (strcmp(base, "bfi") == 0 && accept_modifier(c, "b32")) {
        need(c, 5, 5);
        c->i->op = OP_BFI;
    } else {
        unknown(c);
    }
    write_to(c, destination(c->p, &c->o[0], TYPE_B32));
    for (int k = 1; k < (c->i->op == OP_LOP3 ? 4 : 5); ++k)
        read_from(c, source(c->p, &c->o[k], TYPE_B32));
}

/* A source of cvt may be wider than its type, then its low half is meant (9.4.1, operand size exceeding
 * instruction-type size). */
static void narrow_source(parser *p, const char *mnemonic, operand *operands, int count) {
    const char *type = strrchr(mnemonic, '.');
    if (strncmp(mnemonic, "cvt.", 4) != 0 || count != 2 || operands[1].kind != OPERAND_REGISTER ||
        !wide_register(p, operands[1].reg) || parse_type_size(parse_type(type + 1)) == 8)
        return;
    char low[] = "cvt.u32.u64";
    operand both[2] = {operands[1], operands[1]};
    both[0].reg = parse_new_register(p, KIND_32);
    decode(p, low, both, 2, NO_REGISTER, false);
    operands[1].reg = both[0].reg;
}

void decode(parser *p, char *mnemonic, operand *operands, int count, uint32_t guard, bool guard_not) {
    char whole[MAX_NAME];
    snprintf(whole, sizeof whole, "%s", mnemonic);
    narrow_source(p, mnemonic, operands, count);
    context c = {.p = p, .name = whole, .o = operands, .count = count, .i = parse_append(p)};
    c.i->guard = (uint16_t)guard;
    c.i->flags = guard_not ? GUARD_NOT : 0;
    if (decode_parts(&c, mnemonic) || decode_row(&c, mnemonic))
        return;
    c.next = mnemonic;
    const char *base = modifier(&c);
    static const struct {
        const char *name;
        void (*decode)(context *);
    } families[] = {{"setp", decode_setp},    {"ldmatrix", decode_ldmatrix}, {"mma", decode_mma},
                    {"shfl", decode_shuffle}, {"vote", decode_vote},         {"redux", decode_redux},
                    {"bar", decode_barrier},  {"barrier", decode_barrier}};
    for (size_t k = 0; k < sizeof families / sizeof *families; ++k)
        if (strcmp(base, families[k].name) == 0) {
            families[k].decode(&c);
            return;
        }
    if (strcmp(base, "ld") == 0 || strcmp(base, "st") == 0)
        decode_access(&c, base[0] == 's');
    else if (strcmp(base, "atom") == 0 || strcmp(base, "red") == 0)
        decode_atomic(&c, base[0] == 'a');
    else if (strcmp(base, "cp") == 0 && accept_modifier(&c, "async"))
        decode_copy(&c);
    else if (!decode_control(&c, base))
        decode_bits(&c, base);
}
