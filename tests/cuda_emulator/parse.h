/* parse.h: what the parser (parse.c), the decoder (decode.c) and the lexer (lex.c) share; only they include
 * it. */
#ifndef CUDA_EMULATOR_PARSE_H
#define CUDA_EMULATOR_PARSE_H

#include "tests/cuda_emulator/ptx.h"

#include <setjmp.h>

enum token_kind { TOKEN_END, TOKEN_WORD, TOKEN_NUMBER, TOKEN_STRING, TOKEN_PUNCTUATION };

typedef struct token {
    enum token_kind kind;
    char text[200];
    uint64_t value;
    char floating; /* 'f' or 'd' for 0f… and 0d…, else 0 */
} token;

enum symbol_kind { SYMBOL_REGISTER, SYMBOL_PARAM, SYMBOL_SHARED, SYMBOL_LOCAL, SYMBOL_GLOBAL };

typedef struct symbol {
    char name[MAX_NAME];
    enum symbol_kind kind;
    enum ptx_type type;
    uint64_t value; /* first register, or address */
    size_t count;   /* of registers NAME0 … NAMEcount-1; 0: just NAME */
    uint64_t size, align;
    const ptx_kernel *owner; /* of a module's shared variable: the kernel that `value` is an offset in */
    bool dynamic;            /* extern .shared: begins where the kernel's other shared variables end */
} symbol;

typedef struct label {
    char name[MAX_NAME];
    int scope;
    int at;
} label;

typedef struct function { /* .func: its text is parsed where it is called */
    char name[MAX_NAME];
    const char *parameters, *body; /* text after "(" and "{" */
    const char *results;           /* text after "(" of the result list, NULL */
    int line;
} function;

enum { MAX_SCOPES = 4096 };

typedef struct parser {
    const char *at, *end;
    int line;
    token token;
    jmp_buf failed;
    char *error;
    size_t error_size;
    ptx_module *module;
    ptx_kernel *kernel;
    uint64_t (*place)(uint64_t size, void *context);
    void *place_context;
    symbol *symbols;
    size_t symbol_count, symbol_capacity;
    label *labels;
    size_t label_count, label_capacity;
    struct branch {
        size_t instruction;
        char name[MAX_NAME];
        int scope, line;
    } * branches;
    size_t branch_count, branch_capacity;
    function *functions;
    size_t function_count;
    int scopes[MAX_SCOPES], scope, scope_count; /* parent of each; current */
    uint32_t dynamic_base[2]; /* registers that hold the beginning of dynamic shared memory, 32 and 64 bits */
    uint32_t
        *constants; /* of the kernel: registers + 1 by a hash of their value, a table of a power of two */
    size_t constant_count, constant_capacity;
    uint32_t loc;
    int depth;             /* of inlined calls */
    const char *return_to; /* label where ret goes inside an inlined call */
} parser;

/* lex.c */
void lex_next(parser *p);
void lex_skip_line(parser *p);
_Noreturn void parse_fail(parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool lex_is(const parser *p, const char *text);
void lex_expect(parser *p, const char *text);
bool lex_accept(parser *p, const char *text);

enum operand_kind {
    OPERAND_NONE,
    OPERAND_REGISTER,
    OPERAND_IMMEDIATE,
    OPERAND_ADDRESS /* [..] */,
    OPERAND_SYMBOL,
    OPERAND_SINK,
    OPERAND_VECTOR,
    OPERAND_WORD
};

typedef struct operand {
    enum operand_kind kind;
    uint32_t reg;   /* register, or base of an address (NO_REGISTER: none) */
    bool negated;   /* !%p */
    uint64_t value; /* immediate, or offset of an address */
    char floating;
    const symbol *symbol;
    char word[MAX_NAME];
    uint32_t pair; /* the second of %p|%q, or NO_REGISTER */
    int count;
    struct {
        enum operand_kind kind;
        uint32_t reg;
        uint64_t value;
        char floating;
    } element[8];
} operand;

/* parse.c */
enum ptx_type parse_type(const char *name); /* TYPE_NONE where it is none */
int parse_type_size(enum ptx_type type);
uint32_t parse_constant(parser *p, uint64_t value, bool wide);
uint32_t parse_special(parser *p, enum ptx_special which);
uint32_t parse_new_register(parser *p, enum ptx_kind kind);
ptx_instruction *parse_append(parser *p);
void parse_branch_to(parser *p, const char *label, int scope);

void parse_set_name(parser *p, char to[MAX_NAME], const char *name);
uint64_t parse_number(parser *p);
/* A symbol by name, the innermost first; *index is which of NAME0, NAME1, ... NULL: there is none. */
symbol *parse_find_symbol(parser *p, const char *name, size_t *index);
/* The register that holds where dynamic shared memory begins. */
uint32_t parse_dynamic_base(parser *p, bool wide);

/* operands.c */
void parse_symbol_operand(parser *p, operand *o);
void parse_operand(parser *p, operand *o);

/* decode.c: turn a mnemonic and its operands into an instruction (appended). */
void decode(parser *p, char *mnemonic, operand *operands, int count, uint32_t guard, bool guard_not);

#endif
