/* single_file.c: checkpoints in one file for tests. */
#include "single_file.h"
#include "run.h"

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct pair {
    const char *from, *to;
} pair;

static const pair unet_layers[] = {{"norm1.", "in_layers.0."},
                                   {"conv1.", "in_layers.2."},
                                   {"norm2.", "out_layers.0."},
                                   {"conv2.", "out_layers.3."},
                                   {"time_emb_proj.", "emb_layers.1."},
                                   {"conv_shortcut.", "skip_connection."},
                                   {NULL, NULL}};
static const pair vae_layers[] = {{"conv_shortcut.", "nin_shortcut."},
                                  {"group_norm.", "norm."},
                                  {"to_q.", "q."},
                                  {"to_k.", "k."},
                                  {"to_v.", "v."},
                                  {"to_out.0.", "proj_out."},
                                  {NULL, NULL}};

static const pair tiny_unet[] = {{"down_blocks.0.resnets.0.", "input_blocks.1.0."},
                                 {"down_blocks.0.attentions.0.", "input_blocks.1.1."},
                                 {"down_blocks.0.resnets.1.", "input_blocks.2.0."},
                                 {"down_blocks.0.attentions.1.", "input_blocks.2.1."},
                                 {"down_blocks.0.downsamplers.0.conv.", "input_blocks.3.0.op."},
                                 {"down_blocks.1.resnets.0.", "input_blocks.4.0."},
                                 {"down_blocks.1.attentions.0.", "input_blocks.4.1."},
                                 {"down_blocks.1.resnets.1.", "input_blocks.5.0."},
                                 {"down_blocks.1.attentions.1.", "input_blocks.5.1."},
                                 {"down_blocks.1.downsamplers.0.conv.", "input_blocks.6.0.op."},
                                 {"down_blocks.2.resnets.0.", "input_blocks.7.0."},
                                 {"down_blocks.2.resnets.1.", "input_blocks.8.0."},
                                 {"up_blocks.0.resnets.0.", "output_blocks.0.0."},
                                 {"up_blocks.0.resnets.1.", "output_blocks.1.0."},
                                 {"up_blocks.0.resnets.2.", "output_blocks.2.0."},
                                 {"up_blocks.0.upsamplers.0.conv.", "output_blocks.2.1.conv."},
                                 {"up_blocks.1.resnets.0.", "output_blocks.3.0."},
                                 {"up_blocks.1.attentions.0.", "output_blocks.3.1."},
                                 {"up_blocks.1.resnets.1.", "output_blocks.4.0."},
                                 {"up_blocks.1.attentions.1.", "output_blocks.4.1."},
                                 {"up_blocks.1.resnets.2.", "output_blocks.5.0."},
                                 {"up_blocks.1.attentions.2.", "output_blocks.5.1."},
                                 {"up_blocks.1.upsamplers.0.conv.", "output_blocks.5.2.conv."},
                                 {"up_blocks.2.resnets.0.", "output_blocks.6.0."},
                                 {"up_blocks.2.attentions.0.", "output_blocks.6.1."},
                                 {"up_blocks.2.resnets.1.", "output_blocks.7.0."},
                                 {"up_blocks.2.attentions.1.", "output_blocks.7.1."},
                                 {"up_blocks.2.resnets.2.", "output_blocks.8.0."},
                                 {"up_blocks.2.attentions.2.", "output_blocks.8.1."},
                                 {NULL, NULL}};
static const pair emoji_unet[] = {{"down_blocks.0.resnets.0.", "input_blocks.1.0."},
                                  {"down_blocks.0.attentions.0.", "input_blocks.1.1."},
                                  {"down_blocks.0.downsamplers.0.conv.", "input_blocks.2.0.op."},
                                  {"down_blocks.1.resnets.0.", "input_blocks.3.0."},
                                  {"down_blocks.1.attentions.0.", "input_blocks.3.1."},
                                  {"down_blocks.1.downsamplers.0.conv.", "input_blocks.4.0.op."},
                                  {"down_blocks.2.resnets.0.", "input_blocks.5.0."},
                                  {"up_blocks.0.resnets.0.", "output_blocks.0.0."},
                                  {"up_blocks.0.resnets.1.", "output_blocks.1.0."},
                                  {"up_blocks.0.upsamplers.0.conv.", "output_blocks.1.1.conv."},
                                  {"up_blocks.1.resnets.0.", "output_blocks.2.0."},
                                  {"up_blocks.1.attentions.0.", "output_blocks.2.1."},
                                  {"up_blocks.1.resnets.1.", "output_blocks.3.0."},
                                  {"up_blocks.1.attentions.1.", "output_blocks.3.1."},
                                  {"up_blocks.1.upsamplers.0.conv.", "output_blocks.3.2.conv."},
                                  {"up_blocks.2.resnets.0.", "output_blocks.4.0."},
                                  {"up_blocks.2.attentions.0.", "output_blocks.4.1."},
                                  {"up_blocks.2.resnets.1.", "output_blocks.5.0."},
                                  {"up_blocks.2.attentions.1.", "output_blocks.5.1."},
                                  {NULL, NULL}};
static const pair both_unet[] = {{"conv_in.", "input_blocks.0.0."},
                                 {"time_embedding.linear_1.", "time_embed.0."},
                                 {"time_embedding.linear_2.", "time_embed.2."},
                                 {"mid_block.resnets.0.", "middle_block.0."},
                                 {"mid_block.attentions.0.", "middle_block.1."},
                                 {"mid_block.resnets.1.", "middle_block.2."},
                                 {"conv_norm_out.", "out.0."},
                                 {"conv_out.", "out.2."},
                                 {NULL, NULL}};
static const pair both_vae[] = {{"decoder.mid_block.resnets.0.", "decoder.mid.block_1."},
                                {"decoder.mid_block.attentions.0.", "decoder.mid.attn_1."},
                                {"decoder.mid_block.resnets.1.", "decoder.mid.block_2."},
                                {"decoder.up_blocks.0.resnets.0.", "decoder.up.3.block.0."},
                                {"decoder.up_blocks.0.resnets.1.", "decoder.up.3.block.1."},
                                {"decoder.up_blocks.0.upsamplers.0.", "decoder.up.3.upsample."},
                                {"decoder.up_blocks.1.resnets.0.", "decoder.up.2.block.0."},
                                {"decoder.up_blocks.1.resnets.1.", "decoder.up.2.block.1."},
                                {"decoder.up_blocks.1.upsamplers.0.", "decoder.up.2.upsample."},
                                {"decoder.up_blocks.2.resnets.0.", "decoder.up.1.block.0."},
                                {"decoder.up_blocks.2.resnets.1.", "decoder.up.1.block.1."},
                                {"decoder.up_blocks.2.upsamplers.0.", "decoder.up.1.upsample."},
                                {"decoder.up_blocks.3.resnets.0.", "decoder.up.0.block.0."},
                                {"decoder.up_blocks.3.resnets.1.", "decoder.up.0.block.1."},
                                {"decoder.conv_norm_out.", "decoder.norm_out."},
                                {NULL, NULL}};

static const pair *begins(const pair *table, const char *name) {
    for (; table->from; ++table)
        if (strncmp(name, table->from, strlen(table->from)) == 0)
            return table;
    return NULL;
}

static void rename_unet(int tiny, const char *name, char out[256]) {
    const pair *block = begins(tiny ? tiny_unet : emoji_unet, name);
    if (!block)
        block = begins(both_unet, name);
    ck_assert_msg(block != NULL, "%s is in no table", name);
    const char *rest = name + strlen(block->from);
    const pair *layer = strstr(block->from, "resnets") ? begins(unet_layers, rest) : NULL;
    (void)snprintf(out, 256, "model.diffusion_model.%s%s%s", block->to, layer ? layer->to : "",
                   layer ? rest + strlen(layer->from) : rest);
}

/* The encoder keeps its names: nobody reads it. */
static void rename_vae(const char *name, char out[256]) {
    const pair *block = begins(both_vae, name);
    const char *rest = block ? name + strlen(block->from) : name;
    const pair *layer = block ? begins(vae_layers, rest) : NULL;
    (void)snprintf(out, 256, "first_stage_model.%s%s%s", block ? block->to : "", layer ? layer->to : "",
                   layer ? rest + strlen(layer->from) : rest);
}

static uint64_t header_bytes(const char *bytes) {
    uint64_t length = 0;
    for (int i = 7; i >= 0; --i)
        length = length << 8 | (unsigned char)bytes[i];
    return length;
}

static void write_file(const char *path, const json_t *header, const char *data, size_t size) {
    char *text = json_dumps(header, JSON_COMPACT);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    for (int i = 0; i < 8; ++i)
        fputc((int)((uint64_t)strlen(text) >> (8 * i) & 0xff), file);
    fputs(text, file);
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
    free(text);
}

/* Linear layers of the VAE's attention are 1×1 convolutions in the old file. */
static void make_convolution(const char *name, json_t *entry) {
    json_t *shape = json_object_get(entry, "shape");
    if (strstr(name, ".attn_1.") && json_array_size(shape) == 2) {
        json_array_append_new(shape, json_integer(1));
        json_array_append_new(shape, json_integer(1));
    }
}

/* One part's tensors behind those that are there already. */
static void add_part(json_t *header, FILE *data, uint64_t *at, int tiny, int part) {
    static const char *const files[] = {"text_encoder/model", "unet/diffusion_pytorch_model",
                                        "vae/diffusion_pytorch_model"};
    char path[4500], name[256];
    (void)snprintf(path, sizeof path, "%s/%s/%s.safetensors", run_source(),
                   tiny ? "tests/golden/data/tiny" : "models/emoji", files[part]);
    size_t size;
    char *bytes = run_read(path, &size);
    uint64_t start = 8 + header_bytes(bytes);
    json_t *from = json_loadb(bytes + 8, start - 8, 0, NULL), *value;
    const char *key;
    json_object_foreach(from, key, value) {
        if (strcmp(key, "__metadata__") == 0)
            continue;
        if (part == 0)
            (void)snprintf(name, sizeof name, "cond_stage_model.transformer.%s", key);
        else if (part == 1)
            rename_unet(tiny, key, name);
        else
            rename_vae(key, name);
        json_t *offsets = json_object_get(value, "data_offsets"), *entry = json_deep_copy(value);
        uint64_t begin = (uint64_t)json_integer_value(json_array_get(offsets, 0));
        uint64_t length = (uint64_t)json_integer_value(json_array_get(offsets, 1)) - begin;
        make_convolution(name, entry);
        json_object_set_new(entry, "data_offsets",
                            json_pack("[I, I]", (json_int_t)*at, (json_int_t)(*at + length)));
        ck_assert_ptr_null(json_object_get(header, name));
        ck_assert_int_eq(json_object_set_new(header, name, entry), 0);
        ck_assert_uint_eq(fwrite(bytes + start + begin, 1, length, data), length);
        *at += length;
    }
    json_decref(from);
    free(bytes);
}

void single_file_write(const char *model, const char *path) {
    char *data = NULL;
    size_t size = 0;
    uint64_t at = 0;
    FILE *stream = open_memstream(&data, &size);
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    for (int part = 0; part < 3; ++part)
        add_part(header, stream, &at, strcmp(model, "tiny") == 0, part);
    ck_assert_int_eq(fclose(stream), 0);
    write_file(path, header, data, size);
    json_decref(header);
    free(data);
}

#define SCHEDULER                                                                                            \
    "\"scheduler\": {\"num_train_timesteps\": 1000, \"beta_start\": 0.00085, \"beta_end\": 0.012, "          \
    "\"beta_schedule\": "                                                                                    \
    "\"scaled_linear\", \"prediction_type\": \"epsilon\"}"

const char *single_file_config(const char *model) {
    return strcmp(model, "tiny") == 0
               ? "{\"unet\": {\"attention_head_dim\": [2, 3, 4], \"norm_num_groups\": 4, \"sample_size\": 8},"
                 " \"vae\": {\"norm_num_groups\": 4, \"scaling_factor\": 0.2},"
                 " \"text_encoder\": {\"num_attention_heads\": 3, \"hidden_act\": \"gelu\"}, " SCHEDULER "}"
               : "{\"unet\": {\"attention_head_dim\": 4, \"norm_num_groups\": 16, \"sample_size\": 16},"
                 " \"vae\": {\"norm_num_groups\": 8, \"scaling_factor\": 0.18215},"
                 " \"text_encoder\": {\"num_attention_heads\": 4, \"hidden_act\": \"quick_gelu\"}, " SCHEDULER
                 "}";
}

void single_file_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

json_t *single_file_header(const char *path) {
    char *bytes = run_read(path, NULL);
    json_t *header = json_loadb(bytes + 8, header_bytes(bytes), 0, NULL);
    ck_assert_ptr_nonnull(header);
    free(bytes);
    return header;
}

void single_file_put(const char *path, const json_t *header) {
    size_t size;
    char *bytes = run_read(path, &size);
    uint64_t start = 8 + header_bytes(bytes);
    write_file(path, header, bytes + start, size - start);
    free(bytes);
}

/* Replace the first bytes of a tensor; `dtype` NULL = it keeps its type. */
static void overwrite(const char *path, const char *name, const char *dtype, const void *first,
                      size_t count) {
    size_t size;
    char *bytes = run_read(path, &size);
    json_t *header = single_file_header(path), *entry = json_object_get(header, name);
    const json_t *offsets = json_object_get(entry, "data_offsets");
    ck_assert_msg(offsets != NULL, "there is no %s", name);
    uint64_t start = 8 + header_bytes(bytes);
    memcpy(bytes + start + json_integer_value(json_array_get(offsets, 0)), first, count);
    if (dtype)
        json_object_set_new(entry, "dtype", json_string(dtype));
    write_file(path, header, bytes + start, size - start);
    json_decref(header);
    free(bytes);
}

void single_file_poison(const char *path, const char *name) {
    overwrite(path, name, NULL, "\xff\xff\xff\xff", 4);
}

void single_file_set(const char *path, const char *name, float value) {
    json_t *header = single_file_header(path);
    const char *dtype = json_string_value(json_object_get(json_object_get(header, name), "dtype"));
    ck_assert_msg(dtype != NULL, "there is no %s", name);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t half = (uint16_t)(bits >> 16);
    bits = (uint32_t)half << 16;
    if (strcmp(dtype, "F32") == 0)
        overwrite(path, name, NULL, &bits, sizeof bits);
    else
        overwrite(path, name, "BF16", &half, sizeof half);
    json_decref(header);
}

void single_file_names(const char *path, const char *const *names, const char *shape) {
    static const char zeros[1 << 16];
    json_t *header = json_object();
    json_int_t at = 0;
    for (size_t i = 0; names[i]; ++i) {
        json_t *extents = json_loads(i == 0 && shape ? shape : "[1]", 0, NULL);
        json_int_t bytes = 4;
        for (size_t k = 0; k < json_array_size(extents); ++k)
            bytes *= json_integer_value(json_array_get(extents, k));
        json_object_set_new(header, names[i],
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", extents,
                                      "data_offsets", at, at + bytes));
        at += bytes;
    }
    ck_assert_int_le(at, (json_int_t)sizeof zeros);
    write_file(path, header, zeros, (size_t)at);
    json_decref(header);
}
