#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/strbuf.h"

enum { MATCH_LIMIT = 100 * 1000 * 1000, HEAP_LIMIT_KIB = 64 * 1024 };

/* PCRE2 takes its memory from the context's allocator: counted and limited with all else. */
typedef struct memory {
    pgrad_context *context;
    pgrad_status refusal; /* the allocator's last */
} memory;

static void *take(size_t size, void *user)
{
    memory *from = user;
    void *block = NULL;
    const pgrad_status status = pgrad__alloc(from->context, size, 1, &block);
    if (status != PGRAD_OK)
        from->refusal = status;
    return block;
}

static void give(void *block, void *user)
{
    pgrad__free(((memory *)user)->context, block);
}

/* Passes the refusal on, in the allocator's words. */
static pgrad_status no_memory(const memory *from, const char *origin)
{
    return pgrad__fail_in(from->refusal, "%s: ", origin);
}

struct pgrad__regex {
    memory memory;
    pcre2_code *code;
    uint32_t match_limit, depth_limit, heap_limit_kib;
    uint32_t match_flags;
    const char *whose; /* for the message of a match given up */
};

struct pgrad__regex_match {
    memory memory;
    pcre2_match_data *data;
    pcre2_match_context *limits;
};

/* PCRE2's \s also takes U+180E. */
static const char WHITE_SPACE[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"
                                  "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

/* Bytes from a "[" on that do not end a class: where one begins "^" and a "]" that stand first, in
 * one "[:digit:]". */
static size_t class_part(const char *text, size_t rest, int in_class)
{
    size_t n = 1;
    if (!in_class) {
        n += n < rest && text[n] == '^';
        return n + (n < rest && text[n] == ']');
    }
    if (rest > 1 && text[1] == ':')
        for (n = 2; n < rest && (text[n] == '^' || (text[n] >= 'a' && text[n] <= 'z')); n++) {
        }
    return n > 2 && n + 1 < rest && text[n] == ':' && text[n + 1] == ']' ? n + 2 : 1;
}

static pgrad_status rewrite(pgrad__strbuf *out, const char *pattern, size_t length,
                            const char *origin)
{
    int in_class = 0;
    for (size_t i = 0, n; i < length; i += n) {
        const int escapes = pattern[i] == '\\' && i + 1 < length;
        const char next = escapes ? pattern[i + 1] : '\0';
        n = escapes ? 2 : pattern[i] == '[' ? class_part(pattern + i, length - i, in_class) : 1;
        if (next == 'S' && in_class)
            return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: \\S inside a character class is not built",
                               origin);
        if (next == 's' || next == 'S') {
            pgrad__strbuf_text(out, in_class ? "" : next == 's' ? "[" : "[^");
            pgrad__strbuf_text(out, WHITE_SPACE);
            pgrad__strbuf_text(out, in_class ? "" : "]");
        } else {
            pgrad__strbuf_append(out, pattern + i, n);
        }
        if (pattern[i] == '[' || pattern[i] == ']')
            in_class = pattern[i] == '[';
    }
    return out->status;
}

static pgrad_status compile(pgrad__regex *regex, const char *pattern, size_t length, uint32_t flags,
                            const char *origin)
{
    int error = PCRE2_ERROR_HEAP_FAILED;
    size_t offset;
    unsigned char words[128];
    pcre2_general_context *general = pcre2_general_context_create(take, give, &regex->memory);
    pcre2_compile_context *how = general == NULL ? NULL : pcre2_compile_context_create(general);
    if (how != NULL)
        regex->code = pcre2_compile((PCRE2_SPTR)pattern, length,
                                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | flags, &error,
                                    &offset, how);
    pcre2_compile_context_free(how);
    pcre2_general_context_free(general);
    if (regex->code == NULL && error == PCRE2_ERROR_HEAP_FAILED)
        return no_memory(&regex->memory, origin);
    if (regex->code == NULL) {
        (void)pcre2_get_error_message(error, words, sizeof words);
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: regular expression, byte %zu: %s", origin,
                           offset, (const char *)words);
    }
    return PGRAD_OK;
}

pgrad_status pgrad__regex_compile(pgrad_context *context, const char *pattern, size_t length,
                                  const char *origin, pgrad__regex **out)
{
    pgrad__strbuf rewritten = {.context = context};
    pgrad__regex *regex = NULL;
    pgrad_status status = PGRAD_OK;
    PGRAD__GO(rewrite(&rewritten, pattern, length, origin));
    PGRAD__GO(pgrad__calloc(context, 1, sizeof *regex, &regex));
    regex->memory = (memory){context, PGRAD_E_NOMEM};
    PGRAD__GO(
        compile(regex, rewritten.data == NULL ? "" : rewritten.data, rewritten.length, 0, origin));
    /* Where JIT is forbidden or absent the interpreter matches the same. */
    (void)pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE);
    regex->match_limit = regex->depth_limit = MATCH_LIMIT;
    regex->heap_limit_kib = HEAP_LIMIT_KIB;
    regex->match_flags = PCRE2_NO_UTF_CHECK;
    regex->whose = "a tokenizer's regular expression";
    pgrad__strbuf_free(&rewritten);
    *out = regex;
    return PGRAD_OK;
fail:
    pgrad__strbuf_free(&rewritten);
    pgrad__regex_free(regex);
    return status;
}

/* JIT counts its steps otherwise, and knows no depth: without it a limit means the same everywhere.
 */
pgrad_status pgrad__regex_compile_bounded(pgrad_context *context, const char *pattern,
                                          size_t length, const pgrad__regex_bounds *bounds,
                                          const char *origin, pgrad__regex **out)
{
    pgrad__regex *regex = NULL;
    pgrad_status status = PGRAD_OK;
    const uint32_t flags =
        PCRE2_MATCH_INVALID_UTF | (bounds->ignore_case ? PCRE2_CASELESS : 0) |
        (bounds->dot_all ? PCRE2_DOTALL : 0) | (bounds->multi_line ? PCRE2_MULTILINE : 0) |
        (bounds->at_start ? PCRE2_ANCHORED : 0) | (bounds->at_end ? PCRE2_ENDANCHORED : 0);
    PGRAD__GO(pgrad__calloc(context, 1, sizeof *regex, &regex));
    regex->memory = (memory){context, PGRAD_E_NOMEM};
    PGRAD__GO(compile(regex, pattern, length, flags, origin));
    regex->match_limit = bounds->match_limit;
    regex->depth_limit = bounds->depth_limit;
    regex->heap_limit_kib = bounds->heap_limit_kib;
    regex->match_flags = PCRE2_NO_JIT;
    regex->whose = "a regular expression";
    *out = regex;
    return PGRAD_OK;
fail:
    pgrad__regex_free(regex);
    return status;
}

/* PCRE2 keeps a block of machine code for the next pattern, which would be lost when the host
 * closes the library: it does not go with it. */
void pgrad__regex_free(pgrad__regex *regex)
{
    if (regex == NULL)
        return;
    pcre2_code_free(regex->code);
    pcre2_jit_free_unused_memory(NULL);
    pgrad__free(regex->memory.context, regex);
}

pgrad_status pgrad__regex_match_create(pgrad_context *context, pgrad__regex_match **out)
{
    pgrad__regex_match *match;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *match, &match));
    match->memory = (memory){context, PGRAD_E_NOMEM};
    pcre2_general_context *general = pcre2_general_context_create(take, give, &match->memory);
    if (general != NULL) {
        match->data = pcre2_match_data_create(1, general);
        match->limits = pcre2_match_context_create(general);
    }
    pcre2_general_context_free(general);
    if (match->data == NULL || match->limits == NULL) {
        const pgrad_status status = no_memory(&match->memory, "a regular expression");
        pgrad__regex_match_free(match);
        return status;
    }
    *out = match;
    return PGRAD_OK;
}

void pgrad__regex_match_free(pgrad__regex_match *match)
{
    if (match == NULL)
        return;
    pcre2_match_context_free(match->limits);
    pcre2_match_data_free(match->data);
    pgrad__free(match->memory.context, match);
}

pgrad_status pgrad__regex_find(const pgrad__regex *regex, pgrad__regex_match *match,
                               const char *text, size_t length, size_t start, int *found,
                               size_t *begin, size_t *end)
{
    unsigned char words[128];
    (void)pcre2_set_match_limit(match->limits, regex->match_limit);
    (void)pcre2_set_depth_limit(match->limits, regex->depth_limit);
    (void)pcre2_set_heap_limit(match->limits, regex->heap_limit_kib);
    int result = pcre2_match(regex->code, (PCRE2_SPTR)text, length, start, regex->match_flags,
                             match->data, match->limits);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT)
        result = pcre2_match(regex->code, (PCRE2_SPTR)text, length, start,
                             regex->match_flags | PCRE2_NO_JIT, match->data, match->limits);
    *found = result >= 0;
    if (result == PCRE2_ERROR_NOMATCH)
        return PGRAD_OK;
    if (result == PCRE2_ERROR_NOMEMORY)
        return no_memory(&match->memory, regex->whose);
    if (result < 0) {
        *found = -1;
        (void)pcre2_get_error_message(result, words, sizeof words);
        return pgrad__fail(PGRAD_E_LIMIT, "%s at byte %zu of a text: %s", regex->whose, start,
                           (const char *)words);
    }
    const size_t *ends = pcre2_get_ovector_pointer(match->data);
    *begin = ends[0];
    *end = ends[1];
    return PGRAD_OK;
}
