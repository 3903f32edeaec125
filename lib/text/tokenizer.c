#include "text/tokenizer.h"

#include <string.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/fail.h"
#include "text/bpe_byte.h"
#include "text/tokenizer_inside.h"

enum { MAX_IDS = 1 << 22, TOLD_EVERY = 4096 };

static const char PROGRESS[] = "tokenizer";

const char pgrad__pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char pgrad__pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char pgrad__pattern_qwen2[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* ---- life ---- */

static pgrad_status load(pgrad_context *context, const char *path, pgrad_tokenizer **out)
{
    pgrad_tokenizer *tokenizer;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *tokenizer, &tokenizer));
    pgrad__context_retain(context);
    tokenizer->context = context;
    atomic_init(&tokenizer->references, 1);
    for (int i = 0; i < PGRAD__N_ROLES; i++)
        tokenizer->roles[i] = -1;
    for (int i = 0; i < 256; i++)
        tokenizer->byte_ids[i] = -1;
    pgrad_status status = pgrad__check_cancel(context);
    if (status == PGRAD_OK)
        status = pgrad__tokenizer_read(tokenizer, path);
    if (status == PGRAD_OK)
        status = pgrad__progress(context, PROGRESS, tokenizer->n_expected, tokenizer->n_expected);
    if (status != PGRAD_OK) {
        pgrad_tokenizer_free(tokenizer);
        return status;
    }
    pgrad__tokenizer_find_roles(tokenizer);
    *out = tokenizer;
    return PGRAD_OK;
}

pgrad_status pgrad_tokenizer_load(pgrad_context *context, const char *path, pgrad_tokenizer **out)
{
    pgrad__scope scope;
    if (path == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "tokenizer_load: %s is NULL",
                           path == NULL ? "path" : "out");
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status = load(context, path, out);
    pgrad__leave(&scope);
    return status;
}

void pgrad__tokenizer_retain(pgrad_tokenizer *tokenizer)
{
    atomic_fetch_add(&tokenizer->references, 1);
}

size_t pgrad__tokenizer_held(const pgrad_tokenizer *tokenizer)
{
    const void *blocks[] = {tokenizer,
                            tokenizer->tokens,
                            tokenizer->bytes,
                            tokenizer->vocabulary.entries,
                            tokenizer->merges.entries,
                            tokenizer->added.tokens,
                            tokenizer->added.by_content.entries};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        bytes += pgrad__held(blocks[i]);
    for (uint32_t i = 0; i < tokenizer->n_files; i++)
        bytes += pgrad__held(tokenizer->files[i].data);
    for (size_t i = 0; i < tokenizer->added.n; i++)
        bytes += pgrad__held(tokenizer->added.tokens[i].content) +
                 pgrad__held(tokenizer->added.tokens[i].pattern);
    return bytes;
}

void pgrad_tokenizer_free(pgrad_tokenizer *tokenizer)
{
    if (tokenizer == NULL || atomic_fetch_sub(&tokenizer->references, 1) != 1)
        return;
    pgrad_context *context = tokenizer->context;
    for (uint32_t i = 0; i < tokenizer->n_splits; i++)
        pgrad__regex_free(tokenizer->splits[i].regex);
    for (uint32_t i = 0; i < tokenizer->n_files; i++)
        pgrad__free(context, tokenizer->files[i].data);
    pgrad__special_free(&tokenizer->added);
    pgrad__merges_free(&tokenizer->merges);
    pgrad__hashmap_free(&tokenizer->vocabulary);
    pgrad__free(context, tokenizer->tokens);
    pgrad__free(context, tokenizer->bytes);
    pgrad__free(context, tokenizer);
    pgrad_context_free(context);
}

/* ---- building blocks ---- */

pgrad_status pgrad__tokenizer_expect(pgrad_tokenizer *tokenizer, uint64_t n)
{
    tokenizer->n_read = 0;
    tokenizer->n_expected = n;
    return pgrad__progress(tokenizer->context, PROGRESS, 0, n);
}

pgrad_status pgrad__tokenizer_tick(pgrad_tokenizer *tokenizer)
{
    const uint64_t n = ++tokenizer->n_read;
    if (n % TOLD_EVERY != 0 || n >= tokenizer->n_expected)
        return PGRAD_OK;
    return pgrad__progress(tokenizer->context, PROGRESS, n, tokenizer->n_expected);
}

static pgrad_status grow_ids(pgrad_tokenizer *tokenizer, uint32_t id)
{
    if (id >= MAX_IDS)
        return pgrad__fail(PGRAD_E_LIMIT, "token id %u: at most %d", id, MAX_IDS - 1);
    if (id >= tokenizer->ids_capacity) {
        uint32_t grown = tokenizer->ids_capacity < 1024 ? 1024 : tokenizer->ids_capacity;
        while (grown <= id)
            grown *= 2;
        pgrad__token_bytes *tokens = NULL;
        PGRAD__TRY(pgrad__calloc(tokenizer->context, grown, sizeof *tokens, &tokens));
        if (tokenizer->n_ids > 0)
            memcpy(tokens, tokenizer->tokens, tokenizer->n_ids * sizeof *tokens);
        pgrad__free(tokenizer->context, tokenizer->tokens);
        tokenizer->tokens = tokens;
        tokenizer->ids_capacity = grown;
    }
    if (id >= tokenizer->n_ids)
        tokenizer->n_ids = id + 1;
    return PGRAD_OK;
}

pgrad_status pgrad__tokenizer_set(pgrad_tokenizer *tokenizer, uint32_t id, const char *bytes,
                                  size_t length, int model)
{
    PGRAD__TRY(grow_ids(tokenizer, id));
    pgrad__token_bytes *token = &tokenizer->tokens[id];
    if (token->present) {
        if (token->length != length || memcmp(tokenizer->bytes + token->offset, bytes, length) != 0)
            return pgrad__fail(PGRAD_E_FORMAT,
                               "token id %u belongs to two tokens, '%.*s' and '%.*s'", id,
                               pgrad__shown(token->length), tokenizer->bytes + token->offset,
                               pgrad__shown(length), bytes);
        return PGRAD_OK;
    }
    if (length > UINT32_MAX - tokenizer->n_bytes)
        return pgrad__fail(PGRAD_E_LIMIT, "the vocabulary has more than %u bytes", UINT32_MAX);
    PGRAD__TRY(pgrad__reserve(tokenizer->context, &tokenizer->bytes, &tokenizer->bytes_capacity,
                              tokenizer->n_bytes + length + 1, 1));
    memcpy(tokenizer->bytes + tokenizer->n_bytes, bytes, length);
    *token = (pgrad__token_bytes){.offset = (uint32_t)tokenizer->n_bytes,
                                  .length = (uint32_t)length,
                                  .present = 1,
                                  .model = model != 0};
    tokenizer->n_bytes += length;
    return PGRAD_OK;
}

pgrad_status pgrad__tokenizer_set_spelled(pgrad_tokenizer *tokenizer, uint32_t id,
                                          const char *spelled, size_t length)
{
    char *bytes;
    size_t n;
    PGRAD__TRY(pgrad__alloc(tokenizer->context, length + 1, 1, &bytes));
    const int in_bytes = pgrad__byte_level_decode(spelled, length, bytes, &n);
    if (!in_bytes) {
        memcpy(bytes, spelled, length);
        n = length;
    }
    pgrad_status status = pgrad__tokenizer_set(tokenizer, id, bytes, n, in_bytes);
    pgrad__free(tokenizer->context, bytes);
    return status;
}

pgrad_status pgrad__tokenizer_add(pgrad_tokenizer *tokenizer, const pgrad__added_token *token)
{
    const uint32_t id = (uint32_t)token->id;
    const pgrad__token_bytes *known = id < tokenizer->n_ids ? &tokenizer->tokens[id] : NULL;
    if (known != NULL && known->present &&
        (known->length != token->length ||
         memcmp(tokenizer->bytes + known->offset, token->content, token->length) != 0))
        PGRAD__TRY(pgrad__tokenizer_set_spelled(tokenizer, id, token->content, token->length));
    else
        PGRAD__TRY(pgrad__tokenizer_set(tokenizer, id, token->content, token->length, 0));
    tokenizer->tokens[id].special |= (uint8_t)(token->special != 0);
    tokenizer->tokens[id].added = 1;
    return pgrad__special_add(&tokenizer->added, tokenizer->context, token);
}

pgrad_status pgrad__tokenizer_index(pgrad_tokenizer *tokenizer)
{
    if (tokenizer->n_ids == 0)
        return pgrad__fail(PGRAD_E_FORMAT, "expected tokens, the vocabulary is empty");
    PGRAD__TRY(pgrad__hashmap_init(&tokenizer->vocabulary, tokenizer->context, tokenizer->n_ids));
    for (uint32_t id = 0; id < tokenizer->n_ids; id++) {
        const pgrad__token_bytes *token = &tokenizer->tokens[id];
        const char *bytes = tokenizer->bytes + token->offset;
        if (!token->model || token->length == 0)
            continue;
        PGRAD__TRY(pgrad__hashmap_put(&tokenizer->vocabulary, bytes, token->length, id, NULL));
        if (token->length == 1 && !token->special) /* typed text is no special token */
            tokenizer->byte_ids[(unsigned char)bytes[0]] = (pgrad_token)id;
    }
    return PGRAD_OK;
}

/* The id of a token as a merge spells it. */
static int find_spelled(const pgrad_tokenizer *tokenizer, const char *spelled, size_t length,
                        char *bytes, size_t *n, uint32_t *id)
{
    return length > 0 && pgrad__byte_level_decode(spelled, length, bytes, n) &&
           pgrad__hashmap_get(&tokenizer->vocabulary, bytes, *n, id);
}

pgrad_status pgrad__tokenizer_merge(pgrad_tokenizer *tokenizer, const char *left,
                                    size_t left_length, const char *right, size_t right_length,
                                    uint32_t rank)
{
    char bytes[1024];
    size_t n, m;
    pgrad__merge merge = {.rank = rank};
    if (left_length + right_length > sizeof bytes ||
        !find_spelled(tokenizer, left, left_length, bytes, &n, &merge.left) ||
        !find_spelled(tokenizer, right, right_length, bytes + n, &m, &merge.right) ||
        !pgrad__hashmap_get(&tokenizer->vocabulary, bytes, n + m, &merge.id))
        return pgrad__fail(PGRAD_E_FORMAT,
                           "'%.*s' with '%.*s': a part or the whole is not in the vocabulary",
                           pgrad__shown(left_length), left, pgrad__shown(right_length), right);
    tokenizer->merges_special |= tokenizer->tokens[merge.id].special;
    pgrad__merges_put(&tokenizer->merges, merge);
    return PGRAD_OK;
}

pgrad_status pgrad__tokenizer_merge_line(pgrad_tokenizer *tokenizer, const char *line,
                                         size_t length, uint32_t rank)
{
    const char *space = memchr(line, ' ', length), *end = line + length;
    if (space == NULL || memchr(space + 1, ' ', (size_t)(end - space - 1)) != NULL)
        return pgrad__fail(PGRAD_E_FORMAT, "expected two parts, found '%.*s'", pgrad__shown(length),
                           line);
    return pgrad__tokenizer_merge(tokenizer, line, (size_t)(space - line), space + 1,
                                  (size_t)(end - space - 1), rank);
}

pgrad_status pgrad__tokenizer_split(pgrad_tokenizer *tokenizer, const char *pattern, size_t length,
                                    pgrad__split_behavior behavior, int invert, int prefix_space,
                                    const char *origin)
{
    if (tokenizer->n_splits == PGRAD__MAX_SPLITS)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: more than %d pre-tokenizers", origin,
                           PGRAD__MAX_SPLITS);
    pgrad__split split = {NULL, behavior, invert, prefix_space};
    if (pattern != NULL)
        PGRAD__TRY(pgrad__regex_compile(tokenizer->context, pattern, length, origin, &split.regex));
    tokenizer->splits[tokenizer->n_splits++] = split;
    return PGRAD_OK;
}

void pgrad__tokenizer_find_roles(pgrad_tokenizer *tokenizer)
{
    static const char *const END_OF_TURN[] = {"<|im_end|>", "<|eot_id|>", "<end_of_turn>"};
    for (size_t i = 0; i < sizeof END_OF_TURN / sizeof END_OF_TURN[0] &&
                       tokenizer->roles[PGRAD_TOKEN_END_OF_TURN] < 0;
         i++) {
        const pgrad__added_token *token =
            pgrad__special_content(&tokenizer->added, END_OF_TURN[i], strlen(END_OF_TURN[i]));
        if (token != NULL)
            tokenizer->roles[PGRAD_TOKEN_END_OF_TURN] = token->id;
    }
}

void pgrad__tokenizer_keep(pgrad_tokenizer *tokenizer, const char *name, char *data, size_t size)
{
    tokenizer->files[tokenizer->n_files++] = (pgrad__kept_file){name, data, size};
}

/* ---- public calls ---- */

static pgrad_status encode(pgrad__encoder *e, const char *text, size_t length, uint32_t flags)
{
    const pgrad_tokenizer *t = e->tokenizer;
    for (uint32_t i = 0; (flags & PGRAD_ENCODE_ADD) && i < t->n_prefix; i++)
        PGRAD__TRY(pgrad__encoder_id(e, t->prefix_ids[i]));
    PGRAD__TRY(pgrad__encoder_text(e, text, length, (flags & PGRAD_ENCODE_SPECIAL) != 0));
    for (uint32_t i = 0; (flags & PGRAD_ENCODE_ADD) && i < t->n_suffix; i++)
        PGRAD__TRY(pgrad__encoder_id(e, t->suffix_ids[i]));
    return PGRAD_OK;
}

pgrad_status pgrad_tokenizer_encode(pgrad_tokenizer *tokenizer, const char *text, size_t length,
                                    uint32_t flags, pgrad_token *ids, size_t capacity, size_t *n)
{
    pgrad__encoder encoder;
    if (tokenizer == NULL || n == NULL || (text == NULL && length > 0) ||
        (ids == NULL && capacity > 0))
        return pgrad__fail(PGRAD_E_INVALID, "tokenizer_encode: an argument is NULL");
    if ((flags & ~(uint32_t)(PGRAD_ENCODE_SPECIAL | PGRAD_ENCODE_ADD)) != 0)
        return pgrad__fail(PGRAD_E_INVALID, "tokenizer_encode: flags 0x%x are not known", flags);
    PGRAD__TRY(pgrad__encoder_init(&encoder, tokenizer));
    pgrad_status status = encode(&encoder, text == NULL ? "" : text, length, flags);
    if (status == PGRAD_OK)
        status = pgrad__encoder_finish(&encoder, ids, capacity, n);
    pgrad__encoder_free(&encoder);
    return status;
}

pgrad_token pgrad_tokenizer_special(pgrad_tokenizer *tokenizer, int32_t which)
{
    return tokenizer == NULL || which < 0 || which >= PGRAD__N_ROLES ? -1 : tokenizer->roles[which];
}

uint32_t pgrad_tokenizer_count(pgrad_tokenizer *tokenizer)
{
    return tokenizer == NULL ? 0 : tokenizer->n_ids;
}

pgrad_token pgrad_tokenizer_find(pgrad_tokenizer *tokenizer, const char *content, size_t length)
{
    uint32_t id;
    if (tokenizer == NULL || content == NULL)
        return -1;
    const pgrad__added_token *token = pgrad__special_content(&tokenizer->added, content, length);
    if (token != NULL)
        return token->id;
    return pgrad__hashmap_get(&tokenizer->vocabulary, content, length, &id) ? (pgrad_token)id : -1;
}

uint32_t pgrad_tokenizer_has(pgrad_tokenizer *tokenizer, pgrad_token id)
{
    return tokenizer != NULL && id >= 0 && (uint32_t)id < tokenizer->n_ids &&
           tokenizer->tokens[id].present;
}
