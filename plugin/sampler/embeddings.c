/* embeddings.c: CLIP's text encoder. */
#include "plugin/sampler/embeddings.h"

static void load_layer(weights_loader *loader, text_layer *layer, const text_config *config, int64_t index) {
    static const char *const qkv[] = {".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"};
    char block[WEIGHTS_NAME];
    int64_t c = config->hidden_size;
    (void)snprintf(block, sizeof block, "encoder.layers.%lld", (long long)index);
    layer->norm1 = weights_normalisation(loader, block, ".layer_norm1", c);
    layer->qkv = weights_stacked(loader, block, qkv, 3, 1, c, c);
    layer->out = weights_linear(loader, block, ".self_attn.out_proj", c, c);
    layer->norm2 = weights_normalisation(loader, block, ".layer_norm2", c);
    layer->fc1 = weights_linear(loader, block, ".mlp.fc1", c, config->intermediate_size);
    layer->fc2 = weights_linear(loader, block, ".mlp.fc2", config->intermediate_size, c);
}

void text_encoder_load(weights_loader *loader, text_encoder *encoder, const text_config *config) {
    static const char table[] = "embeddings.token_embedding.weight";
    uint64_t layers = (uint64_t)config->num_hidden_layers;
    memset(encoder, 0, sizeof *encoder);
    encoder->config = *config;
    encoder->layers = services_clear_alloc(loader->pool->host, layers, sizeof *encoder->layers, "model");
    if (!encoder->layers) {
        loader->code = services_no_memory("text encoder", layers * sizeof *encoder->layers, loader->error);
        return;
    }
    encoder->tokens = weights_table(loader, table, config->vocab_size, config->hidden_size);
    weights_layer_name(loader, table, encoder->table);
    encoder->positions = weights_matrix(loader, "embeddings.position_embedding.weight",
                                        config->max_position_embeddings, config->hidden_size);
    for (int64_t i = 0; i < config->num_hidden_layers; ++i)
        load_layer(loader, &encoder->layers[i], config, i);
    encoder->final_norm = weights_normalisation(loader, "final_layer_norm", "", config->hidden_size);
}

void text_encoder_close(const services *host, text_encoder *encoder) {
    services_free(host, encoder->layers);
    encoder->layers = NULL;
}

static attune_code norm_rows(pass *p, const text_encoder *encoder, const float *x, int64_t rows,
                             const weights_norm *norm, float *out, attune_error *error) {
    device_layer_norm args = {
        x,   rows,      encoder->config.hidden_size, encoder->config.layer_norm_eps, norm->scale, norm->shift,
        out, norm->name};
    return pass_layer_norm(p, &args, error);
}

/* x += out(causal attention of norm1(x)) */
static attune_code attend(pass *p, const text_encoder *encoder, const text_layer *layer, float *x,
                          int64_t texts, int64_t tokens, attune_error *error) {
    int64_t c = encoder->config.hidden_size, heads = encoder->config.num_attention_heads,
            rows = texts * tokens;
    float *normed, *qkv;
    PASS_TRY(pass_take(p, rows * c, &normed, error));
    PASS_TRY(norm_rows(p, encoder, x, rows, &layer->norm1, normed, error));
    PASS_TRY(pass_take(p, rows * 3 * c, &qkv, error));
    device_linear project = {.x = normed, .rows = rows, .out = qkv};
    PASS_TRY(pass_linear(p, layer->qkv, &project, error));
    attention_view q = {qkv, tokens, 3 * c, tokens * 3 * c}, k = q, v = q,
                   out = {normed, tokens, c, tokens * c};
    k.data += c;
    v.data += 2 * c;
    attention_call call = {texts, heads, c / heads, 1, q, k, v, out, layer->qkv};
    PASS_TRY(attention_run(p, &call, error));
    pass_give(p, &qkv);
    device_linear join = {.x = normed, .rows = rows, .out = x, .residual = x};
    PASS_TRY(pass_linear(p, layer->out, &join, error));
    pass_give(p, &normed);
    return ATTUNE_OK;
}

/* x += fc2(act(fc1(norm2(x)))) */
static attune_code feed_forward(pass *p, const text_encoder *encoder, const text_layer *layer, float *x,
                                int64_t rows, attune_error *error) {
    float *normed, *hidden;
    PASS_TRY(pass_take(p, rows * encoder->config.hidden_size, &normed, error));
    PASS_TRY(norm_rows(p, encoder, x, rows, &layer->norm2, normed, error));
    PASS_TRY(pass_take(p, rows * encoder->config.intermediate_size, &hidden, error));
    device_linear widen = {
        .x = normed, .rows = rows, .out = hidden, .activation = encoder->config.hidden_act};
    PASS_TRY(pass_linear(p, layer->fc1, &widen, error));
    pass_give(p, &normed);
    device_linear join = {.x = hidden, .rows = rows, .out = x, .residual = x};
    PASS_TRY(pass_linear(p, layer->fc2, &join, error));
    pass_give(p, &hidden);
    return ATTUNE_OK;
}

attune_code text_encoder_forward(pass *p, const text_encoder *encoder, const text_input *input, float **out,
                                 attune_error *error) {
    int64_t texts = input->texts, tokens = input->tokens, rows = texts * tokens;
    PASS_TRY(pass_take(p, rows * encoder->config.hidden_size, out, error));
    device_embed embed = {input->ids,         rows, tokens, encoder->config.hidden_size, encoder->tokens,
                          encoder->positions, *out};
    PASS_TRY(p->ops->embed(p->dev, &p->run, &embed, error));
    PASS_TRY(pass_watch(p, encoder->table, *out, rows, encoder->config.hidden_size,
                        encoder->config.hidden_size, error));
    for (int64_t i = 0; i <= encoder->config.num_hidden_layers - input->skip; ++i) {
        PASS_TRY(attend(p, encoder, &encoder->layers[i], *out, texts, tokens, error));
        PASS_TRY(feed_forward(p, encoder, &encoder->layers[i], *out, rows, error));
    }
    return norm_rows(p, encoder, *out, rows, &encoder->final_norm, *out, error);
}
