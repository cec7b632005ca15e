/*
 * parse.c: PTX text to a module (PTX ISA 9.0, sections 4, 5, 7 and 11): directives, variables, functions,
 * labels and operands. Calls are expanded in place: a .func's text is parsed again at each call, its
 * parameters are the caller's.
 */
#include "tests/cuda_emulator/parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16 };

static void *grow(parser *p, void *items, size_t count, size_t *capacity, size_t size) {
    if (count < *capacity)
        return items;
    *capacity = *capacity ? *capacity * 2 : 64;
    void *bigger = realloc(items, *capacity * size);
    if (!bigger)
        parse_fail(p, "out of memory");
    return bigger;
}

static const char *const type_names[] = {"b8",   "b16",   "b32",    "b64", "b128", "u8",  "u16",
                                         "u32",  "u64",   "s8",     "s16", "s32",  "s64", "f16",
                                         "bf16", "f16x2", "bf16x2", "f32", "f64",  "pred"};

enum ptx_type parse_type(const char *name) {
    for (size_t i = 0; i < sizeof type_names / sizeof *type_names; ++i)
        if (strcmp(type_names[i], name) == 0)
            return (enum ptx_type)i;
    return TYPE_NONE;
}

int parse_type_size(enum ptx_type type) {
    static const unsigned char sizes[] = {1, 2, 4, 8, 16, 1, 2, 4, 8, 1, 2, 4, 8, 2, 2, 4, 4, 4, 8, 0, 0};
    return sizes[type];
}

static enum ptx_type expect_type(parser *p) {
    const enum ptx_type type = p->token.text[0] == '.' ? parse_type(p->token.text + 1) : TYPE_NONE;
    if (type == TYPE_NONE)
        parse_fail(p, "expected a type, found '%s'", p->token.text);
    lex_next(p);
    return type;
}

uint64_t parse_number(parser *p) {
    const bool negative = lex_accept(p, "-");
    if (p->token.kind != TOKEN_NUMBER)
        parse_fail(p, "expected a number, found '%s'", p->token.text);
    const uint64_t value = negative ? 0 - p->token.value : p->token.value;
    lex_next(p);
    return value;
}

void parse_set_name(parser *p, char to[MAX_NAME], const char *name) {
    const size_t n = strlen(name);
    if (n >= MAX_NAME)
        parse_fail(p, "the name '%.40s...' is too long", name);
    memcpy(to, name, n + 1);
}

/* ---- registers and instructions ---- */

uint32_t parse_new_register(parser *p, enum ptx_kind kind) {
    ptx_kernel *k = p->kernel;
    k->registers = grow(p, k->registers, k->register_count, &k->register_capacity, sizeof *k->registers);
    if (k->register_count >= NO_REGISTER)
        parse_fail(p, "kernel %s has more than %d registers", k->name, NO_REGISTER - 1);
    k->registers[k->register_count] = (ptx_register){.kind = (uint8_t)kind};
    return (uint32_t)k->register_count++;
}

/* Where a constant stands in the table, or would stand. */
static uint32_t *place_of_constant(const parser *p, uint64_t value, enum ptx_kind kind) {
    const size_t mask = p->constant_capacity - 1;
    size_t at = (size_t)(value * 0x9e3779b97f4a7c15ull >> 32) & mask;
    for (; p->constants[at]; at = (at + 1) & mask) {
        const ptx_register *r = &p->kernel->registers[p->constants[at] - 1];
        if (r->kind == kind && r->value == value)
            break;
    }
    return &p->constants[at];
}

static void grow_constants(parser *p) {
    uint32_t *const old = p->constants;
    const size_t count = p->constant_capacity;
    p->constant_capacity = count ? 2 * count : 256;
    p->constants = calloc(p->constant_capacity, sizeof *p->constants);
    for (size_t i = 0; p->constants && i < count; ++i)
        if (old[i]) {
            const ptx_register *r = &p->kernel->registers[old[i] - 1];
            *place_of_constant(p, r->value, (enum ptx_kind)r->kind) = old[i];
        }
    free(old);
    if (!p->constants)
        parse_fail(p, "out of memory");
}

uint32_t parse_constant(parser *p, uint64_t value, bool wide) {
    const enum ptx_kind kind = wide ? KIND_CONSTANT_64 : KIND_CONSTANT_32;
    if (!wide)
        value = (uint32_t)value;
    if (2 * p->constant_count >= p->constant_capacity)
        grow_constants(p);
    uint32_t *const at = place_of_constant(p, value, kind);
    if (*at)
        return *at - 1;
    const uint32_t reg = parse_new_register(p, kind);
    p->kernel->registers[reg].value = value;
    *at = reg + 1;
    ++p->constant_count;
    return reg;
}

uint32_t parse_special(parser *p, enum ptx_special which) {
    for (size_t i = 0; i < p->kernel->register_count; ++i)
        if (p->kernel->registers[i].kind == KIND_SPECIAL && p->kernel->registers[i].value == which)
            return (uint32_t)i;
    const uint32_t reg = parse_new_register(p, KIND_SPECIAL);
    p->kernel->registers[reg].value = which;
    return reg;
}

uint32_t parse_dynamic_base(parser *p, bool wide) {
    p->kernel->uses_dynamic_shared = true;
    if (p->dynamic_base[wide] == NO_REGISTER)
        p->dynamic_base[wide] = parse_new_register(p, wide ? KIND_CONSTANT_64 : KIND_CONSTANT_32);
    return p->dynamic_base[wide];
}

ptx_instruction *parse_append(parser *p) {
    ptx_kernel *k = p->kernel;
    k->code = grow(p, k->code, k->length, &k->capacity, sizeof *k->code);
    ptx_instruction *made = &k->code[k->length++];
    *made = (ptx_instruction){.guard = NO_REGISTER, .loc = p->loc, .target = -1, .rejoin = -1};
    for (int i = 0; i < MAX_OPERANDS; ++i)
        made->r[i] = NO_REGISTER;
    return made;
}

void parse_branch_to(parser *p, const char *name, int scope) {
    p->branches = grow(p, p->branches, p->branch_count, &p->branch_capacity, sizeof *p->branches);
    struct branch *b = &p->branches[p->branch_count++];
    b->instruction = p->kernel->length - 1;
    b->scope = scope;
    b->line = p->line;
    parse_set_name(p, b->name, name);
}

static void add_label(parser *p, const char *name, int scope) {
    p->labels = grow(p, p->labels, p->label_count, &p->label_capacity, sizeof *p->labels);
    label *l = &p->labels[p->label_count++];
    parse_set_name(p, l->name, name);
    l->scope = scope;
    l->at = (int)p->kernel->length;
}

static void resolve_branches(parser *p) {
    for (size_t i = 0; i < p->branch_count; ++i) {
        const struct branch *b = &p->branches[i];
        int at = -1;
        for (int scope = b->scope; at < 0 && scope >= 0; scope = p->scopes[scope])
            for (size_t k = 0; k < p->label_count; ++k)
                if (p->labels[k].scope == scope && strcmp(p->labels[k].name, b->name) == 0)
                    at = p->labels[k].at;
        p->line = b->line;
        if (at < 0)
            parse_fail(p, "no label '%s'", b->name);
        p->kernel->code[b->instruction].target = at;
    }
}

static void open_scope(parser *p) {
    if (p->scope_count == MAX_SCOPES)
        parse_fail(p, "more than %d scopes in a kernel", MAX_SCOPES);
    p->scopes[p->scope_count] = p->scope;
    p->scope = p->scope_count++;
}

/* ---- symbols ---- */

static symbol *add_symbol(parser *p, const char *name) {
    p->symbols = grow(p, p->symbols, p->symbol_count, &p->symbol_capacity, sizeof *p->symbols);
    symbol *s = &p->symbols[p->symbol_count++];
    memset(s, 0, sizeof *s);
    parse_set_name(p, s->name, name);
    return s;
}

static uint64_t align_up(uint64_t value, uint64_t align) {
    return (value + align - 1) / align * align;
}

/* A symbol by name, the innermost first; *index is which of NAME0, NAME1, … . */
symbol *parse_find_symbol(parser *p, const char *name, size_t *index) {
    size_t stem = strlen(name), i = p->symbol_count;
    while (stem > 0 && name[stem - 1] >= '0' && name[stem - 1] <= '9')
        --stem;
    const size_t number = strtoull(name + stem, NULL, 10);
    symbol *s = NULL;
    while (!s && i-- > 0) {
        symbol *candidate = &p->symbols[i];
        if (candidate->count == 0
                ? strcmp(candidate->name, name) == 0
                : name[stem] && number < candidate->count && strlen(candidate->name) == stem &&
                      memcmp(candidate->name, name, stem) == 0)
            s = candidate;
    }
    *index = s && s->count ? number : 0;
    if (s && s->kind == SYMBOL_SHARED && !s->dynamic && s->owner != p->kernel) {
        s->owner = p->kernel;
        s->value = align_up(p->kernel->shared_static, s->align);
        p->kernel->shared_static = (uint32_t)(s->value + s->size);
    }
    return s;
}

/* ---- variables: [.extern] .SPACE [.align N] .TYPE NAME[SIZE] [= initial], NAME ...; ---- */

static void initial_values(parser *p, unsigned char *bytes, uint64_t size, int element) {
    const bool list = lex_accept(p, "{");
    for (uint64_t at = 0;;) {
        const uint64_t value = parse_number(p);
        if (at + (uint64_t)element > size)
            parse_fail(p, "more initial values than elements");
        memcpy(bytes + at, &value, (size_t)element);
        at += (uint64_t)element;
        if (!list || !lex_accept(p, ","))
            break;
    }
    if (list)
        lex_expect(p, "}");
}

static void module_variable(parser *p, symbol *s, int element) {
    ptx_module *m = p->module;
    ptx_variable *more = realloc(m->variables, (m->variable_count + 1) * sizeof *more);
    if (!more)
        parse_fail(p, "out of memory");
    m->variables = more;
    ptx_variable *v = &m->variables[m->variable_count++];
    *v = (ptx_variable){.name = strdup(s->name), .size = s->size, .align = s->align};
    v->address = s->value = p->place(s->size, p->place_context);
    if (!v->name || !v->address)
        parse_fail(p, "out of memory for %s", s->name);
    if (lex_accept(p, "=")) {
        v->initial = calloc(1, s->size);
        if (!v->initial)
            parse_fail(p, "out of memory");
        initial_values(p, v->initial, s->size, element);
    }
}

static void one_variable(parser *p, enum symbol_kind kind, enum ptx_type type, uint64_t align,
                         bool external) {
    symbol *s = add_symbol(p, "");
    parse_set_name(p, s->name, p->token.text);
    s->kind = kind;
    s->type = type;
    s->align = align ? align : (uint64_t)parse_type_size(type);
    s->size = (uint64_t)parse_type_size(type);
    lex_next(p);
    while (lex_accept(p, "[")) {
        s->size = lex_is(p, "]") ? 0 : s->size * parse_number(p);
        lex_expect(p, "]");
    }
    if (kind == SYMBOL_SHARED) {
        s->dynamic = external && s->size == 0;
    } else if (kind == SYMBOL_LOCAL) {
        s->value = align_up(p->kernel->local_bytes, s->align < 8 ? 8 : s->align);
        p->kernel->local_bytes = (uint32_t)(s->value + s->size);
    } else {
        module_variable(p, s, parse_type_size(type));
    }
}

static void variables(parser *p, enum symbol_kind kind, bool external) {
    uint64_t align = 0;
    if (lex_accept(p, ".align"))
        align = parse_number(p);
    const enum ptx_type type = expect_type(p);
    do
        one_variable(p, kind, type, align, external);
    while (lex_accept(p, ","));
    lex_expect(p, ";");
}

static void registers(parser *p) {
    const enum ptx_type type = expect_type(p);
    const int size = parse_type_size(type);
    if (size > 8)
        parse_fail(p, "128-bit registers are not emulated");
    const enum ptx_kind kind = type == TYPE_PRED ? KIND_PREDICATE : size == 8 ? KIND_64 : KIND_32;
    do {
        symbol *s = add_symbol(p, "");
        parse_set_name(p, s->name, p->token.text);
        s->type = type;
        lex_next(p);
        if (lex_accept(p, "<")) {
            s->count = parse_number(p);
            lex_expect(p, ">");
        }
        s->value = p->kernel->register_count;
        for (size_t i = 0; i < (s->count ? s->count : 1); ++i)
            parse_new_register(p, kind);
    } while (lex_accept(p, ","));
    lex_expect(p, ";");
}

/* ---- calls, expanded in place ---- */

static void body(parser *p);

static void bind_parameters(parser *p, char names[][MAX_NAME], int count) {
    int bound = 0;
    while (!lex_accept(p, ")")) {
        while (p->token.text[0] == '.' || p->token.kind == TOKEN_NUMBER)
            lex_next(p);
        size_t index = 0;
        const symbol *actual = bound < count ? parse_find_symbol(p, names[bound], &index) : NULL;
        if (!actual || actual->kind != SYMBOL_LOCAL)
            parse_fail(p, "a call whose arguments are not .param variables is not emulated");
        const symbol copy = *actual; /* adding may move the table */
        symbol *formal = add_symbol(p, p->token.text);
        formal->kind = copy.kind;
        formal->type = copy.type;
        formal->value = copy.value;
        formal->size = copy.size;
        ++bound;
        lex_next(p);
        if (lex_accept(p, "[")) {
            parse_number(p);
            lex_expect(p, "]");
        }
        lex_accept(p, ",");
    }
}

static int call_list(parser *p, char names[][MAX_NAME]) {
    int count = 0;
    while (!lex_accept(p, ")")) {
        if (count == 32)
            parse_fail(p, "a call with more than 32 arguments");
        parse_set_name(p, names[count++], p->token.text);
        lex_next(p);
        lex_accept(p, ",");
    }
    return count;
}

static void expand(parser *p, const function *f, char results[][MAX_NAME], int result_count,
                   char arguments[][MAX_NAME], int argument_count) {
    static const char end_label[] = "(return)";
    const parser saved = *p; /* position, token, scope */
    if (++p->depth > MAX_DEPTH)
        parse_fail(p, "calls nest more than %d deep (recursion is not emulated)", MAX_DEPTH);
    open_scope(p);
    p->return_to = end_label;
    if (f->results) {
        p->at = f->results;
        lex_next(p);
        bind_parameters(p, results, result_count);
    }
    p->at = f->parameters;
    lex_next(p);
    bind_parameters(p, arguments, argument_count);
    p->at = f->body;
    p->line = f->line;
    lex_next(p);
    const int scope = p->scope;
    body(p);
    add_label(p, end_label, scope);
    p->symbol_count = saved.symbol_count;
    p->scope = saved.scope;
    p->at = saved.at;
    p->line = saved.line;
    p->token = saved.token;
    p->depth = saved.depth;
    p->return_to = saved.return_to;
}

static void call(parser *p) {
    char results[32][MAX_NAME], arguments[32][MAX_NAME], name[MAX_NAME];
    int result_count = 0, argument_count = 0;
    if (lex_accept(p, "(")) {
        result_count = call_list(p, results);
        lex_expect(p, ",");
    }
    parse_set_name(p, name, p->token.text);
    lex_next(p);
    if (lex_accept(p, ",")) {
        lex_expect(p, "(");
        argument_count = call_list(p, arguments);
    }
    lex_expect(p, ";");
    if (strcmp(name, "__assertfail") == 0) {
        parse_append(p)->op = OP_TRAP;
        return;
    }
    for (size_t i = 0; i < p->function_count; ++i)
        if (strcmp(p->functions[i].name, name) == 0) {
            expand(p, &p->functions[i], results, result_count, arguments, argument_count);
            return;
        }
    parse_fail(p, "calls '%s', which has no body here", name);
}

/* ---- statements ---- */

static void
location(parser *p) { /* .loc file line column[, function_name label, inlined_at file line column] */
    ptx_module *m = p->module;
    ptx_location l = {0};
    const int line = p->line;
    l.file = (int32_t)parse_number(p);
    l.line = (int32_t)parse_number(p);
    const char *rest = p->at;
    const char *end = memchr(rest, '\n', (size_t)(p->end - rest));
    const char *inlined =
        end && p->line == line ? memmem(rest, (size_t)(end - rest), "inlined_at", 10) : NULL;
    if (inlined) { /* not sscanf, which measures the whole module each time */
        char *after = NULL;
        l.outer_file = (int32_t)strtol(inlined + 10, &after, 10);
        l.outer_line = (int32_t)strtol(after, NULL, 10);
    }
    m->locations = grow(p, m->locations, m->location_count, &m->location_capacity, sizeof *m->locations);
    m->locations[m->location_count] = l;
    p->loc = (uint32_t)m->location_count++;
    lex_skip_line(p);
}

static void directive(parser *p) {
    if (lex_accept(p, ".reg"))
        registers(p);
    else if (lex_accept(p, ".local") || lex_accept(p, ".param"))
        variables(p, SYMBOL_LOCAL, false);
    else if (lex_accept(p, ".shared"))
        variables(p, SYMBOL_SHARED, false);
    else if (lex_accept(p, ".loc"))
        location(p);
    else if (lex_accept(p, ".pragma"))
        while (!lex_accept(p, ";"))
            lex_next(p);
    else
        parse_fail(p, "the directive %s is not emulated", p->token.text);
}

static void instruction(parser *p) {
    uint32_t guard = NO_REGISTER;
    bool guard_not = false;
    if (lex_accept(p, "@")) {
        guard_not = lex_accept(p, "!");
        operand o = {.pair = NO_REGISTER};
        parse_symbol_operand(p, &o);
        if (o.kind != OPERAND_REGISTER)
            parse_fail(p, "a guard that is no predicate");
        guard = o.reg;
    }
    char mnemonic[MAX_NAME];
    parse_set_name(p, mnemonic, p->token.text);
    lex_next(p);
    if (strncmp(mnemonic, "call", 4) == 0) {
        if (guard != NO_REGISTER)
            parse_fail(p, "a guarded call is not emulated");
        call(p);
        return;
    }
    operand operands[6];
    int count = 0;
    while (!lex_is(p, ";")) {
        if (count == 6)
            parse_fail(p, "more than 6 operands of %s", mnemonic);
        parse_operand(p, &operands[count++]);
        if (!lex_accept(p, ","))
            break;
    }
    if (!lex_is(p, ";"))
        parse_fail(p, "expected ';' after %s, found '%s'", mnemonic, p->token.text);
    decode(p, mnemonic, operands, count, guard, guard_not);
    lex_next(p);
}

/* Statements up to the "}" that closes the body; the token is the first after "{". */
static void body(parser *p) {
    size_t outer[256];
    int depth = 0;
    for (;;) {
        if (p->token.kind == TOKEN_END)
            parse_fail(p, "the text ends inside a function");
        if (lex_accept(p, "{")) {
            if (depth == 256)
                parse_fail(p, "blocks nest too deep");
            outer[depth++] = p->symbol_count;
            open_scope(p);
        } else if (lex_is(p, "}")) {
            if (depth == 0)
                return;
            p->symbol_count = outer[--depth];
            p->scope = p->scopes[p->scope];
            lex_next(p);
        } else if (p->token.kind == TOKEN_WORD && p->token.text[0] == '.') {
            directive(p);
        } else if (lex_is(p, "@")) {
            instruction(p);
        } else if (p->token.kind == TOKEN_WORD) {
            const char *after = p->at;
            while (after < p->end && (*after == ' ' || *after == '\t'))
                ++after;
            if (after < p->end && *after == ':') {
                add_label(p, p->token.text, p->scope);
                p->at = after + 1;
                lex_next(p);
            } else {
                instruction(p);
            }
        } else {
            parse_fail(p, "unexpected '%s'", p->token.text);
        }
    }
}

/* ---- functions ---- */

static void kernel_parameter(parser *p, ptx_kernel *k) {
    uint64_t align = 0;
    lex_expect(p, ".param");
    if (lex_accept(p, ".align"))
        align = parse_number(p);
    const enum ptx_type type = expect_type(p);
    while (p->token.text[0] == '.' || p->token.kind == TOKEN_NUMBER) /* .ptr .global .align 16 */
        lex_next(p);
    ptx_parameter *more = realloc(k->parameters, (k->parameter_count + 1) * sizeof *more);
    if (!more)
        parse_fail(p, "out of memory");
    k->parameters = more;
    ptx_parameter *made = &k->parameters[k->parameter_count++];
    parse_set_name(p, made->name, p->token.text);
    lex_next(p);
    made->size = (uint32_t)parse_type_size(type);
    if (!align)
        align = made->size;
    if (lex_accept(p, "[")) {
        made->size *= (uint32_t)parse_number(p);
        lex_expect(p, "]");
    }
    made->offset = (uint32_t)align_up(k->parameter_bytes, align);
    k->parameter_bytes = made->offset + made->size;
    symbol *s = add_symbol(p, made->name);
    s->kind = SYMBOL_PARAM;
    s->value = made->offset;
    s->size = made->size;
}

static void performance_directives(parser *p, ptx_kernel *k) {
    while (!lex_is(p, "{")) {
        uint32_t values[3] = {1, 1, 1};
        char name[32];
        snprintf(name, sizeof name, "%.31s", p->token.text);
        if (name[0] != '.')
            parse_fail(p, "unexpected '%s' before a kernel's body", name);
        lex_next(p);
        for (int i = 0; i < 3 && p->token.kind == TOKEN_NUMBER; ++i) {
            values[i] = (uint32_t)parse_number(p);
            lex_accept(p, ",");
        }
        if (strcmp(name, ".maxntid") == 0)
            k->max_threads = values[0] * values[1] * values[2];
        if (strcmp(name, ".reqntid") == 0)
            memcpy(k->required, values, sizeof values);
    }
}

static void entry(parser *p) {
    ptx_module *m = p->module;
    ptx_kernel **more = realloc(m->kernels, (m->kernel_count + 1) * sizeof *more);
    if (!more)
        parse_fail(p, "out of memory");
    m->kernels = more;
    ptx_kernel *k = calloc(1, sizeof *k);
    if (!k || !(k->name = strdup(p->token.text))) {
        free(k);
        parse_fail(p, "out of memory");
    }
    m->kernels[m->kernel_count++] = p->kernel = k;
    k->module = m;
    const size_t outer = p->symbol_count;
    p->label_count = p->branch_count = 0;
    p->scope = 0;
    p->scope_count = 1;
    p->scopes[0] = -1;
    p->dynamic_base[0] = p->dynamic_base[1] = NO_REGISTER;
    if (p->constants)
        memset(p->constants, 0, p->constant_capacity * sizeof *p->constants);
    p->constant_count = 0;
    p->loc = 0;
    lex_next(p);
    if (lex_accept(p, "("))
        while (!lex_accept(p, ")")) {
            kernel_parameter(p, k);
            lex_accept(p, ",");
        }
    performance_directives(p, k);
    lex_expect(p, "{");
    body(p);
    parse_append(p)->op = OP_EXIT;
    resolve_branches(p);
    const uint64_t dynamic = align_up(k->shared_static, 16);
    for (int i = 0; i < 2; ++i)
        if (p->dynamic_base[i] != NO_REGISTER)
            k->registers[p->dynamic_base[i]].value = dynamic;
    if (k->uses_dynamic_shared)
        k->shared_static = (uint32_t)dynamic;
    p->kernel = NULL;
    p->symbol_count = outer;
    lex_next(p); /* the closing brace */
}

static void skip_balanced(parser *p, const char *open, const char *close) {
    int depth = 1;
    while (depth > 0 && p->token.kind != TOKEN_END) {
        depth += lex_is(p, open) - lex_is(p, close);
        if (depth > 0)
            lex_next(p);
    }
    lex_expect(p, close);
}

static void device_function(parser *p) {
    function f = {0};
    if (lex_is(p, "(")) {
        f.results = p->at;
        lex_next(p);
        skip_balanced(p, "(", ")");
    }
    parse_set_name(p, f.name, p->token.text);
    lex_next(p);
    if (lex_is(p, "(")) {
        f.parameters = p->at;
        lex_next(p);
        skip_balanced(p, "(", ")");
    }
    while (!lex_is(p, "{") && !lex_is(p, ";"))
        lex_next(p);
    if (lex_accept(p, ";"))
        return; /* a declaration */
    f.body = p->at;
    f.line = p->line;
    lex_next(p);
    skip_balanced(p, "{", "}");
    function *more = realloc(p->functions, (p->function_count + 1) * sizeof *more);
    if (!more)
        parse_fail(p, "out of memory");
    p->functions = more;
    p->functions[p->function_count++] = f;
}

static void file_name(parser *p) {
    const uint64_t number = parse_number(p);
    if (number >= sizeof p->module->files / sizeof *p->module->files)
        parse_fail(p, "more than %zu source files", sizeof p->module->files / sizeof *p->module->files);
    free(p->module->files[number]);
    p->module->files[number] = strdup(p->token.text);
    lex_skip_line(p);
}

static void module_directive(parser *p, bool *external) {
    if (lex_accept(p, ".version") || lex_accept(p, ".address_size")) {
        lex_next(p);
    } else if (lex_accept(p, ".target")) {
        if (sscanf(p->token.text, "sm_%d", &p->module->target) != 1)
            parse_fail(p, "the target %s is not emulated", p->token.text);
        lex_skip_line(p);
    } else if (lex_accept(p, ".visible") || lex_accept(p, ".weak") || lex_accept(p, ".common")) {
        *external = false;
    } else if (lex_accept(p, ".extern")) {
        *external = true;
    } else if (lex_accept(p, ".global") || lex_accept(p, ".const")) {
        variables(p, SYMBOL_GLOBAL, *external);
    } else if (lex_accept(p, ".shared")) {
        variables(p, SYMBOL_SHARED, *external);
    } else if (lex_accept(p, ".entry")) {
        entry(p);
    } else if (lex_accept(p, ".func")) {
        device_function(p);
    } else if (lex_accept(p, ".file")) {
        file_name(p);
    } else if (lex_accept(p, ".section")) {
        lex_next(p);
        lex_expect(p, "{");
        skip_balanced(p, "{", "}");
    } else if (!lex_accept(p, ";")) {
        parse_fail(p, "'%s' at the module's level is not emulated", p->token.text);
    }
}

/* Apart, so that longjmp finds no variable of ptx_parse in a register. */
static bool parse_all(parser *p) {
    if (setjmp(p->failed))
        return false;
    bool external = false;
    lex_next(p);
    while (p->token.kind != TOKEN_END)
        module_directive(p, &external);
    return true;
}

ptx_module *ptx_parse(const char *text, size_t size, uint64_t (*place)(uint64_t, void *), void *context,
                      char *error, size_t error_size) {
    parser *p = calloc(1, sizeof *p);
    ptx_module *m = calloc(1, sizeof *m);
    if (m)
        m->locations = calloc(1, sizeof *m->locations);
    if (!p || !m || !m->locations) {
        snprintf(error, error_size, "out of memory");
        free(p);
        ptx_free(m);
        return NULL;
    }
    m->location_count = m->location_capacity = 1; /* location 0: unknown */
    p->at = text;
    p->end = text + size;
    p->line = 1;
    p->module = m;
    p->error = error;
    p->error_size = error_size;
    p->place = place;
    p->place_context = context;
    const bool ok = parse_all(p);
    free(p->symbols);
    free(p->labels);
    free(p->constants);
    free(p->branches);
    free(p->functions);
    free(p);
    if (ok)
        return m;
    ptx_free(m);
    return NULL;
}

void ptx_free(ptx_module *m) {
    if (!m)
        return;
    for (size_t i = 0; i < m->kernel_count; ++i) {
        ptx_kernel *k = m->kernels[i];
        free(k->name);
        free(k->code);
        free(k->registers);
        free(k->parameters);
        free(k);
    }
    for (size_t i = 0; i < m->variable_count; ++i) {
        free(m->variables[i].name);
        free(m->variables[i].initial);
    }
    for (size_t i = 0; i < sizeof m->files / sizeof *m->files; ++i)
        free(m->files[i]);
    free(m->kernels);
    free(m->variables);
    free(m->locations);
    free(m);
}

static const char *base_name(const ptx_module *m, int file) {
    const char *name = file > 0 && file < (int)(sizeof m->files / sizeof *m->files) ? m->files[file] : NULL;
    const char *slash = name ? strrchr(name, '/') : NULL;
    return slash ? slash + 1 : name;
}

void ptx_describe_location(const ptx_module *m, uint32_t loc, char *text, size_t size) {
    ptx_location l = loc < m->location_count ? m->locations[loc] : (ptx_location){0};
    const char *name = base_name(m, l.file);
    const char *outer = base_name(m, l.outer_file);
    if (outer && name && strstr(m->files[l.file], "/include/")) {
        name = outer;
        l.line = l.outer_line;
    }
    snprintf(text, size, "%s:%d", name ? name : "(no line: build with -lineinfo)", l.line);
}
