/* Expressions: a parser that computes as it reads, at several places at once. */
#include <math.h>
#include <string.h>

#include "base/ascii.h"
#include "base/number.h"
#include "base/real.h"
#include "base/rng.h"
#include "text/math.h"

enum { MAX_DEPTH = 48, P = PGRAD__MATH_PROBES };

typedef struct reader {
    const char *at, *end;
    int depth, sign, has_signs, failed;
} reader;

typedef pgrad__math_value value;

static value expression(reader *r);

/* ---- values ---- */

static value constant(double number, int whole)
{
    value v = {.whole = whole};
    for (int i = 0; i < P; i++)
        v.at[i] = number;
    return v;
}

static value fail(reader *r)
{
    r->failed = 1;
    r->at = r->end;
    return constant(NAN, 0);
}

/* The same name has the same places everywhere; one of them is negative. */
static value variable(const char *name, size_t length)
{
    value v = {.whole = 0};
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 0x100000001b3u;
    for (int i = 0; i < P; i++) {
        v.at[i] = 0.25 + (double)pgrad__uniform_below(hash, 17, (uint64_t)i, 1u << 20) * 0x1p-19;
        if (i == P - 1)
            v.at[i] = -v.at[i];
    }
    return v;
}

static double integer_power(double x, double n)
{
    double out = 1.0, base = n < 0.0 ? 1.0 / x : x;
    for (uint32_t left = (uint32_t)fabs(n); left > 0; left >>= 1) {
        if (left & 1)
            out *= base;
        base *= base;
    }
    return out;
}

static double power(double x, double y)
{
    if (y == floor(y) && fabs(y) <= 1024.0)
        return integer_power(x, y);
    if (x == 0.0)
        return y > 0.0 ? 0.0 : NAN;
    return x > 0.0 && isfinite(x) && isfinite(y) ? pgrad__pow(x, y) : NAN;
}

static double apply(int operation, double a, double b)
{
    switch (operation) {
    case '+':
        return a + b;
    case '-':
        return a - b;
    case '*':
        return a * b;
    case '/':
        return b == 0.0 ? NAN : a / b;
    default:
        return power(a, b);
    }
}

static value combine(int operation, value a, value b)
{
    value out = {.decimal = a.decimal || b.decimal};
    for (int i = 0; i < P; i++)
        out.at[i] = apply(operation, a.at[i], b.at[i]);
    out.whole = a.whole && b.whole && out.at[0] == floor(out.at[0]) && fabs(out.at[0]) <= 0x1p53;
    return out;
}

static double factorial(double n)
{
    double out = 1.0;
    if (!(n >= 0.0) || n != floor(n) || n > 170.0)
        return NAN;
    for (double i = 2.0; i <= n; i++)
        out *= i;
    return out;
}

/* Beyond 2^20 turns have lost their places. */
static double sine(double x)
{
    return fabs(x) < 0x1p20 ? pgrad__sin(x) : NAN;
}

static double cosine(double x)
{
    return fabs(x) < 0x1p20 ? pgrad__cos(x) : NAN;
}

static double tangent(double x)
{
    return sine(x) / cosine(x);
}

static double natural_log(double x)
{
    return x > 0.0 && isfinite(x) ? pgrad__log(x) : NAN;
}

static const struct {
    const char *name;
    double (*apply)(double);
} FUNCTIONS[] = {
    {"sin", sine},       {"cos", cosine},     {"tan", tangent},
    {"exp", pgrad__exp}, {"ln", natural_log}, {"log", natural_log},
};
static const struct {
    const char *name;
    double number;
} NAMED[] = {
    {"pi", 3.14159265358979323846},
    {"infty", INFINITY},
};

/* ---- characters ---- */

static int next_is(const reader *r, const char *text)
{
    const size_t n = strlen(text);
    return (size_t)(r->end - r->at) >= n && memcmp(r->at, text, n) == 0;
}

static int take(reader *r, const char *text)
{
    const int is = next_is(r, text);
    if (is)
        r->at += strlen(text);
    return is;
}

/* The name of a command at the place: its length, 0 for none. */
static size_t command(const reader *r, const char **name)
{
    size_t n = 0;
    if (r->at == r->end || *r->at != '\\')
        return 0;
    *name = r->at + 1;
    while (*name + n < r->end && pgrad__is_letter((*name)[n]))
        n++;
    return n;
}

static int take_command(reader *r, const char *wanted)
{
    const char *name;
    const size_t n = command(r, &name);
    if (n == 0 || n != strlen(wanted) || memcmp(name, wanted, n) != 0)
        return 0;
    r->at = name + n;
    if (r->at < r->end && *r->at == ' ')
        r->at++;
    return 1;
}

/* ---- parts ---- */

static value number(reader *r)
{
    char digits[64];
    size_t n = 0;
    int point = 0;
    double v;
    while (r->at < r->end && (pgrad__is_digit(*r->at) || (*r->at == '.' && !point))) {
        point |= *r->at == '.';
        if (n + 1 == sizeof digits)
            return fail(r);
        digits[n++] = *r->at++;
    }
    digits[n] = '\0';
    if (!pgrad__parse_real(digits, &v))
        return fail(r);
    value out = constant(v, !point && v <= 0x1p53);
    out.decimal = point;
    return out;
}

static value group(reader *r, const char *close)
{
    value v = expression(r);
    return take(r, close) ? v : fail(r);
}

/* {...}, or one character: \frac12, x^2. */
static value argument(reader *r)
{
    if (take(r, "{"))
        return group(r, "}");
    if (r->at < r->end && pgrad__is_digit(*r->at)) {
        reader one = *r;
        one.end = r->at + 1;
        r->at++;
        return number(&one);
    }
    if (r->at < r->end && pgrad__is_letter(*r->at))
        return variable(r->at++, 1);
    return fail(r);
}

static value square_root(reader *r)
{
    value degree = constant(2.0, 1);
    if (take(r, "["))
        degree = group(r, "]");
    value inner = argument(r), out = {.decimal = inner.decimal};
    for (int i = 0; i < P; i++) {
        if (degree.at[i] == 2.0)
            out.at[i] = sqrt(inner.at[i]);
        else if (inner.at[i] < 0.0 && degree.at[i] == 3.0)
            out.at[i] = -power(-inner.at[i], 1.0 / 3.0);
        else
            out.at[i] = power(inner.at[i], 1.0 / degree.at[i]);
    }
    return out;
}

static value binomial(reader *r)
{
    value n = argument(r), k = argument(r), out = {.whole = n.whole && k.whole};
    for (int i = 0; i < P; i++)
        out.at[i] = factorial(n.at[i]) / factorial(k.at[i]) / factorial(n.at[i] - k.at[i]);
    if (out.whole) /* three roundings off at most */
        for (int i = 0; i < P; i++)
            out.at[i] = floor(out.at[i] + 0.5);
    return out;
}

static value power_of(reader *r);

/* sin x, sin^2 x, \log_2 8: the argument is what comes before + or -. */
static value function(reader *r, size_t which)
{
    value base = constant(NAN, 0), exponent = constant(1.0, 1), inner, out = {.whole = 0};
    const int has_base = take(r, "_");
    if (has_base)
        base = argument(r);
    if (take(r, "^"))
        exponent = argument(r);
    (void)take(r, " ");
    if (++r->depth > MAX_DEPTH || r->at == r->end)
        return fail(r);
    if (take(r, "("))
        inner = group(r, ")");
    else if (next_is(r, "\\") || pgrad__is_digit(*r->at) || pgrad__is_letter(*r->at) ||
             *r->at == '{')
        inner = power_of(r);
    else
        return fail(r);
    r->depth--;
    for (int i = 0; i < P; i++) {
        out.at[i] = FUNCTIONS[which].apply(inner.at[i]);
        if (has_base)
            out.at[i] /= natural_log(base.at[i]);
    }
    out.decimal = inner.decimal;
    return combine('^', out, exponent);
}

/* A name: one letter, or the word inside \text{}, with what is below it. */
static value name(reader *r)
{
    const char *start = r->at;
    if (take_command(r, "text")) {
        if (!take(r, "{"))
            return fail(r);
        while (r->at < r->end && *r->at != '}')
            r->at++;
        if (!take(r, "}"))
            return fail(r);
    } else {
        const char *word;
        r->at += *r->at == '\\' ? 1 + command(r, &word) : 1;
        if (r->at < r->end && *r->at == ' ')
            r->at++;
    }
    if (next_is(r, "_")) {
        r->at++;
        if (take(r, "{"))
            while (r->at < r->end && *r->at != '}')
                r->at++;
        if (r->at == r->end)
            return fail(r);
        r->at++;
    }
    return variable(start, (size_t)(r->at - start));
}

static value command_atom(reader *r)
{
    if (take_command(r, "frac")) {
        value over = argument(r);
        return combine('/', over, argument(r));
    }
    if (take_command(r, "sqrt"))
        return square_root(r);
    if (take_command(r, "binom"))
        return binomial(r);
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof FUNCTIONS[0]; i++)
        if (take_command(r, FUNCTIONS[i].name))
            return function(r, i);
    for (size_t i = 0; i < sizeof NAMED / sizeof NAMED[0]; i++)
        if (take_command(r, NAMED[i].name))
            return constant(NAMED[i].number, 0);
    static const char *const LETTERS[] = {"alpha",  "beta",  "gamma",  "delta", "epsilon", "theta",
                                          "lambda", "mu",    "nu",     "rho",   "sigma",   "tau",
                                          "phi",    "omega", "varphi", "text",  NULL};
    for (size_t i = 0; LETTERS[i] != NULL; i++) {
        reader ahead = *r;
        if (take_command(&ahead, LETTERS[i]))
            return name(r);
    }
    return fail(r);
}

static value absolute(reader *r)
{
    value v = group(r, "|");
    for (int i = 0; i < P; i++)
        v.at[i] = fabs(v.at[i]);
    return v;
}

static value atom(reader *r)
{
    value v;
    if (r->at == r->end || ++r->depth > MAX_DEPTH)
        return fail(r);
    if (pgrad__is_digit(*r->at) || *r->at == '.')
        v = number(r);
    else if (take(r, "("))
        v = group(r, ")");
    else if (take(r, "["))
        v = group(r, "]");
    else if (take(r, "{"))
        v = group(r, "}");
    else if (take(r, "|"))
        v = absolute(r);
    else if (*r->at == '\\')
        v = command_atom(r);
    else if (*r->at == 'e' && (r->at + 1 == r->end || !pgrad__is_letter(r->at[1])))
        r->at++, v = constant(2.71828182845904523536, 0);
    else if (pgrad__is_letter(*r->at))
        v = name(r);
    else
        v = fail(r);
    r->depth--;
    return v;
}

static value power_of(reader *r)
{
    value v = atom(r);
    while (!r->failed && (next_is(r, "^") || next_is(r, "!"))) {
        if (take(r, "!")) {
            for (int i = 0; i < P; i++)
                v.at[i] = factorial(v.at[i]);
            v.whole = v.whole && v.at[0] <= 0x1p53;
            continue;
        }
        r->at++;
        v = combine('^', v, argument(r));
    }
    return v;
}

/* 1\frac{1}{2} is a sum. */
static int is_mixed(const reader *r, const char *start)
{
    const char *c = start;
    while (c < r->at && pgrad__is_digit(*c))
        c++;
    return c == r->at && c > start && next_is(r, "\\frac");
}

static value term(reader *r)
{
    const char *start = r->at;
    value v = power_of(r);
    if (!r->failed && is_mixed(r, start))
        v = combine('+', v, power_of(r));
    while (!r->failed && r->at < r->end) {
        if (take(r, "*") || take_command(r, "cdot") || take_command(r, "times"))
            v = combine('*', v, power_of(r));
        else if (take(r, "/") || take_command(r, "div"))
            v = combine('/', v, power_of(r));
        else if (next_is(r, "\\pm") || next_is(r, "\\mp"))
            break;
        else if (pgrad__is_letter(*r->at) || *r->at == '(' || *r->at == '\\' || *r->at == '{')
            v = combine('*', v, power_of(r));
        else
            break;
    }
    return v;
}

/* 1, -1 and 0 for no sign. */
static int take_sign(reader *r)
{
    if (take(r, "+"))
        return 1;
    if (take(r, "-"))
        return -1;
    const int plus = take_command(r, "pm");
    if (!plus && !take_command(r, "mp"))
        return 0;
    r->has_signs = 1;
    return plus ? r->sign : -r->sign;
}

static value expression(reader *r)
{
    value v = constant(0.0, 1);
    int sign, first = 1;
    if (++r->depth > MAX_DEPTH)
        return fail(r);
    while (!r->failed && ((sign = take_sign(r)) != 0 || first)) {
        while (first && next_is(r, "-")) { /* --3 */
            r->at++;
            sign = sign == 0 ? -1 : -sign;
        }
        v = combine(sign < 0 ? '-' : '+', v, term(r));
        first = 0;
    }
    r->depth--;
    return v;
}

int pgrad__math_expression(const char *text, size_t length, int sign, pgrad__math_value *out,
                           int *has_signs)
{
    reader r = {text, text + length, 0, sign, 0, 0};
    value v = expression(&r);
    v.percent = !r.failed && take(&r, "%");
    *out = v;
    *has_signs = r.has_signs;
    return !r.failed && r.at == r.end;
}
