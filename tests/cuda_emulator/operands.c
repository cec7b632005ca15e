/* operands.c: the operands of an instruction (PTX ISA 9.0, section 6): registers, constants, addresses,
 * vectors. */
#include "tests/cuda_emulator/parse.h"

#include <string.h>

static const char *const special_names[SPECIAL_COUNT] = {
    "%tid.x",       "%tid.y",       "%tid.z",       "%ntid.x",      "%ntid.y",
    "%ntid.z",      "%ctaid.x",     "%ctaid.y",     "%ctaid.z",     "%nctaid.x",
    "%nctaid.y",    "%nctaid.z",    "%laneid",      "%warpid",      "%lanemask_eq",
    "%lanemask_le", "%lanemask_lt", "%lanemask_ge", "%lanemask_gt", "%dynamic_smem_size"};

void parse_symbol_operand(parser *p, operand *o) {
    size_t index = 0;
    const symbol *s = parse_find_symbol(p, p->token.text, &index);
    for (int i = 0; !s && i < SPECIAL_COUNT; ++i)
        if (strcmp(p->token.text, special_names[i]) == 0) {
            o->kind = OPERAND_REGISTER;
            o->reg = parse_special(p, (enum ptx_special)i);
            lex_next(p);
            return;
        }
    if (!s) {
        if (p->token.text[0] == '%')
            parse_fail(p, "register '%s' is not declared, or not emulated", p->token.text);
        o->kind = strcmp(p->token.text, "_") == 0 ? OPERAND_SINK : OPERAND_WORD;
        parse_set_name(p, o->word, p->token.text);
    } else if (s->kind == SYMBOL_REGISTER) {
        o->kind = OPERAND_REGISTER;
        o->reg = (uint32_t)(s->value + index);
    } else {
        o->kind = OPERAND_SYMBOL;
        o->symbol = s;
        o->value = s->value;
        if (s->dynamic) { /* mov decides its width, so both are at hand */
            o->reg = parse_dynamic_base(p, false);
            o->pair = parse_dynamic_base(p, true);
        }
    }
    lex_next(p);
}

static void address_operand(parser *p, operand *o) {
    o->kind = OPERAND_ADDRESS;
    o->reg = NO_REGISTER;
    if (p->token.kind == TOKEN_WORD) {
        operand inner = {.pair = NO_REGISTER};
        parse_symbol_operand(p, &inner);
        if (inner.kind == OPERAND_WORD)
            parse_fail(p, "'%s' is not declared", inner.word);
        o->symbol = inner.symbol;
        o->value = inner.symbol ? inner.value : 0;
        if (inner.kind == OPERAND_REGISTER || (inner.symbol && inner.symbol->dynamic))
            o->reg = inner.reg;
        if (inner.symbol && inner.symbol->dynamic)
            o->value = 0;
    } else {
        o->value = parse_number(p);
    }
    if (lex_accept(p, "+"))
        o->value += parse_number(p);
    else if (lex_is(p, "-"))
        o->value += parse_number(p);
    lex_expect(p, "]");
}

static void vector_operand(parser *p, operand *o) {
    o->kind = OPERAND_VECTOR;
    do {
        if (o->count == 8)
            parse_fail(p, "a vector of more than 8");
        operand inner = {.pair = NO_REGISTER};
        if (p->token.kind == TOKEN_WORD) {
            parse_symbol_operand(p, &inner);
            if (inner.kind != OPERAND_REGISTER && inner.kind != OPERAND_SINK)
                parse_fail(p, "'%s' in a vector is no register", inner.word);
        } else {
            inner.kind = OPERAND_IMMEDIATE;
            inner.floating = p->token.floating;
            inner.value = parse_number(p);
        }
        o->element[o->count].kind = inner.kind;
        o->element[o->count].reg = inner.reg;
        o->element[o->count].value = inner.value;
        o->element[o->count++].floating = inner.floating;
    } while (lex_accept(p, ","));
    lex_expect(p, "}");
}

void parse_operand(parser *p, operand *o) {
    *o = (operand){.reg = NO_REGISTER, .pair = NO_REGISTER};
    if (lex_accept(p, "[")) {
        address_operand(p, o);
    } else if (lex_accept(p, "{")) {
        vector_operand(p, o);
    } else if (lex_accept(p, "!")) {
        parse_symbol_operand(p, o);
        o->negated = true;
    } else if (p->token.kind == TOKEN_NUMBER || lex_is(p, "-")) {
        o->kind = OPERAND_IMMEDIATE;
        const bool negative = lex_is(p, "-");
        if (!negative)
            o->floating = p->token.floating;
        o->value = parse_number(p);
    } else if (p->token.kind == TOKEN_WORD) {
        parse_symbol_operand(p, o);
        if (lex_accept(p, "|")) {
            operand second = {.pair = NO_REGISTER};
            parse_symbol_operand(p, &second);
            o->pair = second.kind == OPERAND_REGISTER ? second.reg : NO_REGISTER;
        } else if (o->symbol && lex_accept(p, "+")) {
            o->value += parse_number(p);
        }
    } else {
        parse_fail(p, "expected an operand, found '%s'", p->token.text);
    }
}
