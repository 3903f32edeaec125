#include "text/special.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "text/unicode.h"

pgrad_status pgrad__special_add(pgrad__special *special, pgrad_context *context,
                                const pgrad__added_token *token)
{
    if (token->length == 0)
        return pgrad__fail(PGRAD_E_FORMAT, "added token %d: content: expected text, found none",
                           token->id);
    special->context = context;
    PGRAD__TRY(pgrad__reserve(context, &special->tokens, &special->capacity, special->n + 1,
                              sizeof *special->tokens));
    pgrad__added_token copy = *token;
    const char *pattern = token->pattern == NULL ? token->content : token->pattern;
    copy.pattern_length = token->pattern == NULL ? token->length : token->pattern_length;
    PGRAD__TRY(pgrad__copy_text(context, token->content, token->length, &copy.content));
    pgrad_status status = pgrad__copy_text(context, pattern, copy.pattern_length, &copy.pattern);
    if (status != PGRAD_OK) {
        pgrad__free(context, copy.content);
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

void pgrad__special_sort(pgrad__special *special)
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
}

void pgrad__special_free(pgrad__special *special)
{
    if (special->context == NULL)
        return;
    for (size_t i = 0; i < special->n; i++) {
        pgrad__free(special->context, special->tokens[i].content);
        pgrad__free(special->context, special->tokens[i].pattern);
    }
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

/* The longest token at a position that may be matched there. */
static const pgrad__added_token *match_at(const pgrad__special *special, const char *text,
                                          size_t length, size_t at, int normalized,
                                          int with_special)
{
    const unsigned char byte = (unsigned char)text[at];
    for (size_t i = special->first[byte]; i < special->first[byte + 1]; i++) {
        const pgrad__added_token *token = &special->tokens[i];
        if (token->normalized == normalized && (with_special || !token->special) &&
            token->pattern_length <= length - at &&
            memcmp(token->pattern, text + at, token->pattern_length) == 0)
            return token;
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
    for (size_t i = 0; i < special->n; i++)
        if (special->tokens[i].length == length &&
            memcmp(special->tokens[i].content, content, length) == 0)
            return &special->tokens[i];
    return NULL;
}
