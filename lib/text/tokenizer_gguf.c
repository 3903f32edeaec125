/* A tokenizer from GGUF metadata: byte-level BPE ("gpt2"); `pre` names how text is split. */
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "io/gguf.h"
#include "text/tokenizer_gguf.h"
#include "text/tokenizer_inside.h"

/* Types of tokens. */
enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 };

static const pgrad__gguf_pre PRES[] = {
    {"gpt-2", pgrad__pattern_gpt2, 0, 0, 0},    {"gpt2", pgrad__pattern_gpt2, 0, 0, 0},
    {"smollm", pgrad__pattern_gpt2, 1, 0, 0},   {"llama-bpe", pgrad__pattern_llama3, 0, 1, 1},
    {"llama3", pgrad__pattern_llama3, 0, 1, 1}, {"llama-v3", pgrad__pattern_llama3, 0, 1, 1},
    {"qwen2", pgrad__pattern_qwen2, 0, 0, 0},   {"deepseek-r1-qwen", pgrad__pattern_qwen2, 0, 0, 0},
};

pgrad_status pgrad__gguf_pre_find(const pgrad__gguf *gguf, const pgrad__gguf_pre **out)
{
    const char *text = "(none)";
    size_t length = 6;
    if (pgrad__gguf_has(gguf, "tokenizer.ggml.pre"))
        PGRAD__TRY(pgrad__gguf_string(gguf, "tokenizer.ggml.pre", &text, &length));
    for (size_t i = 0; i < sizeof PRES / sizeof PRES[0]; i++)
        if (strlen(PRES[i].name) == length && memcmp(PRES[i].name, text, length) == 0) {
            *out = &PRES[i];
            return PGRAD_OK;
        }
    return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: tokenizer.ggml.pre: '%.*s' is not built",
                       pgrad__gguf_path(gguf), (int)(length < 40 ? length : 40), text);
}

static pgrad_status check_kind(const pgrad__gguf *gguf)
{
    const char *text;
    size_t length;
    PGRAD__TRY(pgrad__gguf_string(gguf, "tokenizer.ggml.model", &text, &length));
    if (length != 4 || memcmp(text, "gpt2", 4) != 0)
        return pgrad__fail(
            PGRAD_E_UNSUPPORTED,
            "%s: tokenizer.ggml.model: expected gpt2 (byte-level BPE), found '%.*s', which is "
            "not built",
            pgrad__gguf_path(gguf), (int)(length < 40 ? length : 40), text);
    return PGRAD_OK;
}

static pgrad_status add_token(pgrad_tokenizer *t, uint32_t id, const char *text, size_t length,
                              int special)
{
    char *content;
    PGRAD__TRY(pgrad__copy_text(t->context, text, length, &content));
    pgrad__added_token token = {
        .content = content, .length = length, .id = (pgrad_token)id, .special = special};
    pgrad_status status = pgrad__tokenizer_add(t, &token);
    pgrad__free(t->context, content);
    return status;
}

static pgrad_status read_tokens(pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    static const char TOKENS[] = "tokenizer.ggml.tokens", TYPES[] = "tokenizer.ggml.token_type";
    size_t n, n_types = 0;
    int has_types = pgrad__gguf_has(gguf, TYPES);
    PGRAD__TRY(pgrad__gguf_array_count(gguf, TOKENS, &n));
    if (has_types)
        PGRAD__TRY(pgrad__gguf_array_count(gguf, TYPES, &n_types));
    if (has_types && n_types != n)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: %s: expected %zu elements as there are tokens, found %zu",
                           pgrad__gguf_path(gguf), TYPES, n, n_types);
    for (size_t i = 0; i < n; i++) {
        const char *text;
        size_t length;
        int32_t type = TYPE_NORMAL;
        PGRAD__TRY(pgrad__gguf_array_string(gguf, TOKENS, i, &text, &length));
        if (has_types)
            PGRAD__TRY(pgrad__gguf_array_i32(gguf, TYPES, i, &type));
        if (type == TYPE_UNUSED || length == 0)
            continue;
        if (type == TYPE_CONTROL || type == TYPE_USER_DEFINED)
            PGRAD__TRY(add_token(t, (uint32_t)i, text, length, type == TYPE_CONTROL));
        else
            PGRAD__TRY(pgrad__tokenizer_set_spelled(t, (uint32_t)i, text, length));
    }
    pgrad__special_sort(&t->added);
    return pgrad__tokenizer_index(t);
}

static pgrad_status read_merges(pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    static const char MERGES[] = "tokenizer.ggml.merges";
    size_t n;
    PGRAD__TRY(pgrad__gguf_array_count(gguf, MERGES, &n));
    PGRAD__TRY(pgrad__merges_init(&t->merges, t->context, n));
    for (size_t i = 0; i < n; i++) {
        const char *text;
        size_t length;
        PGRAD__TRY(pgrad__gguf_array_string(gguf, MERGES, i, &text, &length));
        const char *space = length > 1 ? memchr(text + 1, ' ', length - 1) : NULL;
        if (space == NULL)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: %s[%zu]: expected two parts, found '%.*s'",
                               pgrad__gguf_path(gguf), MERGES, i, (int)(length < 64 ? length : 64),
                               text);
        PGRAD__TRY(pgrad__tokenizer_merge(t, text, (size_t)(space - text), space + 1,
                                          length - (size_t)(space + 1 - text), (uint32_t)i,
                                          pgrad__gguf_path(gguf)));
    }
    return PGRAD_OK;
}

/* A role beyond the vocabulary is left out, as the reference reader does. */
static pgrad_status read_roles(pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    static const char *const KEYS[PGRAD__N_ROLES] = {
        "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.padding_token_id", "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.eot_token_id"};
    for (int i = 0; i < PGRAD__N_ROLES; i++) {
        uint32_t id;
        if (!pgrad__gguf_has(gguf, KEYS[i]))
            continue;
        PGRAD__TRY(pgrad__gguf_u32(gguf, KEYS[i], &id));
        if (id < t->n_ids && t->tokens[id].present)
            t->roles[i] = (pgrad_token)id;
    }
    return PGRAD_OK;
}

static pgrad_status read_template(pgrad_tokenizer *t, const pgrad__gguf *gguf, int adds_bos)
{
    int bos = adds_bos, eos = 0;
    if (pgrad__gguf_has(gguf, "tokenizer.ggml.add_bos_token"))
        PGRAD__TRY(pgrad__gguf_bool(gguf, "tokenizer.ggml.add_bos_token", &bos));
    if (pgrad__gguf_has(gguf, "tokenizer.ggml.add_eos_token"))
        PGRAD__TRY(pgrad__gguf_bool(gguf, "tokenizer.ggml.add_eos_token", &eos));
    if (bos && t->roles[PGRAD_TOKEN_BOS] >= 0)
        t->prefix_ids[t->n_prefix++] = t->roles[PGRAD_TOKEN_BOS];
    if (eos && t->roles[PGRAD_TOKEN_EOS] >= 0)
        t->suffix_ids[t->n_suffix++] = t->roles[PGRAD_TOKEN_EOS];
    return PGRAD_OK;
}

static pgrad_status read_all(pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    const pgrad__gguf_pre *pre;
    PGRAD__TRY(check_kind(gguf));
    PGRAD__TRY(pgrad__gguf_pre_find(gguf, &pre));
    if (pre->digits)
        PGRAD__TRY(pgrad__tokenizer_split(t, "\\p{N}", 5, PGRAD__SPLIT_ISOLATED, 0, 0, "digits"));
    PGRAD__TRY(pgrad__tokenizer_split(t, pre->pattern, strlen(pre->pattern), PGRAD__SPLIT_ISOLATED,
                                      0, 0, pre->name));
    t->ignore_merges = pre->ignore_merges;
    t->nfc = pre->pattern == pgrad__pattern_qwen2;
    PGRAD__TRY(read_tokens(t, gguf));
    PGRAD__TRY(read_merges(t, gguf));
    PGRAD__TRY(read_roles(t, gguf));
    PGRAD__TRY(read_template(t, gguf, pre->adds_bos));
    return pgrad__tokenizer_make_files(t, gguf, pre);
}

pgrad_status pgrad__tokenizer_read_gguf(pgrad_tokenizer *t, const char *path)
{
    pgrad__gguf *gguf;
    PGRAD__TRY(pgrad__gguf_open(t->context, path, &gguf));
    pgrad_status status = read_all(t, gguf);
    pgrad__gguf_free(gguf);
    return status;
}
