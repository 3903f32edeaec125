/* Added tokens: texts that are one token wherever they stand. Not the roles of tokens. */
#ifndef PGRAD_TEXT_SPECIAL_H
#define PGRAD_TEXT_SPECIAL_H

#include "base/hashmap.h"

typedef struct pgrad__added_token {
    char *content;
    size_t length;
    char *pattern; /* what is looked for in a text: the content as the normalizer leaves it; NULL
                    * where that is the content */
    size_t pattern_length;
    pgrad_token id;
    int special; /* matched only when the caller allows special tokens */
    int single_word, lstrip, rstrip, normalized;
    size_t shorter; /* index of the first token with this first byte and a shorter pattern */
} pgrad__added_token;

enum { PGRAD__MAX_ADDED = 1 << 16 };

/* Sorted by first byte, longest first within it, then by pattern. */
typedef struct pgrad__special {
    pgrad_context *context;
    pgrad__added_token *tokens;
    size_t n, capacity;
    size_t first[257];         /* tokens that begin with byte b: first[b] .. first[b + 1] */
    pgrad__hashmap by_content; /* to ids while tokens are added, to indices once they are sorted */
} pgrad__special;

/* Copies the token (its texts too). E_FORMAT for an empty content, or one that is there already;
 * E_LIMIT beyond PGRAD__MAX_ADDED. */
pgrad_status pgrad__special_add(pgrad__special *special, pgrad_context *context,
                                const pgrad__added_token *token);
pgrad_status pgrad__special_sort(pgrad__special *special); /* once, after the last add */
void pgrad__special_free(pgrad__special *special);

/* Finds the leftmost longest token at or after `start`, `normalized` as asked; *begin and *end are
 * the span it takes, strips included, not before `start`. NULL when there is none. */
const pgrad__added_token *pgrad__special_find(const pgrad__special *special, const char *text,
                                              size_t length, size_t start, int normalized,
                                              int with_special, size_t *begin, size_t *end);

/* The token with this content, NULL when there is none. */
const pgrad__added_token *pgrad__special_content(const pgrad__special *special, const char *content,
                                                 size_t length);

#endif
