/* transformer.c: the UNet's spatial transformer. */
#include "plugin/sampler/transformer.h"

static const float LAYER_NORM_EPS = 1e-5f; /* PyTorch's, which diffusers leaves as it is */
static const float GROUP_NORM_EPS = 1e-6f; /* Transformer2DModel sets its own, unlike the residual blocks */

static void load_block(weights_loader *loader, transformer_block *block, const char *base, int64_t channels,
                       int64_t text_channels) {
    static const char *const self[] = {".attn1.to_q", ".attn1.to_k", ".attn1.to_v"};
    static const char *const query[] = {".attn2.to_q"}, *const text[] = {".attn2.to_k", ".attn2.to_v"};
    block->norm1 = weights_normalisation(loader, base, ".norm1", channels);
    block->qkv = weights_stacked(loader, base, self, 3, 0, channels, channels);
    block->out1 = weights_linear(loader, base, ".attn1.to_out.0", channels, channels);
    block->norm2 = weights_normalisation(loader, base, ".norm2", channels);
    block->q = weights_stacked(loader, base, query, 1, 0, channels, channels);
    block->kv = weights_stacked(loader, base, text, 2, 0, text_channels, channels);
    block->out2 = weights_linear(loader, base, ".attn2.to_out.0", channels, channels);
    block->norm3 = weights_normalisation(loader, base, ".norm3", channels);
    block->ff1 = weights_geglu(loader, base, ".ff.net.0.proj", channels, 8 * channels); /* to 4 · channels */
    block->ff2 = weights_linear(loader, base, ".ff.net.2", 4 * channels, channels);
}

void transformer_load(weights_loader *loader, transformer *t, const char *base, int64_t channels,
                      int64_t heads, const unet_config *config, int32_t *contexts) {
    char name[WEIGHTS_NAME];
    memset(t, 0, sizeof *t);
    t->channels = channels;
    t->heads = heads;
    t->groups = config->norm_num_groups;
    t->layers = (int32_t)config->transformer_layers;
    t->norm = weights_normalisation(loader, base, ".norm", channels);
    t->proj_in = weights_linear(loader, base, ".proj_in", channels, channels);
    t->proj_out = weights_linear(loader, base, ".proj_out", channels, channels);
    for (int32_t i = 0; i < t->layers; ++i) {
        (void)snprintf(name, sizeof name, "%s.transformer_blocks.%d", base, i);
        load_block(loader, &t->block[i], name, channels, config->cross_attention_dim);
        t->block[i].context = (*contexts)++;
    }
}

attune_code transformer_read_text(pass *p, const transformer *t, const float *text,
                                  const text_context *context, attune_error *error) {
    int64_t rows = context->texts * context->tokens;
    for (int32_t i = 0; i < t->layers; ++i) {
        float **kv = &context->kv[t->block[i].context];
        PASS_TRY(pass_keep(p, rows * 2 * t->channels, kv, error));
        device_linear args = {.x = text, .rows = rows, .out = *kv};
        PASS_TRY(pass_linear(p, t->block[i].kv, &args, error));
    }
    return ATTUNE_OK;
}

static attune_code norm_rows(pass *p, const transformer *t, const feature_map *x, const weights_norm *norm,
                             float *out, attune_error *error) {
    device_layer_norm args = {x->data,     x->batch * x->height * x->width,
                              t->channels, LAYER_NORM_EPS,
                              norm->scale, norm->shift,
                              out,         norm->name};
    return pass_layer_norm(p, &args, error);
}

static attention_view view_of(float *data, int64_t tokens, int64_t row) {
    return (attention_view){data, tokens, row, tokens * row};
}

/* x += out1(attention of x to itself) */
static attune_code attend_self(pass *p, const transformer *t, const transformer_block *block, feature_map *x,
                               attune_error *error) {
    int64_t tokens = x->height * x->width, rows = x->batch * tokens, c = t->channels;
    float *normed, *qkv, *attended;
    PASS_TRY(pass_take(p, rows * c, &normed, error));
    PASS_TRY(norm_rows(p, t, x, &block->norm1, normed, error));
    PASS_TRY(pass_take(p, rows * 3 * c, &qkv, error));
    device_linear project = {.x = normed, .rows = rows, .out = qkv};
    PASS_TRY(pass_linear(p, block->qkv, &project, error));
    pass_give(p, &normed);
    PASS_TRY(pass_take(p, rows * c, &attended, error));
    attention_call call = {x->batch,
                           t->heads,
                           c / t->heads,
                           0,
                           view_of(qkv, tokens, 3 * c),
                           view_of(qkv + c, tokens, 3 * c),
                           view_of(qkv + 2 * c, tokens, 3 * c),
                           view_of(attended, tokens, c),
                           block->qkv};
    PASS_TRY(attention_run(p, &call, error));
    pass_give(p, &qkv);
    device_linear join = {.x = attended, .rows = rows, .out = x->data, .residual = x->data};
    PASS_TRY(pass_linear(p, block->out1, &join, error));
    pass_give(p, &attended);
    return ATTUNE_OK;
}

/* The attention of all images to their texts: in one call for one image per text, else one call per text,
 * whose keys and values all its images share. */
static attune_code attend_texts(pass *p, const transformer *t, const transformer_block *block,
                                const feature_map *x, const float *q, float *out, const text_context *context,
                                attune_error *error) {
    int64_t tokens = x->height * x->width, c = t->channels, images = x->batch / context->texts;
    int64_t calls = images == 1 ? 1 : context->texts, text = context->tokens * 2 * c,
            step = images * tokens * c;
    float *queries = (float *)(uintptr_t)q, *kv = context->kv[block->context]; /* tensors are not const */
    for (int64_t i = 0; i < calls; ++i) {
        attention_view k = {kv + (context->first + i) * text, context->tokens, 2 * c, images == 1 ? text : 0};
        attention_view v = k;
        v.data += c;
        attention_call call = {x->batch / calls,
                               t->heads,
                               c / t->heads,
                               0,
                               view_of(queries + i * step, tokens, c),
                               k,
                               v,
                               view_of(out + i * step, tokens, c),
                               block->q};
        PASS_TRY(attention_run(p, &call, error));
    }
    return ATTUNE_OK;
}

/* x += out2(attention of x to the text) */
static attune_code attend_text(pass *p, const transformer *t, const transformer_block *block, feature_map *x,
                               const text_context *context, attune_error *error) {
    int64_t rows = x->batch * x->height * x->width, c = t->channels;
    float *normed, *q;
    PASS_TRY(pass_take(p, rows * c, &normed, error));
    PASS_TRY(norm_rows(p, t, x, &block->norm2, normed, error));
    PASS_TRY(pass_take(p, rows * c, &q, error));
    device_linear project = {.x = normed, .rows = rows, .out = q};
    PASS_TRY(pass_linear(p, block->q, &project, error));
    PASS_TRY(attend_texts(p, t, block, x, q, normed, context, error));
    pass_give(p, &q);
    device_linear join = {.x = normed, .rows = rows, .out = x->data, .residual = x->data};
    PASS_TRY(pass_linear(p, block->out2, &join, error));
    pass_give(p, &normed);
    return ATTUNE_OK;
}

/* x += ff2(GEGLU(ff1(x))) */
static attune_code feed_forward(pass *p, const transformer *t, const transformer_block *block, feature_map *x,
                                attune_error *error) {
    int64_t rows = x->batch * x->height * x->width, c = t->channels;
    float *normed, *hidden;
    PASS_TRY(pass_take(p, rows * c, &normed, error));
    PASS_TRY(norm_rows(p, t, x, &block->norm3, normed, error));
    PASS_TRY(pass_take(p, rows * 4 * c, &hidden, error));
    device_linear widen = {.x = normed, .rows = rows, .out = hidden, .activation = DEVICE_GEGLU};
    PASS_TRY(pass_linear(p, block->ff1, &widen, error));
    pass_give(p, &normed);
    device_linear join = {.x = hidden, .rows = rows, .out = x->data, .residual = x->data};
    PASS_TRY(pass_linear(p, block->ff2, &join, error));
    pass_give(p, &hidden);
    return ATTUNE_OK;
}

attune_code transformer_forward(pass *p, const transformer *t, const feature_map *x,
                                const text_context *context, feature_map *out, attune_error *error) {
    int64_t rows = x->batch * x->height * x->width;
    feature_map hidden;
    PASS_TRY(image_take(p, x->batch, x->height, x->width, t->channels, out, error));
    PASS_TRY(image_norm(p, x, &t->norm, t->groups, GROUP_NORM_EPS, out->data, error));
    PASS_TRY(image_take(p, x->batch, x->height, x->width, t->channels, &hidden, error));
    device_linear in = {.x = out->data, .rows = rows, .out = hidden.data};
    PASS_TRY(pass_linear(p, t->proj_in, &in, error));
    for (int32_t i = 0; i < t->layers; ++i) {
        PASS_TRY(attend_self(p, t, &t->block[i], &hidden, error));
        PASS_TRY(attend_text(p, t, &t->block[i], &hidden, context, error));
        PASS_TRY(feed_forward(p, t, &t->block[i], &hidden, error));
    }
    device_linear last = {.x = hidden.data, .rows = rows, .out = out->data, .residual = x->data};
    PASS_TRY(pass_linear(p, t->proj_out, &last, error));
    pass_give(p, &hidden.data);
    return ATTUNE_OK;
}
