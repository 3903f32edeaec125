/* A tokenizer from GGUF metadata: byte-level BPE ("gpt2"); `pre` names how text is split. */
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/utf8.h"
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

/* Puts file and key in front of what failed there. */
static pgrad_status in_key(const pgrad__gguf *gguf, const char *key, pgrad_status status)
{
    char path[PGRAD__PATH_MAX];
    return status == PGRAD_OK ? PGRAD_OK
                              : pgrad__fail_in(status, "%s: %s",
                                               pgrad__path_text(path, pgrad__gguf_path(gguf)), key);
}

static pgrad_status in_element(const pgrad__gguf *gguf, const char *key, size_t i,
                               pgrad_status status)
{
    return status == PGRAD_OK ? PGRAD_OK : in_key(gguf, key, pgrad__fail_in(status, "[%zu]: ", i));
}

static pgrad_status find_pre(const pgrad__gguf *gguf, const pgrad__gguf_pre **out)
{
    static const char KEY[] = "tokenizer.ggml.pre";
    const char *text = "(none)";
    size_t length = 6;
    if (pgrad__gguf_has(gguf, KEY))
        PGRAD__TRY(pgrad__gguf_string(gguf, KEY, &text, &length));
    for (size_t i = 0; i < sizeof PRES / sizeof PRES[0]; i++)
        if (strlen(PRES[i].name) == length && memcmp(PRES[i].name, text, length) == 0) {
            *out = &PRES[i];
            return PGRAD_OK;
        }
    return in_key(
        gguf, KEY,
        pgrad__fail(PGRAD_E_UNSUPPORTED, ": '%.*s' is not built", pgrad__shown(length), text));
}

static pgrad_status check_kind(const pgrad__gguf *gguf)
{
    static const char KEY[] = "tokenizer.ggml.model";
    const char *text;
    size_t length;
    PGRAD__TRY(pgrad__gguf_string(gguf, KEY, &text, &length));
    if (length == 4 && memcmp(text, "gpt2", 4) == 0)
        return PGRAD_OK;
    return in_key(gguf, KEY,
                  pgrad__fail(PGRAD_E_UNSUPPORTED,
                              ": expected gpt2 (byte-level BPE), found '%.*s', which is not built",
                              pgrad__shown(length), text));
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

/* One token: its text is UTF-8, holds no NUL (a key of tokenizer.json cannot) and is no other
 * token's. */
static pgrad_status read_token(pgrad_tokenizer *t, pgrad__hashmap *texts, size_t i, int32_t type,
                               const char *text, size_t length)
{
    int existing;
    uint32_t other = 0;
    if (!pgrad__utf8_is_valid(text, length) || memchr(text, '\0', length) != NULL)
        return pgrad__fail(PGRAD_E_FORMAT, "expected UTF-8 without a NUL, found '%.*s'",
                           pgrad__shown(length), text);
    PGRAD__TRY(pgrad__hashmap_put(texts, text, length, (uint32_t)i, &existing));
    if (existing) {
        (void)pgrad__hashmap_get(texts, text, length, &other);
        return pgrad__fail(PGRAD_E_FORMAT, "expected another text than token %u's, found '%.*s'",
                           other, pgrad__shown(length), text);
    }
    if (type == TYPE_CONTROL || type == TYPE_USER_DEFINED)
        return add_token(t, (uint32_t)i, text, length, type == TYPE_CONTROL);
    return pgrad__tokenizer_set_spelled(t, (uint32_t)i, text, length);
}

static const char TOKENS[] = "tokenizer.ggml.tokens", TYPES[] = "tokenizer.ggml.token_type",
                  MERGES[] = "tokenizer.ggml.merges";

static pgrad_status expect_all(pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    size_t n_tokens, n_merges;
    PGRAD__TRY(pgrad__gguf_array_count(gguf, TOKENS, &n_tokens));
    PGRAD__TRY(pgrad__gguf_array_count(gguf, MERGES, &n_merges));
    return pgrad__tokenizer_expect(t, (uint64_t)n_tokens + n_merges);
}

static pgrad_status read_each_token(pgrad_tokenizer *t, const pgrad__gguf *gguf, size_t n,
                                    int has_types, pgrad__hashmap *texts)
{
    for (size_t i = 0; i < n; i++) {
        const char *text;
        size_t length;
        int32_t type = TYPE_NORMAL;
        PGRAD__TRY(pgrad__gguf_array_string(gguf, TOKENS, i, &text, &length));
        if (has_types)
            PGRAD__TRY(pgrad__gguf_array_i32(gguf, TYPES, i, &type));
        if (type != TYPE_UNUSED && length > 0)
            PGRAD__TRY(in_element(gguf, TOKENS, i, read_token(t, texts, i, type, text, length)));
        PGRAD__TRY(pgrad__tokenizer_tick(t));
    }
    return PGRAD_OK;
}

static pgrad_status read_tokens(pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    size_t n, n_types = 0;
    int has_types = pgrad__gguf_has(gguf, TYPES);
    pgrad__hashmap texts = {0};
    PGRAD__TRY(pgrad__gguf_array_count(gguf, TOKENS, &n));
    if (has_types)
        PGRAD__TRY(pgrad__gguf_array_count(gguf, TYPES, &n_types));
    if (has_types && n_types != n)
        return in_key(gguf, TYPES,
                      pgrad__fail(PGRAD_E_FORMAT,
                                  ": expected %zu elements as there are tokens, found %zu", n,
                                  n_types));
    PGRAD__TRY(pgrad__hashmap_init(&texts, t->context, n));
    pgrad_status status = read_each_token(t, gguf, n, has_types, &texts);
    pgrad__hashmap_free(&texts);
    PGRAD__TRY(status);
    PGRAD__TRY(pgrad__special_sort(&t->added));
    status = pgrad__tokenizer_index(t);
    return status == PGRAD_OK ? PGRAD_OK : in_key(gguf, TOKENS, pgrad__fail_in(status, ": "));
}

static pgrad_status read_merges(pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    size_t n;
    PGRAD__TRY(pgrad__gguf_array_count(gguf, MERGES, &n));
    PGRAD__TRY(pgrad__merges_init(&t->merges, t->context, n));
    for (size_t i = 0; i < n; i++) {
        const char *text;
        size_t length;
        PGRAD__TRY(pgrad__gguf_array_string(gguf, MERGES, i, &text, &length));
        PGRAD__TRY(
            in_element(gguf, MERGES, i, pgrad__tokenizer_merge_line(t, text, length, (uint32_t)i)));
        PGRAD__TRY(pgrad__tokenizer_tick(t));
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

/* The tokenizer.json that some files bring along: it says more than the other keys can. */
static pgrad_status read_huggingface(pgrad_tokenizer *t, const pgrad__gguf *gguf, const char *key)
{
    const char *text;
    char *copy;
    size_t length;
    PGRAD__TRY(pgrad__gguf_string(gguf, key, &text, &length));
    PGRAD__TRY(pgrad__copy_text(t->context, text, length, &copy));
    pgrad_status status = pgrad__tokenizer_read_json(t, copy, length, key);
    if (status != PGRAD_OK)
        return in_key(gguf, "", status);
    PGRAD__TRY(read_roles(t, gguf));
    return pgrad__tokenizer_make_files(t, gguf, NULL);
}

static pgrad_status read_all(pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    static const char HUGGINGFACE[] = "tokenizer.huggingface.json";
    const pgrad__gguf_pre *pre = NULL;
    if (pgrad__gguf_has(gguf, HUGGINGFACE))
        return read_huggingface(t, gguf, HUGGINGFACE);
    PGRAD__TRY(check_kind(gguf));
    PGRAD__TRY(find_pre(gguf, &pre));
    if (pre->digits)
        PGRAD__TRY(pgrad__tokenizer_split(t, "\\p{N}", 5, PGRAD__SPLIT_ISOLATED, 0, 0, "digits"));
    PGRAD__TRY(pgrad__tokenizer_split(t, pre->pattern, strlen(pre->pattern), PGRAD__SPLIT_ISOLATED,
                                      0, 0, pre->name));
    t->ignore_merges = pre->ignore_merges;
    t->nfc = pre->pattern == pgrad__pattern_qwen2;
    PGRAD__TRY(expect_all(t, gguf));
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
