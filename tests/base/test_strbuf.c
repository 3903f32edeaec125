#include "base_test.h"

#include "base/strbuf.h"

START_TEST(grows_and_is_closed)
{
    pgrad_context *context = make_context(1, PGRAD_KERNELS_AUTO);
    pgrad__strbuf text = {.context = context};
    pgrad__strbuf_text(&text, "");
    ck_assert_str_eq(text.data, "");
    for (int i = 0; i < 1000; i++)
        pgrad__strbuf_format(&text, "%d,", i);
    pgrad__strbuf_append(&text, "a\0b", 3);
    OK(text.status);
    ck_assert_uint_eq(text.length, 10 * 2 + 90 * 3 + 900 * 4 + 3);
    ck_assert_mem_eq(text.data + text.length - 7, "999,a\0b", 8);
    pgrad__strbuf_clear(&text);
    ck_assert_str_eq(text.data, "");
    pgrad__strbuf_free(&text);
    pgrad_context_free(context);
}
END_TEST

/* The first failure stays, and nothing is appended behind it. */
START_TEST(failures_stick)
{
    pgrad_context *context = make_context(1, PGRAD_KERNELS_AUTO);
    pgrad__strbuf text = {.context = context};
    pgrad__strbuf_text(&text, "abc");
    pgrad__strbuf_append(&text, "x", SIZE_MAX - 3);
    ck_assert_int_eq(text.status, PGRAD_E_LIMIT);
    ck_assert_str_eq(pgrad_error_message(), "a text of more bytes than can be addressed");
    pgrad__strbuf_text(&text, "def");
    pgrad__strbuf_format(&text, "%d", 7);
    ck_assert_int_eq(text.status, PGRAD_E_LIMIT);
    ck_assert_str_eq(text.data, "abc");
    pgrad__strbuf_free(&text);
    pgrad_context_free(context);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, grows_and_is_closed);
    tcase_add_test(tests, failures_stick);
}

int main(void)
{
    return run_case("base/strbuf", NULL, NULL, 60, add);
}
