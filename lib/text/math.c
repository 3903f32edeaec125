#include "text/math.h"

#include <math.h>
#include <string.h>

#include "base/ascii.h"
#include "base/fail.h"
#include "text/unicode.h"

typedef pgrad__math_item item;

/* ---- without decoration ---- */

/* What LaTeX has for looks alone goes; what has several spellings gets one. Longer ones first. */
static const struct {
    const char *from, *to;
} SPELLINGS[] = {
    {"\\displaystyle", ""},
    {"\\operatorname", "\\text"},
    {"\\textrm", "\\text"},
    {"\\textbf", ""},
    {"\\textit", "\\text"},
    {"\\mathrm", "\\text"},
    {"\\mathbf", ""},
    {"\\mbox", "\\text"},
    {"\\dfrac", "\\frac"},
    {"\\tfrac", "\\frac"},
    {"\\cfrac", "\\frac"},
    {"\\left", ""},
    {"\\right", ""},
    {"^{\\circ}", ""},
    {"^\\circ", ""},
    {"\\degree", ""},
    {"\\leqslant", "\\le"},
    {"\\geqslant", "\\ge"},
    {"\\leq", "\\le"},
    {"\\geq", "\\ge"},
    {"\\qquad", " "},
    {"\\quad", " "},
    {"\\lbrace", "\\{"},
    {"\\rbrace", "\\}"},
    {"\\$", ""},
    {"\\%", "%"},
    {"\\!", ""},
    {"\\,", " "},
    {"\\;", " "},
    {"\\:", " "},
    {"\\ ", " "},
    {"{,}", ""},
    {"$", ""},
    {"~", " "},
    {"\xe2\x88\x92", "-"},
    {"\xc3\x97", "\\times "},
    {"\xc3\xb7", "/"},
    {"\xcf\x80", "\\pi "},
    {"\xe2\x89\xa4", "\\le "},
    {"\xe2\x89\xa5", "\\ge "},
    {"\xc2\xb0", ""},
    {"\xe2\x88\x9e", "\\infty "},
};

/* Bytes replaced at the place, 0 for none. A command ends where its letters do. */
static size_t respell(const char *text, size_t rest, pgrad__strbuf *out)
{
    for (size_t i = 0; i < sizeof SPELLINGS / sizeof SPELLINGS[0]; i++) {
        const char *from = SPELLINGS[i].from;
        const size_t n = strlen(from);
        if (n > rest || memcmp(text, from, n) != 0 ||
            (pgrad__is_letter(from[n - 1]) && n < rest && pgrad__is_letter(text[n])))
            continue;
        pgrad__strbuf_text(out, SPELLINGS[i].to);
        return n;
    }
    return 0;
}

/* A space means something between letters or digits only, and in \text{}. */
static void append_plain(pgrad__strbuf *out, char c, char next)
{
    const char last = out->length == 0 ? '\0' : out->data[out->length - 1];
    if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
        if ((pgrad__is_letter(last) && pgrad__is_letter(next)) ||
            (pgrad__is_digit(last) && pgrad__is_digit(next)))
            pgrad__strbuf_append(out, " ", 1);
        return;
    }
    pgrad__strbuf_append(out, &c, 1);
}

static pgrad_status undecorate(pgrad__math *math, const char *text, size_t length)
{
    pgrad__strbuf first = {.context = math->text.context};
    for (size_t i = 0, n; i < length; i += n) {
        n = respell(text + i, length - i, &first);
        if (n == 0) {
            n = text[i] == '\\' && i + 1 < length ? 2 : 1;
            pgrad__strbuf_append(&first, text + i, n);
        }
    }
    for (size_t i = 0; i < first.length; i++) {
        size_t next = i;
        while (next < first.length && strchr(" \n\t\r", first.data[next]) != NULL &&
               first.data[next] != '\0')
            next++;
        append_plain(&math->text, next > i ? ' ' : first.data[i],
                     next < first.length ? first.data[next] : '\0');
        if (next > i)
            i = next - 1;
    }
    pgrad__strbuf *t = &math->text;
    while (t->length > 0 && strchr(".,;:", t->data[t->length - 1]) != NULL)
        t->data[--t->length] = '\0';
    if (t->status == PGRAD_OK)
        t->status = first.status;
    pgrad__strbuf_free(&first);
    return t->status;
}

/* ---- the parts of an answer ---- */

static int depth_change(const char *text)
{
    return memchr("([{", *text, 3) != NULL ? 1 : memchr(")]}", *text, 3) != NULL ? -1 : 0;
}

/* 1,234,567: digits in threes are one number. Writes it without commas. */
static void join_thousands(pgrad__strbuf *text)
{
    size_t out = 0;
    int is_grouped = 0;
    for (size_t i = 0; i < text->length; i++) {
        const char *t = text->data;
        const size_t rest = text->length - i;
        if (t[i] == ',' && rest > 3 && pgrad__is_digit(t[i + 1]) && pgrad__is_digit(t[i + 2]) &&
            pgrad__is_digit(t[i + 3]) && (rest == 4 || !pgrad__is_digit(t[i + 4])) && out > 0 &&
            pgrad__is_digit(t[out - 1])) {
            size_t digits = 0;
            while (digits < out && pgrad__is_digit(t[out - 1 - digits]))
                digits++;
            if (is_grouped || (digits <= 3 && t[out - digits] != '0')) {
                is_grouped = 1;
                continue;
            }
        }
        is_grouped = is_grouped && pgrad__is_digit(t[i]);
        text->data[out++] = t[i];
    }
    text->length = out;
    if (text->data != NULL)
        text->data[out] = '\0';
}

/* The next separator of a list outside brackets: its place and size; `length` for none. */
static size_t find_separator(const char *text, size_t length, size_t from, size_t *size)
{
    static const char *const SEPARATORS[] = {
        ",",      ";",    "\\text{or}", "\\text{and}", "\\text{ or }", "\\text{ and }",
        "\\cup ", " or ", " and ",      "or",          "and"};
    int depth = 0;
    for (size_t i = from; i < length; i++) {
        for (size_t k = 0; depth == 0 && k < sizeof SEPARATORS / sizeof SEPARATORS[0]; k++) {
            const char *separator = SEPARATORS[k];
            *size = strlen(separator);
            if (length - i < *size || memcmp(text + i, separator, *size) != 0)
                continue;
            if (!pgrad__is_letter(*separator) ||
                ((i == 0 || (!pgrad__is_letter(text[i - 1]) && text[i - 1] != '\\')) &&
                 (i + *size == length || !pgrad__is_letter(text[i + *size]))))
                return i;
        }
        depth += depth_change(text + i);
    }
    *size = 0;
    return length;
}

/* Whether the bracket at the beginning closes at the end. */
static int is_bracketed(const char *text, size_t length)
{
    int depth = 0;
    for (size_t i = 0; i < length; i++) {
        depth += depth_change(text + i);
        if (depth == 0)
            return i + 1 == length && length > 2;
    }
    return 0;
}

/* Units behind a number: words, and the short ones. */
static size_t without_unit(const char *text, size_t length)
{
    static const char *const UNITS[] = {"m", "cm", "mm", "km", "kg",  "mg", "g",
                                        "s", "ft", "in", "hr", "min", NULL};
    size_t n = 0, at;
    while (n < length && (pgrad__is_digit(text[n]) || text[n] == '.' || (n == 0 && text[n] == '-')))
        n++;
    if (n == 0 || n == length || !pgrad__is_digit(text[n - 1]))
        return length;
    at = n;
    if (length - at > 6 && memcmp(text + at, "\\text{", 6) == 0)
        return memchr(text + at, '}', length - at) == text + length - 1 ? n : length;
    if (text[at] == ' ')
        at++;
    for (size_t i = at; i < length; i++)
        if (!(text[i] >= 'a' && text[i] <= 'z') && text[i] != ' ')
            return length;
    if (length - at > 3)
        return n;
    for (size_t i = 0; UNITS[i] != NULL; i++)
        if (strlen(UNITS[i]) == length - at && memcmp(text + at, UNITS[i], length - at) == 0)
            return n;
    return length;
}

/* A word alone: letters, or \text{letters}, brackets around them dropped. */
static void find_word(const char *text, size_t length, item *out)
{
    if (length > 7 && memcmp(text, "\\text{", 6) == 0 && text[length - 1] == '}') {
        text += 6;
        length -= 7;
    }
    while (length > 2 && memchr("({", text[0], 2) != NULL &&
           text[length - 1] == (text[0] == '(' ? ')' : '}')) {
        text++;
        length -= 2;
    }
    for (size_t i = 0; i < length; i++)
        if (!pgrad__is_letter(text[i]) && text[i] != ' ')
            return;
    out->word = length > 0 ? text : NULL;
    out->word_length = length;
}

/* The relation at the place: its kind and size; swapped ones in *swap. */
static int relation_at(const char *text, size_t rest, size_t *size, int *swap)
{
    static const struct {
        const char *text;
        int kind, swap;
    } RELATIONS[] = {{"\\le", 'l', 0}, {"\\ge", 'l', 1}, {"\\lt", '<', 0}, {"\\gt", '<', 1},
                     {"\\in", '=', 0}, {"<=", 'l', 0},   {">=", 'l', 1},   {"<", '<', 0},
                     {">", '<', 1},    {"=", '=', 0}};
    for (size_t i = 0; i < sizeof RELATIONS / sizeof RELATIONS[0]; i++) {
        const size_t n = strlen(RELATIONS[i].text);
        if (n > rest || memcmp(text, RELATIONS[i].text, n) != 0 ||
            (text[0] == '\\' && n < rest && pgrad__is_letter(text[n])))
            continue;
        *size = n;
        *swap = RELATIONS[i].swap;
        return RELATIONS[i].kind;
    }
    return 0;
}

/* The left side of x = 3, f(x) = 3: what such an equation gives a value to. */
static int is_name(const char *text, size_t length)
{
    size_t n = 0;
    while (n < length && (pgrad__is_letter(text[n]) || text[n] == '_' || pgrad__is_digit(text[n])))
        n++;
    return n > 0 && n <= 3 && pgrad__is_letter(text[0]) &&
           (n == length || (text[n] == '(' && is_bracketed(text + n, length - n)));
}

/* Reads a part of a list; *twice when it has +-, whose other meaning sign -1 reads. */
static int read_item(const char *text, size_t length, int sign, item *out, int *twice)
{
    size_t size = 0, right = 0, left_length = length, n_relations = 0;
    int swap = 0, depth = 0, left_signs = 0;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < length; i++) {
        int swapped, kind = depth == 0 ? relation_at(text + i, length - i, &size, &swapped) : 0;
        depth += depth_change(text + i);
        if (kind == 0)
            continue;
        if (n_relations++ > 0 && (kind != '=' || out->relation != '='))
            return 0;
        if (n_relations == 1)
            left_length = i;
        out->relation = kind;
        swap = swapped;
        right = i + size + (i + size < length && text[i] == '\\' && text[i + size] == ' ');
        i += size - 1;
    }
    if (n_relations > 0) {
        out->is_assignment = out->relation == '=' && is_name(text, left_length);
        if (!pgrad__math_expression(text, left_length, sign, &out->left, &left_signs) &&
            !out->is_assignment)
            return 0;
    }
    text += right;
    length = without_unit(text, length - right);
    find_word(text, length, out);
    const int good = pgrad__math_expression(text, length, sign, &out->right, twice);
    if (swap) {
        pgrad__math_value left = out->left;
        out->left = out->right;
        out->right = left;
    }
    return good || (out->word != NULL && n_relations == 0);
}

static int add_item(pgrad__math *math, const char *text, size_t length)
{
    int twice = 0;
    if (math->n_items == PGRAD__MATH_ITEMS ||
        !read_item(text, length, 1, &math->items[math->n_items], &twice))
        return 0;
    math->n_items++;
    if (!twice)
        return 1;
    if (math->n_items == PGRAD__MATH_ITEMS)
        return 0;
    return read_item(text, length, -1, &math->items[math->n_items++], &twice);
}

/* Bytes of "x =" or "x \\in" in front of a bracketed list. */
static size_t list_prefix(const char *text, size_t length)
{
    size_t n = 0, size;
    int swap;
    while (n < length && (pgrad__is_letter(text[n]) || pgrad__is_digit(text[n]) || text[n] == '_'))
        n++;
    if (!is_name(text, n) || relation_at(text + n, length - n, &size, &swap) != '=')
        return 0;
    n += size;
    const size_t bracket = n + (n < length && text[n] == '\\');
    return bracket < length && memchr("([{", text[bracket], 3) != NULL &&
                   is_bracketed(text + bracket, length - bracket) &&
                   find_separator(text + bracket + 1, length - bracket - 2, 0, &size) <
                       length - bracket - 2
               ? n
               : 0;
}

static int read_parts(pgrad__math *math)
{
    const size_t prefix = list_prefix(math->text.data, math->text.length);
    const char *text = math->text.data + prefix;
    size_t length = math->text.length - prefix, size, inner = 1;
    if (length > 4 && memcmp(text, "\\{", 2) == 0 && memcmp(text + length - 2, "\\}", 2) == 0)
        inner = 2;
    const int is_set = inner == 2;
    if (is_set || (is_bracketed(text, length) && *text != '{' &&
                   find_separator(text + 1, length - 2, 0, &size) < length - 2)) {
        math->open = is_set ? 0 : *text;
        math->close = is_set ? 0 : text[length - 1];
        text += inner;
        length -= 2 * inner;
    } else if (find_separator(text, length, 0, &size) == length) {
        return add_item(math, text, length);
    }
    for (size_t at = 0; at <= length;) {
        const size_t end = find_separator(text, length, at, &size);
        if (end == at || !add_item(math, text + at, end - at))
            return 0;
        at = end + (size > 0 ? size : 1);
    }
    return math->n_items > 0;
}

pgrad_status pgrad__math_read(pgrad_context *context, const char *text, size_t length,
                              pgrad__math *out)
{
    memset(out, 0, sizeof *out);
    out->text.context = context;
    pgrad_status status = undecorate(out, text, length);
    if (status != PGRAD_OK) {
        pgrad__strbuf_free(&out->text);
        return status;
    }
    join_thousands(&out->text);
    out->is_read = out->text.length > 0 && read_parts(out);
    return PGRAD_OK;
}

void pgrad__math_free(pgrad__math *math)
{
    pgrad__strbuf_free(&math->text);
}

/* ---- comparing ---- */

static int close_to(double a, double b)
{
    return fabs(a - b) <= 1e-11 * fmax(1.0, fmax(fabs(a), fabs(b)));
}

/* A decimal fraction stands for what rounds to the same six places. */
static int same_number(const pgrad__math_value *a, const pgrad__math_value *b, double x, double y)
{
    if (isinf(x) || isinf(y))
        return x == y;
    if (a->whole && b->whole)
        return x == y;
    if ((a->decimal || b->decimal) && floor(x * 1e6 + 0.5) == floor(y * 1e6 + 0.5))
        return 1;
    return close_to(x, y);
}

static int same_value(const pgrad__math_value *a, const pgrad__math_value *b, double factor)
{
    int n = 0;
    for (int i = 0; i < PGRAD__MATH_PROBES; i++) {
        const double x = a->at[i], y = factor * b->at[i];
        if (isnan(x) && isnan(y))
            continue;
        if (isnan(x) || isnan(y) || !same_number(a, b, x, y))
            return 0;
        n++;
    }
    return n > 0;
}

/* 50% is a half; but of whole numbers 50% is 50, and 100% is not 1. */
static int same_expression(const item *right, const item *answer)
{
    pgrad__math_value a = right->right, b = answer->right;
    if (a.percent != b.percent && !(a.whole && b.whole)) {
        pgrad__math_value *percent = a.percent ? &a : &b;
        for (int i = 0; i < PGRAD__MATH_PROBES; i++)
            percent->at[i] /= 100.0;
        percent->whole = 0;
    }
    return same_value(&a, &b, 1.0);
}

static int same_word(const item *a, const item *b)
{
    if (a->word == NULL || b->word == NULL || a->word_length != b->word_length)
        return 0;
    for (size_t i = 0; i < a->word_length; i++)
        if (pgrad__to_lower((unsigned char)a->word[i]) !=
            pgrad__to_lower((unsigned char)b->word[i]))
            return 0;
    return 1;
}

static pgrad__math_value difference(const item *of)
{
    pgrad__math_value out = of->left;
    for (int i = 0; i < PGRAD__MATH_PROBES; i++)
        out.at[i] -= of->right.at[i];
    out.whole = out.percent = 0;
    out.decimal |= of->right.decimal;
    return out;
}

static int same_relation(const item *right, const item *answer)
{
    if (right->relation != answer->relation)
        return 0;
    const pgrad__math_value a = difference(right), b = difference(answer);
    return same_value(&a, &b, 1.0) || (right->relation == '=' && same_value(&a, &b, -1.0));
}

/* The right answer's form decides: of "x = 5" the 5 counts when a number is asked for. */
static int same_item(const item *right, const item *answer)
{
    if (right->relation != 0 && answer->relation != 0)
        return same_relation(right, answer);
    if (answer->relation == '<' || answer->relation == 'l' ||
        (right->relation != 0 && !right->is_assignment))
        return 0;
    return same_word(right, answer) || same_expression(right, answer);
}

/* Each has what the other has; 1 and 2/2 are one element. */
static int same_set(const pgrad__math *right, const pgrad__math *answer)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < right->n_items; i++) {
        int any = 0;
        for (uint32_t k = 0; k < answer->n_items; k++)
            if (same_item(&right->items[i], &answer->items[k])) {
                any = 1;
                found |= 1u << k;
            }
        if (!any)
            return 0;
    }
    return found == (1u << answer->n_items) - 1;
}

int pgrad__math_equal(const pgrad__math *right, const pgrad__math *answer)
{
    if (right->text.length > 0 && right->text.length == answer->text.length &&
        memcmp(right->text.data, answer->text.data, right->text.length) == 0)
        return 1;
    if (!right->is_read || !answer->is_read)
        return 0;
    if (right->open == 0 && answer->open == 0)
        return same_set(right, answer);
    if (right->n_items != answer->n_items)
        return 0;
    if (answer->open != 0 && (right->open != answer->open || right->close != answer->close))
        return 0;
    for (uint32_t i = 0; i < right->n_items; i++)
        if (!same_item(&right->items[i], &answer->items[i]))
            return 0;
    return 1;
}
