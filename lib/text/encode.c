/* Text to ids: added tokens, normalizer, pre-tokenizer, merges - in the order of the Rust
 * tokenizers. */
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/utf8.h"
#include "text/tokenizer_inside.h"
#include "text/unicode.h"

pgrad_status pgrad__encoder_init(pgrad__encoder *encoder, const pgrad_tokenizer *tokenizer)
{
    memset(encoder, 0, sizeof *encoder);
    encoder->tokenizer = tokenizer;
    encoder->scratch.context = tokenizer->context;
    return pgrad__regex_match_create(tokenizer->context, &encoder->match);
}

void pgrad__encoder_free(pgrad__encoder *encoder)
{
    pgrad_context *context = encoder->tokenizer->context;
    pgrad__regex_match_free(encoder->match);
    pgrad__bpe_scratch_free(&encoder->scratch);
    pgrad__free(context, encoder->ids);
    pgrad__free(context, encoder->piece);
}

pgrad_status pgrad__encoder_id(pgrad__encoder *encoder, pgrad_token id)
{
    PGRAD__TRY(pgrad__reserve(encoder->tokenizer->context, &encoder->ids, &encoder->capacity,
                              encoder->n + 1, sizeof id));
    encoder->ids[encoder->n++] = id;
    return PGRAD_OK;
}

pgrad_status pgrad__encoder_finish(const pgrad__encoder *encoder, pgrad_token *ids, size_t capacity,
                                   size_t *n)
{
    *n = encoder->n;
    if (encoder->n > capacity)
        return pgrad__fail(PGRAD_E_BUFFER, "the text has %zu tokens, the buffer room for %zu",
                           encoder->n, capacity);
    if (encoder->n > 0)
        memcpy(ids, encoder->ids, encoder->n * sizeof *ids);
    return PGRAD_OK;
}

/* ---- one piece ---- */

/* Text stays text where its merges end in a special token: such a one is given byte by byte. */
static pgrad_status append_as_text(pgrad__encoder *e, size_t n)
{
    const pgrad_tokenizer *t = e->tokenizer;
    for (size_t i = 0; i < n; i++) {
        const pgrad__token_bytes *token = &t->tokens[e->piece[i]];
        if (!token->special)
            PGRAD__TRY(pgrad__encoder_id(e, e->piece[i]));
        for (uint32_t j = 0; token->special && j < token->length; j++)
            PGRAD__TRY(
                pgrad__encoder_id(e, t->byte_ids[(unsigned char)t->bytes[token->offset + j]]));
    }
    return PGRAD_OK;
}

static pgrad_status encode_piece(pgrad__encoder *e, const char *text, size_t length)
{
    const pgrad_tokenizer *t = e->tokenizer;
    uint32_t whole;
    if (length == 0)
        return PGRAD_OK;
    if (t->ignore_merges && pgrad__hashmap_get(&t->vocabulary, text, length, &whole) &&
        !t->tokens[whole].special)
        return pgrad__encoder_id(e, (pgrad_token)whole);
    PGRAD__TRY(pgrad__reserve(t->context, &e->piece, &e->piece_capacity, length, sizeof *e->piece));
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        pgrad_token id = t->byte_ids[(unsigned char)text[i]];
        if (id >= 0) /* a byte the vocabulary lacks is dropped, as the reference does */
            e->piece[n++] = id;
    }
    PGRAD__TRY(pgrad__bpe_merge(&t->merges, &e->scratch, e->piece, &n));
    if (t->merges_special)
        return append_as_text(e, n);
    PGRAD__TRY(pgrad__reserve(t->context, &e->ids, &e->capacity, e->n + n, sizeof *e->ids));
    if (n > 0)
        memcpy(e->ids + e->n, e->piece, n * sizeof *e->ids);
    e->n += n;
    return PGRAD_OK;
}

/* ---- pre-tokenizer: split after split ---- */

static pgrad_status split_from(pgrad__encoder *e, uint32_t step, const char *text, size_t length);

/* A stretch of a piece that a split hands on; flushed when the next one does not join it. */
typedef struct stretch {
    size_t begin, end;
    int match, open;
} stretch;

static pgrad_status flush(pgrad__encoder *e, uint32_t step, const char *text, stretch *s)
{
    if (!s->open || s->end == s->begin)
        return PGRAD_OK;
    s->open = 0;
    return split_from(e, step + 1, text + s->begin, s->end - s->begin);
}

/* 1 when a segment joins the stretch before it. */
static int joins(pgrad__split_behavior behavior, const stretch *s, int match)
{
    if (!s->open)
        return 0;
    switch (behavior) {
    case PGRAD__SPLIT_MERGED_WITH_PREVIOUS:
        return match && !s->match;
    case PGRAD__SPLIT_MERGED_WITH_NEXT:
        return !match && s->match;
    case PGRAD__SPLIT_CONTIGUOUS:
        return match == s->match;
    default:
        return 0;
    }
}

static pgrad_status segment(pgrad__encoder *e, uint32_t step, const char *text, size_t begin,
                            size_t end, int match, stretch *s)
{
    const pgrad__split *split = &e->tokenizer->splits[step];
    match ^= split->invert;
    if (begin == end)
        return PGRAD_OK;
    if (joins(split->behavior, s, match)) {
        s->end = end;
        s->match = match;
        return PGRAD_OK;
    }
    PGRAD__TRY(flush(e, step, text, s));
    if (match && split->behavior == PGRAD__SPLIT_REMOVED)
        return PGRAD_OK;
    *s = (stretch){begin, end, match, 1};
    return PGRAD_OK;
}

static pgrad_status apply_split(pgrad__encoder *e, uint32_t step, const char *text, size_t length)
{
    const pgrad__split *split = &e->tokenizer->splits[step];
    stretch s = {0};
    size_t at = 0, from = 0;
    if (split->regex == NULL)
        return split_from(e, step + 1, text, length);
    while (from <= length) {
        int found;
        size_t begin, end;
        PGRAD__TRY(
            pgrad__regex_find(split->regex, e->match, text, length, from, &found, &begin, &end));
        if (!found)
            break;
        if (end == begin) { /* an empty match cuts; go on behind the next character */
            uint32_t code;
            PGRAD__TRY(segment(e, step, text, at, begin, 0, &s));
            PGRAD__TRY(flush(e, step, text, &s));
            at = begin;
            from = begin < length ? begin + pgrad__utf8_next(text + begin, length - begin, &code)
                                  : length + 1;
            continue;
        }
        PGRAD__TRY(segment(e, step, text, at, begin, 0, &s));
        PGRAD__TRY(segment(e, step, text, begin, end, 1, &s));
        at = from = end;
    }
    PGRAD__TRY(segment(e, step, text, at, length, 0, &s));
    return flush(e, step, text, &s);
}

/* Depth: the number of splits, at most PGRAD__MAX_SPLITS. */
static pgrad_status split_from(pgrad__encoder *e, uint32_t step, const char *text, size_t length)
{
    const pgrad_tokenizer *t = e->tokenizer;
    if (step == t->n_splits)
        return encode_piece(e, text, length);
    if (!t->splits[step].prefix_space || text[0] == ' ')
        return apply_split(e, step, text, length);
    char *longer;
    PGRAD__TRY(pgrad__alloc(t->context, length + 1, 1, &longer));
    longer[0] = ' ';
    memcpy(longer + 1, text, length);
    pgrad_status status = apply_split(e, step, longer, length + 1);
    pgrad__free(t->context, longer);
    return status;
}

/* ---- added tokens around it ---- */

static pgrad_status encode_normalized(pgrad__encoder *e, const char *text, size_t length,
                                      int with_special)
{
    const pgrad_tokenizer *t = e->tokenizer;
    size_t at = 0, begin, end;
    const pgrad__added_token *token;
    while ((token = pgrad__special_find(&t->added, text, length, at, 1, with_special, &begin,
                                        &end)) != NULL) {
        if (begin > at)
            PGRAD__TRY(split_from(e, 0, text + at, begin - at));
        PGRAD__TRY(pgrad__encoder_id(e, token->id));
        at = end;
    }
    return at < length ? split_from(e, 0, text + at, length - at) : PGRAD_OK;
}

static pgrad_status encode_raw(pgrad__encoder *e, const char *text, size_t length, int with_special)
{
    char *composed = NULL;
    size_t composed_length;
    if (length == 0)
        return PGRAD_OK;
    if (!e->tokenizer->nfc)
        return encode_normalized(e, text, length, with_special);
    PGRAD__TRY(pgrad__nfc(e->tokenizer->context, text, length, &composed, &composed_length));
    pgrad_status status =
        encode_normalized(e, composed == NULL ? text : composed, composed_length, with_special);
    pgrad__free(e->tokenizer->context, composed);
    return status;
}

static pgrad_status check_length(size_t length)
{
    if (length > INT32_MAX)
        return pgrad__fail(PGRAD_E_LIMIT, "text: expected at most %d bytes, found %zu", INT32_MAX,
                           length);
    return PGRAD_OK;
}

pgrad_status pgrad__encoder_text(pgrad__encoder *e, const char *text, size_t length,
                                 int with_special)
{
    const pgrad__special *added = &e->tokenizer->added;
    size_t at = 0, begin, end;
    const pgrad__added_token *token;
    PGRAD__TRY(check_length(length));
    const size_t good = pgrad__utf8_good_bytes(text, length);
    if (good < length)
        return pgrad__fail(PGRAD_E_FORMAT, "text: invalid UTF-8 at byte %zu of %zu", good, length);
    while ((token = pgrad__special_find(added, text, length, at, 0, with_special, &begin, &end)) !=
           NULL) {
        PGRAD__TRY(encode_raw(e, text + at, begin - at, with_special));
        PGRAD__TRY(pgrad__encoder_id(e, token->id));
        at = end;
    }
    return encode_raw(e, text + at, length - at, with_special);
}

pgrad_status pgrad__encoder_joined(pgrad__encoder *e, const char *head, size_t head_length,
                                   const char *text, size_t length)
{
    pgrad_context *context = e->tokenizer->context;
    char *both;
    PGRAD__TRY(check_length(length)); /* before head_length + length + 1 could wrap */
    PGRAD__TRY(pgrad__alloc(context, head_length + length + 1, 1, &both));
    memcpy(both, head, head_length);
    if (length > 0)
        memcpy(both + head_length, text, length);
    pgrad_status status = pgrad__encoder_text(e, both, head_length + length, 0);
    pgrad__free(context, both);
    return status;
}
