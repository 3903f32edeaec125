#include "text/special.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "text/unicode.h"

pgrad_status pgrad__special_add(pgrad__special *special, pgrad_context *context,
                                const pgrad__added_token *token)
{
    uint32_t other;
    if (token->length == 0)
        return pgrad__fail(PGRAD_E_FORMAT, "added token %d: content: expected text, found none",
                           token->id);
    if (special->n == PGRAD__MAX_ADDED)
        return pgrad__fail(PGRAD_E_LIMIT, "added token %d: at most %d are read", token->id,
                           PGRAD__MAX_ADDED);
    if (pgrad__hashmap_get(&special->by_content, token->content, token->length, &other))
        return pgrad__fail(
            PGRAD_E_FORMAT,
            "added token %d: content: expected another than token %u's, found '%.*s'", token->id,
            other, pgrad__shown(token->length), token->content);
    special->context = special->by_content.context = context;
    PGRAD__TRY(pgrad__reserve(context, &special->tokens, &special->capacity, special->n + 1,
                              sizeof *special->tokens));
    pgrad__added_token copy = *token;
    copy.pattern = NULL;
    const char *pattern = token->pattern == NULL ? token->content : token->pattern;
    copy.pattern_length = token->pattern == NULL ? token->length : token->pattern_length;
    PGRAD__TRY(pgrad__copy_text(context, token->content, token->length, &copy.content));
    pgrad_status status = pgrad__copy_text(context, pattern, copy.pattern_length, &copy.pattern);
    if (status == PGRAD_OK)
        status = pgrad__hashmap_put(&special->by_content, copy.content, copy.length,
                                    (uint32_t)copy.id, NULL);
    if (status != PGRAD_OK) {
        pgrad__free(context, copy.content);
        pgrad__free(context, copy.pattern);
        return status;
    }
    special->tokens[special->n++] = copy;
    return PGRAD_OK;
}

static int by_byte_and_length(const void *a, const void *b)
{
    const pgrad__added_token *x = a, *y = b;
    unsigned char p = (unsigned char)x->pattern[0], q = (unsigned char)y->pattern[0];
    if (p != q)
        return p < q ? -1 : 1;
    if (x->pattern_length != y->pattern_length)
        return x->pattern_length > y->pattern_length ? -1 : 1;
    return memcmp(x->pattern, y->pattern, x->pattern_length);
}

/* Where each run of patterns of one first byte and length ends. */
static void find_runs(pgrad__special *special)
{
    pgrad__added_token *tokens = special->tokens;
    for (size_t i = special->n; i-- > 0;) {
        int same = i + 1 < special->n && tokens[i].pattern[0] == tokens[i + 1].pattern[0] &&
                   tokens[i].pattern_length == tokens[i + 1].pattern_length;
        tokens[i].shorter = same ? tokens[i + 1].shorter : i + 1;
    }
}

/* Contents lead to where their tokens are now. */
static pgrad_status index_contents(pgrad__special *special)
{
    pgrad__hashmap_free(&special->by_content);
    PGRAD__TRY(pgrad__hashmap_init(&special->by_content, special->context, special->n));
    for (size_t i = 0; i < special->n; i++)
        PGRAD__TRY(pgrad__hashmap_put(&special->by_content, special->tokens[i].content,
                                      special->tokens[i].length, (uint32_t)i, NULL));
    return PGRAD_OK;
}

pgrad_status pgrad__special_sort(pgrad__special *special)
{
    if (special->n > 0)
        qsort(special->tokens, special->n, sizeof *special->tokens, by_byte_and_length);
    size_t at = 0;
    for (size_t byte = 0; byte < 256; byte++) {
        special->first[byte] = at;
        while (at < special->n && (unsigned char)special->tokens[at].pattern[0] == byte)
            at++;
    }
    special->first[256] = at;
    find_runs(special);
    return special->n > 0 ? index_contents(special) : PGRAD_OK;
}

void pgrad__special_free(pgrad__special *special)
{
    if (special->context == NULL)
        return;
    for (size_t i = 0; i < special->n; i++) {
        pgrad__free(special->context, special->tokens[i].content);
        pgrad__free(special->context, special->tokens[i].pattern);
    }
    pgrad__hashmap_free(&special->by_content);
    pgrad__free(special->context, special->tokens);
    memset(special, 0, sizeof *special);
}

static int stands_alone(const char *text, size_t length, size_t begin, size_t end)
{
    uint32_t code;
    if (begin > 0) {
        (void)pgrad__utf8_last(text, begin, &code);
        if (pgrad__is_word(code))
            return 0;
    }
    if (end < length) {
        (void)pgrad__utf8_next(text + end, length - end, &code);
        if (pgrad__is_word(code))
            return 0;
    }
    return 1;
}

/* The first of the tokens from..to, which have one length, whose pattern is not below text. */
static size_t lower_bound(const pgrad__special *special, const char *text, size_t from, size_t to)
{
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        const pgrad__added_token *token = &special->tokens[middle];
        if (memcmp(token->pattern, text, token->pattern_length) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* The longest token at a position that may be matched there: a search in each run of one length. */
static const pgrad__added_token *match_at(const pgrad__special *special, const char *text,
                                          size_t length, size_t at, int normalized,
                                          int with_special)
{
    const unsigned char byte = (unsigned char)text[at];
    const size_t end = special->first[byte + 1];
    for (size_t i = special->first[byte], next; i < end; i = next) {
        const size_t size = special->tokens[i].pattern_length;
        next = special->tokens[i].shorter;
        if (size > length - at)
            continue;
        for (i = lower_bound(special, text + at, i, next); i < next; i++) {
            const pgrad__added_token *token = &special->tokens[i];
            if (memcmp(token->pattern, text + at, size) != 0)
                break;
            if (token->normalized == normalized && (with_special || !token->special))
                return token;
        }
    }
    return NULL;
}

static void extend(const pgrad__added_token *token, const char *text, size_t length, size_t start,
                   size_t *begin, size_t *end)
{
    uint32_t code;
    while (token->lstrip && *begin > start) {
        size_t size = pgrad__utf8_last(text + start, *begin - start, &code);
        if (!pgrad__is_white_space(code))
            break;
        *begin -= size;
    }
    while (token->rstrip && *end < length) {
        size_t size = pgrad__utf8_next(text + *end, length - *end, &code);
        if (!pgrad__is_white_space(code))
            break;
        *end += size;
    }
}

const pgrad__added_token *pgrad__special_find(const pgrad__special *special, const char *text,
                                              size_t length, size_t start, int normalized,
                                              int with_special, size_t *begin, size_t *end)
{
    if (special->n == 0)
        return NULL;
    for (size_t at = start; at < length; at++) {
        const pgrad__added_token *token =
            match_at(special, text, length, at, normalized, with_special);
        if (token == NULL)
            continue;
        *begin = at;
        *end = at + token->pattern_length;
        if (token->single_word && !stands_alone(text, length, *begin, *end)) {
            at = *end - 1; /* a match that does not count is skipped as a whole */
            continue;
        }
        extend(token, text, length, start, begin, end);
        return token;
    }
    return NULL;
}

const pgrad__added_token *pgrad__special_content(const pgrad__special *special, const char *content,
                                                 size_t length)
{
    uint32_t i;
    return pgrad__hashmap_get(&special->by_content, content, length, &i) ? &special->tokens[i]
                                                                         : NULL;
}
