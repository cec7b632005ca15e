/* make_self_test.c: writes the known answers of libattune's self-test, as C, from kernels/reference. */
#include "host_api/self_test.h"
#include "kernels/arithmetic.h"
#include "kernels/attention.h"
#include "kernels/storage.h"
#include <stdio.h>

static float q[ATTUNE_SELF_TEST_VALUES], k[ATTUNE_SELF_TEST_VALUES], v[ATTUNE_SELF_TEST_VALUES],
    out[ATTUNE_SELF_TEST_VALUES], added[ATTUNE_SELF_TEST_VALUES];
static uint8_t kept[ATTUNE_SELF_TEST_VALUES];

/* Strides of a compact tensor of four axes. */
static void compact(int64_t stride[4], int64_t heads, int64_t tokens, int64_t channels) {
    stride[3] = 1;
    stride[2] = channels;
    stride[1] = tokens * channels;
    stride[0] = heads * tokens * channels;
}

static uint32_t stored(float x, int32_t storage) {
    return storage == ATTUNE_SELF_TEST_F16    ? attune_narrow_f16(x)
           : storage == ATTUNE_SELF_TEST_BF16 ? attune_narrow_bf16(x)
                                              : attune_bits_of(x);
}

static void write_case(FILE *file, uint32_t number) {
    const attune_self_test_case *c = &attune_self_tests[number];
    attune_attention_f32 args = {.batch = c->batch,
                                 .heads_q = c->heads_q,
                                 .heads_kv = c->heads_kv,
                                 .n_q = c->n_q,
                                 .n_k = c->n_k,
                                 .d_qk = c->d_qk,
                                 .d_v = c->d_v,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .out = out,
                                 .causal = c->causal};
    const int bits = attune_self_test_bits_of(c);
    attune_self_test_fill(q, c->batch * c->heads_q * c->n_q * c->d_qk, 4 * number + 1, bits);
    attune_self_test_fill(k, c->batch * c->heads_kv * c->n_k * c->d_qk, 4 * number + 2, bits);
    attune_self_test_fill(v, c->batch * c->heads_kv * c->n_k * c->d_v, 4 * number + 3, bits);
    attune_self_test_fill(added, c->n_q * c->n_k, 4 * number + 4, 24);
    attune_self_test_mask(kept, c->n_q, c->n_k, 4 * number + 4);
    compact(args.stride_q, c->heads_q, c->n_q, c->d_qk);
    compact(args.stride_k, c->heads_kv, c->n_k, c->d_qk);
    compact(args.stride_v, c->heads_kv, c->n_k, c->d_v);
    compact(args.stride_out, c->heads_q, c->n_q, c->d_v);
    args.stride_mask[2] = c->n_k;
    args.stride_mask[3] = 1;
    args.mask_kind = c->mask == ATTUNE_MASK_FLOAT  ? ATTUNE_KERNEL_MASK_FLOAT
                     : c->mask == ATTUNE_MASK_BOOL ? ATTUNE_KERNEL_MASK_BOOL
                                                   : ATTUNE_KERNEL_MASK_NONE;
    args.mask = c->mask == ATTUNE_MASK_FLOAT ? (const void *)added : kept;
    attune_attention_f32_reference(&args);
    for (int64_t i = 0; i < c->batch * c->heads_q * c->n_q * c->d_v; ++i)
        fprintf(file, "0x%08xu,%s", stored(out[i], c->storage), i % 8 == 7 ? "\n" : " ");
}

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "w") : NULL;
    if (!file) {
        fprintf(stderr, "make_self_test: error: usage: make_self_test FILE, which can be written\n");
        return 2;
    }
    fputs("/* Made by tools/make_self_test from kernels/reference. */\n#include \"host_api/self_test.h\"\n"
          "const char attune_self_test_arithmetic[] = \"" ATTUNE_ARITHMETIC_F32
          "\";\nconst uint32_t attune_self_test_bits[] = {\n",
          file);
    for (uint32_t i = 0; i < ATTUNE_SELF_TESTS; ++i)
        write_case(file, i);
    fputs("};\n", file);
    int failed = ferror(file);
    if (fclose(file) != 0 || failed) {
        fprintf(stderr, "make_self_test: error: cannot write %s\n", argv[1]);
        return 1;
    }
    return 0;
}
