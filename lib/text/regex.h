/* Regular expressions through PCRE2, with the meaning they have in tokenizer files. Not for user
 * input of the host: patterns come from a tokenizer, and matching is bounded all the same. */
#ifndef PGRAD_TEXT_REGEX_H
#define PGRAD_TEXT_REGEX_H

#include <policygrad/types.h>

typedef struct pgrad__regex pgrad__regex;             /* compiled: immutable, shared by threads */
typedef struct pgrad__regex_match pgrad__regex_match; /* room for one match: one per call */

/* Compiles a pattern; \s and \S mean White_Space as in Oniguruma. E_UNSUPPORTED with offset and
 * reason; `origin` names the pattern in the message. */
pgrad_status pgrad__regex_compile(pgrad_context *context, const char *pattern, size_t length,
                                  const char *origin, pgrad__regex **out);
void pgrad__regex_free(pgrad__regex *regex);

pgrad_status pgrad__regex_match_create(pgrad__regex_match **out);
void pgrad__regex_match_free(pgrad__regex_match *match);

/* Finds the first match in valid UTF-8 from `start` on: *found 0 when there is none. E_LIMIT when
 * the pattern costs more steps than allowed. */
pgrad_status pgrad__regex_find(const pgrad__regex *regex, pgrad__regex_match *match,
                               const char *text, size_t length, size_t start, int *found,
                               size_t *begin, size_t *end);

#endif
