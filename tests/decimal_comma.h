/* CF09: a host whose locale has a decimal comma. tests/run.sh makes one, where the package `locales` can be had. */
#ifndef PGRAD_TESTS_DECIMAL_COMMA_H
#define PGRAD_TESTS_DECIMAL_COMMA_H

#include <check.h>
#include <locale.h>
#include <stdio.h>

/* Takes such a locale; 0, and said so, where there is none. */
static inline int take_decimal_comma(void)
{
    static const char *const NAMES[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "pl_PL.UTF-8", "de_DE"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (setlocale(LC_ALL, NAMES[i]) != NULL && localeconv()->decimal_point[0] == ',')
            return 1;
    (void)setlocale(LC_ALL, "C");
    fprintf(stderr, "skipped: no locale with a decimal comma\n");
    return 0;
}

/* It is still the host's, where one was taken; then the one that programs begin with. */
static inline void drop_decimal_comma(int taken)
{
    ck_assert_int_eq(localeconv()->decimal_point[0], taken ? ',' : '.');
    (void)setlocale(LC_ALL, "C");
}

#endif
