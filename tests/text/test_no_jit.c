/* PCRE2 without JIT, as where memory that is written must not be executed: the expressions of the tokenizers find
 * the same in 10,000 strings of many scripts, and texts have the same ids. */
#include "text_test.h"

#include <dlfcn.h>

#include "strings.h"
#include "text/regex.h"

/* ---- stands in for PCRE2's own ---- */

static int forbid_jit, asked;

int pcre2_jit_compile_8(void *code, uint32_t options);
int pcre2_jit_compile_8(void *code, uint32_t options)
{
    enum { JIT_BADOPTION = -45 };
    int (*real)(void *, uint32_t);
    void *found = dlsym(RTLD_NEXT, "pcre2_jit_compile_8");
    asked++;
    if (forbid_jit || found == NULL)
        return JIT_BADOPTION;
    memcpy(&real, &found, sizeof real);
    return real(code, options);
}

static const char *const PATTERNS[] = {
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
    "\\p{Han}+|\\S*\\s", /* with a way back */
};

static pgrad__regex *compile(const char *pattern, int without)
{
    pgrad__regex *regex = NULL;
    forbid_jit = without;
    asked = 0;
    OK(pgrad__regex_compile(context, pattern, strlen(pattern), "test", &regex));
    ck_assert_int_eq(asked, 1);
    return regex;
}

START_TEST(expressions_find_the_same)
{
    static char text[STRING_MAX];
    pgrad__regex *regexes[2] = {compile(PATTERNS[_i], 0), compile(PATTERNS[_i], 1)};
    pgrad__regex_match *matches[2];
    const uint32_t step = getenv("PGRAD_TEST_SHORT") != NULL ? 11 : 1;
    size_t n_found = 0;
    OK(pgrad__regex_match_create(context, &matches[0]));
    OK(pgrad__regex_match_create(context, &matches[1]));
    for (uint32_t i = 0; i < N_STRINGS; i += step) {
        const size_t length = make_string(i, text);
        int found[2] = {1, 1};
        for (size_t at = 0; found[0] && at < length;) {
            size_t begin[2] = {0}, end[2] = {0};
            for (int k = 0; k < 2; k++)
                OK(pgrad__regex_find(regexes[k], matches[k], text, length, at, &found[k], &begin[k], &end[k]));
            if (found[0] != found[1] || begin[0] != begin[1] || end[0] != end[1])
                ck_abort_msg("string %u, byte %zu: %d %zu %zu, without JIT %d %zu %zu", i, at, found[0], begin[0],
                             end[0], found[1], begin[1], end[1]);
            n_found += (size_t)found[0];
            at = end[0] > at ? end[0] : at + 1;
        }
    }
    ck_assert_uint_gt(n_found, 1000);
    for (int k = 0; k < 2; k++) {
        pgrad__regex_match_free(matches[k]);
        pgrad__regex_free(regexes[k]);
    }
}
END_TEST

START_TEST(texts_have_the_same_ids)
{
    pgrad_tokenizer *tokenizers[2];
    for (int k = 0; k < 2; k++) {
        forbid_jit = k;
        asked = 0;
        tokenizers[k] = load_parts((parts){0});
        ck_assert_int_ge(asked, 1);
        IDS(tokenizers[k], "hello hello  hello's", 0, ID_HELLO, ID_SPACE_HELLO, ' ', ID_SPACE_HELLO, '\'', 's');
    }
    for (int k = 0; k < 2; k++)
        pgrad_tokenizer_free(tokenizers[k]);
}
END_TEST

static uint64_t held(void)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    OK(pgrad_context_get_info(context, &info));
    return info.memory_now;
}

/* What PCRE2 takes to compile and, by its interpreter, to match is the context's: counted, limited, told. */
START_TEST(memory_is_the_contexts)
{
    static char text[20000];
    pgrad__regex_match *match = NULL;
    pgrad__regex *regex = NULL;
    const uint64_t before = held();
    size_t begin, end;
    int found;
    memset(text, 'a', sizeof text);
    context->memory_limit = before + 1000;
    forbid_jit = 1;
    FAILS(PGRAD_E_LIMIT, "the context allows", pgrad__regex_compile(context, PATTERNS[1], strlen(PATTERNS[1]), "test", &regex));
    ck_assert_uint_eq(held(), before);
    context->memory_limit = before + 100;
    FAILS(PGRAD_E_LIMIT, "the context allows", pgrad__regex_match_create(context, &match));
    ck_assert_ptr_null(match);
    ck_assert_uint_eq(held(), before);
    context->memory_limit = 0;
    regex = compile("(?:a|b)*c|a+", 1);
    ck_assert_uint_gt(held(), before + 100);
    OK(pgrad__regex_match_create(context, &match));
    const uint64_t ready = held();
    context->memory_limit = ready + 100000;
    FAILS(PGRAD_E_LIMIT, "a tokenizer's regular expression: memory: ",
          pgrad__regex_find(regex, match, text, sizeof text, 0, &found, &begin, &end));
    ck_assert_int_eq(found, 0); /* -1 is the pattern's own limit */
    context->memory_limit = 0;
    OK(pgrad__regex_find(regex, match, text, sizeof text, 0, &found, &begin, &end));
    ck_assert(found == 1 && begin == 0 && end == sizeof text);
    ck_assert_uint_gt(held(), ready + 100000); /* it is kept for the next match */
    pgrad__regex_match_free(match);
    pgrad__regex_free(regex);
    ck_assert_uint_eq(held(), before);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, memory_is_the_contexts);
    tcase_add_loop_test(tests, expressions_find_the_same, 0, sizeof PATTERNS / sizeof PATTERNS[0]);
    tcase_add_test(tests, texts_have_the_same_ids);
}

int main(void)
{
    return run_case("text/no_jit", setup, teardown, 60, add);
}
