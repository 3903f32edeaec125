#include "io/json.h"

#include <jansson.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/ascii.h"
#include "base/fail.h"
#include "base/number.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "io/file.h"

enum { MAX_DEPTH = 64, MAX_SIZE = 100 * 1000 * 1000 };

/* A pgrad__json is a json_t: the cast is in these two places. */
static json_t *inside(const pgrad__json *value)
{
    json_t *out;
    memcpy(&out, &value, sizeof out);
    return out;
}

static pgrad__json *outside(const json_t *value)
{
    pgrad__json *out;
    memcpy(&out, &value, sizeof out);
    return out;
}

/* ---- reading ---- */

/* The end of the number at text[i]; *too_long when it is an integer jansson cannot hold. */
static size_t skip_number(const char *text, size_t length, size_t i, int *too_long)
{
    static const char LARGEST[] = "9223372036854775807";
    const size_t digits = sizeof LARGEST - 1;
    const size_t start = i + (text[i] == '-');
    size_t end = start;
    while (end < length && pgrad__is_digit(text[end]))
        end++;
    *too_long = end - start > digits ||
                (end - start == digits && memcmp(text + start, LARGEST, digits) > 0);
    if (end < length && (text[end] == '.' || text[end] == 'e' || text[end] == 'E'))
        *too_long = 0;
    while (end < length && memchr("+-.eE0123456789", text[end], 15) != NULL)
        end++;
    return end > i ? end : i + 1;
}

/* The bytes of a text that jansson is given, and what is known of them. */
typedef struct source {
    const char *origin;
    const char *text;
    size_t length;
    size_t longest; /* token, or more than that */
    size_t at;      /* of the whole that feed makes */
} source;

static int is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Looks through the text before jansson sees it. jansson recurses, so a bomb of brackets must not
 * reach it; and it refuses whole documents for an integer beyond int64, such as the 1e30 that
 * tokenizer configurations spell out for "no limit": `longer` gets the text with ".0" behind those.
 */
static pgrad_status look_through(source *s, pgrad__strbuf *longer)
{
    const char *text = s->text;
    char path[PGRAD__PATH_MAX];
    size_t copied = 0, token = 0, i = 0;
    int depth = 0, in_string = 0, ended = 0, too_long;
    while (i < s->length) {
        const char c = text[i];
        if (in_string) {
            in_string = c != '"';
            i += c == '\\' ? 2 : 1;
        } else if (is_space(c) || c == ',' || c == ':') {
            token = ++i;
        } else if (ended) {
            return pgrad__fail(PGRAD_E_FORMAT, "%s: JSON: more behind its end, at byte %zu",
                               pgrad__path_text(path, s->origin), i);
        } else if (c == '-' || pgrad__is_digit(c)) {
            i = skip_number(text, s->length, i, &too_long);
            if (too_long) {
                pgrad__strbuf_append(longer, text + copied, i - copied);
                pgrad__strbuf_text(longer, ".0");
                copied = i;
            }
        } else {
            if ((c == '[' || c == '{') && ++depth > MAX_DEPTH)
                return pgrad__fail(PGRAD_E_FORMAT, "%s: JSON nested deeper than %d at byte %zu",
                                   pgrad__path_text(path, s->origin), MAX_DEPTH, i);
            depth -= c == ']' || c == '}';
            ended = depth == 0 && (c == ']' || c == '}');
            in_string = c == '"';
            i++;
        }
        s->longest = i > token + s->longest ? i - token : s->longest;
    }
    if (copied > 0)
        pgrad__strbuf_append(longer, text + copied, s->length - copied);
    return longer->status;
}

/* When memory fails jansson as it makes room for a longer token, it drops a byte and goes on. So it
 * is given ["aaa..", TEXT], the first string longer than all that follow: should it come out
 * shorter, memory failed, and behind it no more room is needed. Room is made where an odd number of
 * bytes is there; behind a string of odd length comes its last quote, which jansson cannot do
 * without, where the number is even. */
enum { BEFORE = 4 };

static size_t padding(const source *s)
{
    return (s->longest + sizeof ".0") | 1;
}

static size_t head(const source *s)
{
    return BEFORE + padding(s);
}

static size_t feed(void *buffer, size_t capacity, void *user)
{
    source *s = user;
    const size_t begin = head(s), end = begin + s->length;
    char *to = buffer;
    size_t n = 0;
    for (; n < capacity && s->at < begin; n++, s->at++)
        to[n] = s->at == 0                         ? '['
                : s->at == 1 || s->at + 2 == begin ? '"'
                : s->at + 1 == begin               ? ','
                                                   : 'a';
    if (n < capacity && s->at < end) {
        const size_t some = capacity - n < end - s->at ? capacity - n : end - s->at;
        memcpy(to + n, s->text + (s->at - begin), some);
        s->at += some;
        n += some;
    }
    if (n < capacity && s->at == end) {
        to[n++] = ']';
        s->at++;
    }
    return n;
}

/* Of most of its allocations that fail jansson says nothing, or complains of a string where one
 * belongs. */
static int is_no_memory(const source *s, const json_error_t *error)
{
    static const char *const WORDS[] = {"string or '}' expected", "invalid token"};
    if (error->text[0] == '\0' || json_error_code(error) == json_error_out_of_memory)
        return 1;
    const size_t position = error->position < 0 ? 0 : (size_t)error->position; /* behind a token */
    if (position <= head(s))
        return strncmp(error->text, WORDS[1], strlen(WORDS[1])) == 0;
    return position <= head(s) + s->length && s->text[position - head(s) - 1] == '"' &&
           (strncmp(error->text, WORDS[0], strlen(WORDS[0])) == 0 ||
            strncmp(error->text, WORDS[1], strlen(WORDS[1])) == 0);
}

static pgrad_status no_memory(const source *s)
{
    char path[PGRAD__PATH_MAX];
    return pgrad__fail(PGRAD_E_NOMEM, "%s: JSON: no memory", pgrad__path_text(path, s->origin));
}

static pgrad_status refused(const source *s, const json_error_t *error)
{
    char path[PGRAD__PATH_MAX];
    const size_t position = error->position < 0 ? 0 : (size_t)error->position;
    if (is_no_memory(s, error))
        return no_memory(s);
    if (position > head(s) + s->length)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: JSON, line %d: it ends too early",
                           pgrad__path_text(path, s->origin), error->line);
    return pgrad__fail(PGRAD_E_FORMAT, "%s: JSON, line %d, byte %zu: %s",
                       pgrad__path_text(path, s->origin), error->line,
                       position > head(s) ? position - head(s) : 0, error->text);
}

/* The value behind the first string. */
static pgrad_status unwrap(const source *s, json_t *root, pgrad__json **out)
{
    char path[PGRAD__PATH_MAX];
    json_t *value = json_array_get(root, 1);
    if (json_string_length(json_array_get(root, 0)) != padding(s))
        return no_memory(s);
    if (json_array_size(root) != 2)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: JSON: expected one value, found %zu",
                           pgrad__path_text(path, s->origin), json_array_size(root) - 1);
    *out = outside(json_incref(value));
    return PGRAD_OK;
}

/* jansson reads numbers with strtod and the decimal point of the thread's locale. */
static pgrad_status parse(source *s, pgrad__json **out)
{
    json_error_t error;
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c == (locale_t)0)
        return no_memory(s);
    locale_t before = uselocale(c);
    json_t *root = json_load_callback(feed, s, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    (void)uselocale(before);
    freelocale(c);
    if (root == NULL)
        return refused(s, &error);
    pgrad_status status = unwrap(s, root, out);
    json_decref(root);
    return status;
}

pgrad_status pgrad__json_parse(pgrad_context *context, const char *text, size_t length,
                               const char *origin, pgrad__json **out)
{
    char path[PGRAD__PATH_MAX];
    pgrad__strbuf longer = {.context = context};
    source s = {.origin = origin, .text = text, .length = length};
    if (length > MAX_SIZE)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: at most %d bytes of JSON, found %zu",
                           pgrad__path_text(path, origin), MAX_SIZE, length);
    if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: expected JSON, found a byte order mark before it",
                           pgrad__path_text(path, origin));
    pgrad_status status = look_through(&s, &longer);
    if (longer.length > 0) {
        s.text = longer.data;
        s.length = longer.length;
    }
    if (status == PGRAD_OK)
        status = parse(&s, out);
    pgrad__strbuf_free(&longer);
    return status;
}

pgrad_status pgrad__json_load(pgrad_context *context, const char *path, size_t limit,
                              pgrad__json **out)
{
    char *text;
    size_t length;
    PGRAD__TRY(pgrad__file_load(context, path, limit, &text, &length));
    pgrad_status status = pgrad__json_parse(context, text, length, path, out);
    pgrad__free(context, text);
    return status;
}

void pgrad__json_free(pgrad__json *root)
{
    json_decref(inside(root));
}

int pgrad__json_type(const pgrad__json *value)
{
    if (value == NULL)
        return PGRAD__JSON_NULL;
    switch (json_typeof(inside(value))) {
    case JSON_OBJECT:
        return PGRAD__JSON_OBJECT;
    case JSON_ARRAY:
        return PGRAD__JSON_ARRAY;
    case JSON_STRING:
        return PGRAD__JSON_STRING;
    case JSON_INTEGER:
    case JSON_REAL:
        return PGRAD__JSON_NUMBER;
    case JSON_TRUE:
    case JSON_FALSE:
        return PGRAD__JSON_BOOL;
    default:
        return PGRAD__JSON_NULL;
    }
}

const pgrad__json *pgrad__json_get(const pgrad__json *object, const char *key)
{
    const json_t *value = object == NULL ? NULL : json_object_get(inside(object), key);
    return value == NULL || json_is_null(value) ? NULL : outside(value);
}

size_t pgrad__json_count(const pgrad__json *value)
{
    if (pgrad__json_type(value) == PGRAD__JSON_ARRAY)
        return json_array_size(inside(value));
    return pgrad__json_type(value) == PGRAD__JSON_OBJECT ? json_object_size(inside(value)) : 0;
}

const pgrad__json *pgrad__json_at(const pgrad__json *array, size_t index)
{
    return array == NULL ? NULL : outside(json_array_get(inside(array), index));
}

int pgrad__json_next(const pgrad__json *object, void **iterator, const char **key,
                     size_t *key_length, const pgrad__json **value)
{
    json_t *of = inside(object);
    *iterator = *iterator == NULL ? json_object_iter(of) : json_object_iter_next(of, *iterator);
    if (*iterator == NULL)
        return 0;
    *key = json_object_iter_key(*iterator);
    *key_length = json_object_iter_key_len(*iterator);
    *value = outside(json_object_iter_value(*iterator));
    return 1;
}

const char *pgrad__json_string(const pgrad__json *value, size_t *length)
{
    const json_t *string = value == NULL ? NULL : inside(value);
    if (!json_is_string(string)) {
        if (length != NULL)
            *length = 0;
        return NULL;
    }
    if (length != NULL)
        *length = json_string_length(string);
    return json_string_value(string);
}

int pgrad__json_bool(const pgrad__json *value, int otherwise)
{
    const json_t *inner = value == NULL ? NULL : inside(value);
    return json_is_boolean(inner) ? json_is_true(inner) : otherwise;
}

int pgrad__json_integer(const pgrad__json *value, int64_t *out)
{
    const json_t *number = value == NULL ? NULL : inside(value);
    if (json_is_integer(number)) {
        *out = (int64_t)json_integer_value(number);
        return 1;
    }
    if (!json_is_real(number))
        return 0;
    double real = json_real_value(number);
    if (!(fabs(real) < 0x1p53) || real != floor(real))
        return 0;
    *out = (int64_t)real;
    return 1;
}

int pgrad__json_real(const pgrad__json *value, double *out)
{
    const json_t *number = value == NULL ? NULL : inside(value);
    if (!json_is_number(number))
        return 0;
    *out = json_number_value(number);
    return 1;
}

int pgrad__json_is_real(const pgrad__json *value)
{
    return value != NULL && json_is_real(inside(value));
}

/* ---- members with checks ---- */

/* The shortest text that reads back as the same double, and as a real. */
static void real_text(char text[40], double number)
{
    (void)pgrad__format_real(text, number);
    if (strpbrk(text, ".e") == NULL)
        strcat(text, ".0");
}

static const char *type_name(const pgrad__json *value)
{
    static const char *const NAMES[] = {"null",     "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    return NAMES[pgrad__json_type(value)];
}

pgrad_status pgrad__json_wrong(const char *origin, const char *key, const char *expected,
                               const pgrad__json *value)
{
    char path[PGRAD__PATH_MAX], found[72];
    int64_t whole;
    double number;
    if (pgrad__json_is_real(value) && pgrad__json_real(value, &number))
        real_text(found, number);
    else if (pgrad__json_integer(value, &whole))
        (void)snprintf(found, sizeof found, "%lld", (long long)whole);
    else if (pgrad__json_type(value) == PGRAD__JSON_STRING)
        (void)snprintf(found, sizeof found, "\"%.64s\"", pgrad__json_string(value, NULL));
    else
        (void)snprintf(found, sizeof found, "%s", value == NULL ? "nothing" : type_name(value));
    (void)pgrad__fail(PGRAD_E_FORMAT, "%s: expected %s, found %s", key, expected, found);
    return origin == NULL ? PGRAD_E_FORMAT
                          : pgrad__fail_in(PGRAD_E_FORMAT, "%s: ", pgrad__path_text(path, origin));
}

pgrad_status pgrad__json_optional_u32(const pgrad__json *object, const char *origin,
                                      const char *key, uint32_t min, uint32_t max,
                                      uint32_t otherwise, uint32_t *out)
{
    char expected[64];
    int64_t number;
    const pgrad__json *value = pgrad__json_get(object, key);
    if (value == NULL) {
        *out = otherwise;
        return PGRAD_OK;
    }
    if (!pgrad__json_integer(value, &number) || number < (int64_t)min || number > (int64_t)max) {
        (void)snprintf(expected, sizeof expected, "a whole number from %u to %u", min, max);
        return pgrad__json_wrong(origin, key, expected, value);
    }
    *out = (uint32_t)number;
    return PGRAD_OK;
}

pgrad_status pgrad__json_require_u32(const pgrad__json *object, const char *origin, const char *key,
                                     uint32_t min, uint32_t max, uint32_t *out)
{
    if (pgrad__json_get(object, key) == NULL)
        return pgrad__json_wrong(origin, key, "a whole number", NULL);
    return pgrad__json_optional_u32(object, origin, key, min, max, 0, out);
}

pgrad_status pgrad__json_optional_real(const pgrad__json *object, const char *origin,
                                       const char *key, double min, double max, double otherwise,
                                       double *out)
{
    char expected[96], from[32], to[32];
    double number;
    const pgrad__json *value = pgrad__json_get(object, key);
    if (value == NULL) {
        *out = otherwise;
        return PGRAD_OK;
    }
    if (!pgrad__json_real(value, &number) || !(number >= min) || !(number <= max)) {
        (void)pgrad__format_real(from, min);
        (void)pgrad__format_real(to, max);
        (void)snprintf(expected, sizeof expected, "a number from %s to %s", from, to);
        return pgrad__json_wrong(origin, key, expected, value);
    }
    *out = number;
    return PGRAD_OK;
}

pgrad_status pgrad__json_optional_bool(const pgrad__json *object, const char *origin,
                                       const char *key, int otherwise, int *out)
{
    const pgrad__json *value = pgrad__json_get(object, key);
    if (value == NULL) {
        *out = otherwise;
        return PGRAD_OK;
    }
    if (pgrad__json_type(value) != PGRAD__JSON_BOOL)
        return pgrad__json_wrong(origin, key, "true or false", value);
    *out = pgrad__json_bool(value, 0);
    return PGRAD_OK;
}

/* ---- changing and writing ---- */

static pgrad_status set_new(pgrad__json *object, const char *key, json_t *value)
{
    if (value == NULL || json_object_set_new(inside(object), key, value) != 0)
        return pgrad__fail(PGRAD_E_NOMEM, "JSON: no memory for \"%s\"", key);
    return PGRAD_OK;
}

pgrad_status pgrad__json_set_string(pgrad__json *object, const char *key, const char *text)
{
    if (!pgrad__utf8_is_valid(text, strlen(text)))
        return pgrad__fail(PGRAD_E_INVALID, "JSON: the text for \"%s\" is not valid UTF-8", key);
    return set_new(object, key, json_string(text));
}

pgrad_status pgrad__json_set_integer(pgrad__json *object, const char *key, int64_t number)
{
    return set_new(object, key, json_integer(number));
}

static void write_value(pgrad__strbuf *to, const json_t *value, int indent, int level);

static void break_line(pgrad__strbuf *to, int indent, int level)
{
    if (indent > 0)
        pgrad__strbuf_format(to, "\n%*s", indent * level, "");
}

static void write_array(pgrad__strbuf *to, const json_t *array, int indent, int level)
{
    size_t n = json_array_size(array);
    pgrad__strbuf_text(to, "[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            pgrad__strbuf_text(to, ",");
        break_line(to, indent, level + 1);
        write_value(to, json_array_get(array, i), indent, level + 1);
    }
    if (n > 0)
        break_line(to, indent, level);
    pgrad__strbuf_text(to, "]");
}

static void write_object(pgrad__strbuf *to, const json_t *object, int indent, int level)
{
    const pgrad__json *of = outside(object), *value;
    void *iterator = NULL;
    const char *key, *before = "";
    size_t length;
    pgrad__strbuf_text(to, "{");
    while (pgrad__json_next(of, &iterator, &key, &length, &value)) {
        pgrad__strbuf_text(to, before);
        break_line(to, indent, level + 1);
        pgrad__json_quote(to, key, length);
        pgrad__strbuf_text(to, indent > 0 ? ": " : ":");
        write_value(to, inside(value), indent, level + 1);
        before = ",";
    }
    if (json_object_size(object) > 0)
        break_line(to, indent, level);
    pgrad__strbuf_text(to, "}");
}

static void write_real(pgrad__strbuf *to, double number)
{
    char text[40];
    real_text(text, number);
    pgrad__strbuf_text(to, text);
}

static void write_value(pgrad__strbuf *to, const json_t *value, int indent, int level)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        write_object(to, value, indent, level);
        break;
    case JSON_ARRAY:
        write_array(to, value, indent, level);
        break;
    case JSON_STRING:
        pgrad__json_quote(to, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        pgrad__strbuf_format(to, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        break;
    case JSON_REAL:
        write_real(to, json_real_value(value));
        break;
    case JSON_TRUE:
        pgrad__strbuf_text(to, "true");
        break;
    case JSON_FALSE:
        pgrad__strbuf_text(to, "false");
        break;
    default:
        pgrad__strbuf_text(to, "null");
        break;
    }
}

/* Not by jansson, which writes 1e-05 as 1.0000000000000001e-05. */
pgrad_status pgrad__json_write(pgrad_context *context, const pgrad__json *value, int indent,
                               char **text, size_t *length)
{
    pgrad__strbuf to = {.context = context};
    write_value(&to, inside(value), indent, 0);
    if (to.status != PGRAD_OK) {
        pgrad__strbuf_free(&to);
        return to.status;
    }
    *text = to.data;
    *length = to.length;
    return PGRAD_OK;
}

void pgrad__json_quote(pgrad__strbuf *buffer, const char *text, size_t length)
{
    pgrad__strbuf_text(buffer, "\"");
    for (size_t i = 0, n; i < length; i += n) {
        const unsigned char c = (unsigned char)text[i];
        n = pgrad__utf8_size(text + i, length - i);
        if (n == 0) {
            pgrad__strbuf_text(buffer, "\xef\xbf\xbd");
            n = 1;
        } else if (c == '"' || c == '\\') {
            pgrad__strbuf_format(buffer, "\\%c", c);
        } else if (c < 0x20) {
            pgrad__strbuf_format(buffer, "\\u%04x", c);
        } else {
            pgrad__strbuf_append(buffer, text + i, n);
        }
    }
    pgrad__strbuf_text(buffer, "\"");
}
