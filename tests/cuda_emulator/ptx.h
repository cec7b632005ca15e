/*
 * ptx.h: a PTX module as the emulator executes it: kernels of decoded instructions, one cache line each,
 * whose operands are places in a warp's register file.
 */
#ifndef CUDA_EMULATOR_PTX_H
#define CUDA_EMULATOR_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The generic address space (PTX ISA 9.0, 5.1): device memory keeps its addresses, these windows hold the
 * rest. */
#define SHARED_WINDOW (1ull << 56)
#define LOCAL_WINDOW  (1ull << 57)

enum {
    LANES = 32,
    LINE = 4 * LANES /* bytes of a 32-bit register of all lanes */,
    MAX_OPERANDS = 14,
    MAX_NAME = 120
};
enum { NO_REGISTER = 0xffff };

enum ptx_space { SPACE_GENERIC, SPACE_GLOBAL, SPACE_SHARED, SPACE_LOCAL, SPACE_PARAM };
enum ptx_type {
    TYPE_B8,
    TYPE_B16,
    TYPE_B32,
    TYPE_B64,
    TYPE_B128,
    TYPE_U8,
    TYPE_U16,
    TYPE_U32,
    TYPE_U64,
    TYPE_S8,
    TYPE_S16,
    TYPE_S32,
    TYPE_S64,
    TYPE_F16,
    TYPE_BF16,
    TYPE_F16X2,
    TYPE_BF16X2,
    TYPE_F32,
    TYPE_F64,
    TYPE_PRED,
    TYPE_NONE
};

/* Opcodes below 512 are line numbers of ops.h. */
enum ptx_op {
    OP_SETP = 512,
    OP_LOP3,
    OP_BFI,
    OP_PACK,
    OP_UNPACK,
    OP_LD,
    OP_ST,
    OP_LDMATRIX,
    OP_CP_ASYNC,
    OP_CP_COMMIT,
    OP_CP_WAIT,
    OP_ATOM,
    OP_BRA,
    OP_EXIT,
    OP_BAR,
    OP_BAR_WARP,
    OP_SHFL,
    OP_VOTE,
    OP_ACTIVEMASK,
    OP_REDUX,
    OP_MMA,
    OP_FENCE,
    OP_TRAP,
    OP_COUNT
};

/* Special registers, filled at a warp's start (PTX ISA 9.0, 10); each is a 32-bit register. */
enum ptx_special {
    SPECIAL_TID_X,
    SPECIAL_TID_Y,
    SPECIAL_TID_Z,
    SPECIAL_NTID_X,
    SPECIAL_NTID_Y,
    SPECIAL_NTID_Z,
    SPECIAL_CTAID_X,
    SPECIAL_CTAID_Y,
    SPECIAL_CTAID_Z,
    SPECIAL_NCTAID_X,
    SPECIAL_NCTAID_Y,
    SPECIAL_NCTAID_Z,
    SPECIAL_LANEID,
    SPECIAL_WARPID,
    SPECIAL_LANEMASK_EQ,
    SPECIAL_LANEMASK_LE,
    SPECIAL_LANEMASK_LT,
    SPECIAL_LANEMASK_GE,
    SPECIAL_LANEMASK_GT,
    SPECIAL_SHARED_SIZE,
    SPECIAL_COUNT
};

/* Flags of an instruction. */
enum {
    GUARD_NOT = 1,
    CHECK_READS = 2 /* a source may be undefined */,
    TRACK_WRITES = 4 /* note that the result is defined */
};

typedef struct ptx_instruction {
    uint16_t op;
    uint8_t flags;
    uint8_t writes, reads; /* operands r[0..writes) are written, the rest read */
    uint8_t space;         /* of memory */
    uint8_t type;          /* of an element */
    uint8_t count;         /* elements of a vector, matrices of ldmatrix, sources of lop3 */
    uint8_t mode, mode2;   /* comparison, atomic operation, cache or shuffle mode: decode.c says per opcode */
    uint16_t guard;        /* predicate register or NO_REGISTER */
    uint16_t r[MAX_OPERANDS];
    uint32_t loc;           /* index into the module's locations */
    int64_t offset;         /* of an address; immediate of lop3 and cp.async */
    int32_t target, rejoin; /* of a branch: instruction to go to, instruction where the lanes meet again (-1:
                               at the end) */
} ptx_instruction;

typedef struct ptx_location {
    int32_t file, line;             /* the innermost */
    int32_t outer_file, outer_line; /* where that was inlined, 0 if nowhere */
} ptx_location;

enum ptx_kind { KIND_PREDICATE, KIND_32, KIND_64, KIND_CONSTANT_32, KIND_CONSTANT_64, KIND_SPECIAL };

/* A register before places are given out. */
typedef struct ptx_register {
    uint8_t kind;
    bool tracked;   /* some use may be undefined: the place is its own and its definedness is noted */
    uint64_t value; /* of a constant; which special register */
    uint16_t place;
} ptx_register;

typedef struct ptx_parameter {
    char name[MAX_NAME];
    uint32_t offset, size;
} ptx_parameter;

typedef struct ptx_kernel {
    char *name;
    struct ptx_module *module;
    ptx_instruction *code;
    size_t length, capacity;
    ptx_register *registers;
    size_t register_count, register_capacity;
    ptx_parameter *parameters;
    size_t parameter_count, parameter_bytes;
    uint32_t shared_static, local_bytes;
    uint32_t max_threads, required[3]; /* .maxntid, .reqntid; 0: none */
    uint32_t lines;                    /* of the register file of a warp */
    uint32_t special[SPECIAL_COUNT];   /* their places, NO_REGISTER where unused */
    bool uses_dynamic_shared;
    bool finished; /* ptx_finish has run */
} ptx_kernel;

/* A variable of the module in device memory. */
typedef struct ptx_variable {
    char *name;
    uint64_t address, size, align;
    unsigned char *initial; /* NULL: zeros */
} ptx_variable;

typedef struct ptx_module {
    int target; /* 80 for sm_80 */
    ptx_kernel **kernels;
    size_t kernel_count;
    ptx_variable *variables;
    size_t variable_count;
    ptx_location *locations;
    size_t location_count, location_capacity;
    char *files[512];
} ptx_module;

/* Parse a module. `place` gives every variable its device address as it is declared. NULL and one line in
 * `error` (what, which line of the PTX) where something is not understood: nothing is skipped in silence. */
ptx_module *ptx_parse(const char *text, size_t size, uint64_t (*place)(uint64_t size, void *context),
                      void *context, char *error, size_t error_size);
void ptx_free(ptx_module *module);

/* flow.c: find where diverged lanes meet again, which reads may be undefined, and give every register a
 * place; once, before the first launch. Returns false where the kernel does not fit. */
bool ptx_finish(ptx_kernel *kernel, char *error, size_t error_size);

/* "attention.cu:123" of a location; the innermost line that is not CUDA's own header. */
void ptx_describe_location(const ptx_module *module, uint32_t loc, char *text, size_t size);

/* fatbin.c: the PTX in a fat binary with the newest target that is not above `capability` (80 for 8.0). NULL
 * and the reason where there is none. */
const char *fatbin_find_ptx(const void *fatbin, int capability, size_t *size, char *error, size_t error_size);

#endif
