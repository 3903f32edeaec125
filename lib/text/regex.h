/* Regular expressions through PCRE2: a tokenizer's, with the meaning they have in tokenizer files,
 * and a host's, with PCRE2's own. Matching is bounded in both. Their memory is the context's, but
 * for the machine code that PCRE2's JIT makes of a tokenizer's. */
#ifndef PGRAD_TEXT_REGEX_H
#define PGRAD_TEXT_REGEX_H

#include <policygrad/types.h>

typedef struct pgrad__regex pgrad__regex;             /* compiled: immutable, shared by threads */
typedef struct pgrad__regex_match pgrad__regex_match; /* room for one match: one per call */

/* Compiles a pattern; \s and \S mean White_Space as in Oniguruma. E_UNSUPPORTED with offset and
 * reason; `origin` names the pattern in the message. */
pgrad_status pgrad__regex_compile(pgrad_context *context, const char *pattern, size_t length,
                                  const char *origin, pgrad__regex **out);

/* How a host's pattern is read, and what a match may cost. */
typedef struct pgrad__regex_bounds {
    int ignore_case, dot_all, multi_line;
    int at_start, at_end; /* it must begin with the text, end with it */
    uint32_t match_limit, depth_limit, heap_limit_kib;
} pgrad__regex_bounds;

/* Compiles a host's pattern (valid UTF-8). Texts may be any bytes: what is no UTF-8 matches
 * nothing. */
pgrad_status pgrad__regex_compile_bounded(pgrad_context *context, const char *pattern,
                                          size_t length, const pgrad__regex_bounds *bounds,
                                          const char *origin, pgrad__regex **out);
void pgrad__regex_free(pgrad__regex *regex);

pgrad_status pgrad__regex_match_create(pgrad_context *context, pgrad__regex_match **out);
void pgrad__regex_match_free(pgrad__regex_match *match);

/* Finds the first match from `start` on, in valid UTF-8 for a tokenizer's: *found 0 when there is
 * none, -1 with E_LIMIT when the pattern costs more than allowed. E_NOMEM, E_LIMIT of memory. */
pgrad_status pgrad__regex_find(const pgrad__regex *regex, pgrad__regex_match *match,
                               const char *text, size_t length, size_t start, int *found,
                               size_t *begin, size_t *end);

#endif
