#include "base/number.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* printf writes the decimal point of the thread's locale: put a dot in its place. */
static void print(char text[32], int digits, double value)
{
    int length = snprintf(text, 32, "%.*g", digits, value);
    const char *point = localeconv()->decimal_point;
    size_t size = strlen(point);
    char *found = strcmp(point, ".") == 0 || length <= 0 ? NULL : strstr(text, point);
    if (found == NULL)
        return;
    *found = '.';
    memmove(found + 1, found + size, strlen(found + size) + 1);
}

size_t pgrad__format_real(char text[32], double value)
{
    double back;
    if (isnan(value))
        return strlen(strcpy(text, "nan"));
    if (isinf(value))
        return strlen(strcpy(text, value > 0.0 ? "infinity" : "-infinity"));
    for (int digits = 6; digits <= 17; digits++) {
        print(text, digits, value);
        if (pgrad__parse_real(text, &back) && back == value)
            break;
    }
    return strlen(text);
}

int pgrad__parse_real(const char *text, double *value)
{
    if (strpbrk(text, " \t\n\v\f\rxX") != NULL) /* strtod skips space, and reads hexadecimal */
        return 0;
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0)
        return 0;
    char *end;
    double read = strtod_l(text, &end, c);
    freelocale(c);
    if (*end != '\0' || end == text)
        return 0;
    *value = read;
    return 1;
}
