#include "base_test.h"

#include <math.h>

#include "../decimal_comma.h"
#include "base/number.h"
#include "base/rng.h"

static void check_text(double value, const char *wanted)
{
    char text[32];
    double back;
    ck_assert_uint_eq(pgrad__format_real(text, value), strlen(wanted));
    ck_assert_str_eq(text, wanted);
    ck_assert_int_eq(pgrad__parse_real(text, &back), 1);
    ck_assert(back == value || (isnan(back) && isnan(value)));
}

static void check_texts(void)
{
    check_text(0.1, "0.1");
    check_text(1e-5, "1e-05");
    check_text(1.5, "1.5");
    check_text(0.0, "0");
    check_text(-3.0, "-3");
    check_text(1.0 / 3.0, "0.3333333333333333");
    check_text(123456789.0, "123456789");
    check_text(INFINITY, "infinity");
    check_text(-INFINITY, "-infinity");
    check_text(NAN, "nan");
}

START_TEST(shortest_text)
{
    check_texts();
}
END_TEST

START_TEST(texts_read_back)
{
    for (uint64_t i = 0; i < 20000; i++) {
        uint64_t bits = pgrad__uniform_below(1, 2, i, UINT64_MAX);
        double value, back = 0;
        char text[32];
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        ck_assert_uint_lt(pgrad__format_real(text, value), 32);
        ck_assert_int_eq(pgrad__parse_real(text, &back), 1);
        ck_assert_mem_eq(&back, &value, sizeof value);
    }
}
END_TEST

START_TEST(refuses_what_is_no_number)
{
    static const char *const texts[] = {"", " 1", "1 ", "1x", "x", "1,5", "--1", "\n1", "\r1", "\v1", ".", "e5", "1e",
                                        "0x10", "0X1p3"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        double value = 77;
        ck_assert_msg(!pgrad__parse_real(texts[i], &value), "'%s' was read", texts[i]);
        ck_assert(value == 77);
    }
}
END_TEST

/* CF09: the host's locale has a decimal comma. */
START_TEST(cf09_decimal_comma)
{
    const int taken = take_decimal_comma();
    double value;
    check_texts();
    ck_assert_int_eq(pgrad__parse_real("0,5", &value), 0);
    drop_decimal_comma(taken);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, shortest_text);
    tcase_add_test(tests, texts_read_back);
    tcase_add_test(tests, refuses_what_is_no_number);
    tcase_add_test(tests, cf09_decimal_comma);
}

int main(void)
{
    return run_case("base/number", NULL, NULL, 60, add);
}
