/* prompt.c: the texts of a request as tokens. */
#include "plugin/sampler/prompt.h"

static void warn_cut(const services *host, const char *which, const char *text, const tokenizer_cut *cut) {
    char line[256];
    size_t length = strlen(text);
    const char *from = text + (cut->offset < length ? cut->offset : length);
    (void)snprintf(line, sizeof line, "the %s has %zu tokens; the last %zu are left out, from \"%.60s\" on",
                   which, cut->tokens, cut->dropped, from);
    host->log->log(host->log->context, ATTUNE_LOG_WARNING, line);
}

attune_code prompt_read(const services *host, const tokenizer *tokens, const char *prompt,
                        const char *negative, prompt_tokens *out, attune_error *error) {
    const char *texts[PROMPT_MAX_TEXTS] = {prompt, negative};
    static const char *const which[PROMPT_MAX_TEXTS] = {"prompt", "negative prompt"};
    const int64_t count = negative ? 2 : 1;
    out->texts = count;
    for (int64_t i = 0; i < count; ++i) {
        tokenizer_cut cut;
        attune_code code = tokenizer_chunk77(tokens, texts[i], out->ids + i * TOKENIZER_CHUNK, &cut, error);
        if (code != ATTUNE_OK)
            return code;
        if (cut.dropped > 0)
            warn_cut(host, which[i], texts[i], &cut);
    }
    return ATTUNE_OK;
}
