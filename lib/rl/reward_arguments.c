#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/sink.h"
#include "base/strbuf.h"
#include "rl/reward.h"
#include "rl/reward_builtin.h"

static const pgrad__argument COMMON[] = {
    {"name", PGRAD__ARGUMENT_TEXT, offsetof(pgrad__builtin, name), "\"\"", 0,
     PGRAD__REWARD_NAME - 1, NULL, "what reports call it; empty: its own name"},
};
enum { N_COMMON = sizeof COMMON / sizeof COMMON[0] };

const pgrad__argument *pgrad__argument_at(const pgrad__reward_kind *kind, size_t i)
{
    if (i < N_COMMON)
        return &COMMON[i];
    return i - N_COMMON < kind->n_arguments ? &kind->arguments[i - N_COMMON] : NULL;
}

/* ---- what is expected, in words ---- */

static void expected_words(const pgrad__argument *argument, char *out, size_t size)
{
    pgrad__sink list = {out, size, 0};
    switch (argument->type) {
    case PGRAD__ARGUMENT_WHOLE:
        (void)snprintf(out, size, "a whole number from %.0f to %.0f", argument->min, argument->max);
        break;
    case PGRAD__ARGUMENT_REAL:
        (void)snprintf(out, size, "a number from %g to %g", argument->min, argument->max);
        break;
    case PGRAD__ARGUMENT_FLAG:
        (void)snprintf(out, size, "true or false");
        break;
    case PGRAD__ARGUMENT_CHOICE:
        for (size_t i = 0; argument->choices[i] != NULL; i++) {
            pgrad__sink_put(&list, i == 0 ? "one of \"" : ", \"");
            pgrad__sink_put(&list, argument->choices[i]);
            pgrad__sink_put(&list, "\"");
        }
        break;
    case PGRAD__ARGUMENT_TEXT:
        (void)snprintf(out, size, "a string of %.0f to %.0f bytes without NUL", argument->min,
                       argument->max);
        break;
    case PGRAD__ARGUMENT_TEXTS:
        (void)snprintf(out, size, "a list of %.0f to %.0f strings, none empty", argument->min,
                       argument->max);
        break;
    }
}

static pgrad_status wrong(const pgrad__builtin *reward, const pgrad__argument *argument,
                          const pgrad__json *value)
{
    char expected[200];
    expected_words(argument, expected, sizeof expected);
    (void)pgrad__json_wrong(NULL, argument->name, expected, value);
    return pgrad__fail_in(PGRAD_E_INVALID, "reward '%s': ", reward->kind->name);
}

/* ---- values ---- */

/* 1 when a value is a text within the argument's bounds; no NUL, since keys and names are C
 * strings. */
static int read_text(const pgrad__json *value, double min, double max, pgrad__span *out)
{
    const char *text = pgrad__json_string(value, &out->length);
    out->data = text;
    return text != NULL && (double)out->length >= min && (double)out->length <= max &&
           memchr(text, '\0', out->length) == NULL;
}

static int read_choice(const pgrad__argument *argument, const pgrad__json *value, uint32_t *out)
{
    const char *text = pgrad__json_string(value, NULL);
    for (uint32_t i = 0; text != NULL && argument->choices[i] != NULL; i++)
        if (strcmp(argument->choices[i], text) == 0) {
            *out = i;
            return 1;
        }
    return 0;
}

static pgrad_status read_texts(const pgrad__builtin *reward, const pgrad__argument *argument,
                               const pgrad__json *value, pgrad__spans *out)
{
    const size_t n = pgrad__json_count(value);
    if (pgrad__json_type(value) != PGRAD__JSON_ARRAY || (double)n < argument->min ||
        (double)n > argument->max)
        return wrong(reward, argument, value);
    PGRAD__TRY(pgrad__alloc(reward->context, n, sizeof *out->items, &out->items));
    for (; out->count < n; out->count++) {
        const pgrad__json *item = pgrad__json_at(value, out->count);
        if (!read_text(item, 1, 65536, &out->items[out->count]))
            return wrong(reward, argument, item);
    }
    return PGRAD_OK;
}

static pgrad_status read_value(pgrad__builtin *reward, const pgrad__argument *argument,
                               const pgrad__json *value)
{
    void *at = (char *)reward + argument->offset;
    int64_t whole;
    int good = 0;
    switch (argument->type) {
    case PGRAD__ARGUMENT_WHOLE:
        good = pgrad__json_integer(value, &whole) && (double)whole >= argument->min &&
               (double)whole <= argument->max;
        if (good)
            *(uint32_t *)at = (uint32_t)whole;
        break;
    case PGRAD__ARGUMENT_REAL:
        good = pgrad__json_real(value, at) && *(double *)at >= argument->min &&
               *(double *)at <= argument->max;
        break;
    case PGRAD__ARGUMENT_FLAG:
        good = pgrad__json_type(value) == PGRAD__JSON_BOOL;
        *(int *)at = pgrad__json_bool(value, 0);
        break;
    case PGRAD__ARGUMENT_CHOICE:
        good = read_choice(argument, value, at);
        break;
    case PGRAD__ARGUMENT_TEXT:
        good = read_text(value, argument->min, argument->max, at);
        break;
    case PGRAD__ARGUMENT_TEXTS:
        return read_texts(reward, argument, value, at);
    }
    return good ? PGRAD_OK : wrong(reward, argument, value);
}

/* ---- the whole ---- */

static pgrad_status unknown_argument(const pgrad__reward_kind *kind, const char *key)
{
    char names[256] = "";
    pgrad__sink list = {names, sizeof names, 0};
    const pgrad__argument *argument;
    for (size_t i = 0; (argument = pgrad__argument_at(kind, i)) != NULL; i++) {
        pgrad__sink_put(&list, i > 0 ? ", " : "");
        pgrad__sink_put(&list, argument->name);
    }
    return pgrad__fail(PGRAD_E_INVALID,
                       "reward '%s': arguments: expected some of %s, found \"%.64s\"", kind->name,
                       names, key);
}

static pgrad_status check_names(const pgrad__builtin *reward)
{
    void *iterator = NULL;
    const char *key;
    size_t length;
    const pgrad__json *value;
    if (pgrad__json_type(reward->given) != PGRAD__JSON_OBJECT) {
        (void)pgrad__json_wrong(NULL, "arguments", "a JSON object", reward->given);
        return pgrad__fail_in(PGRAD_E_INVALID, "reward '%s': ", reward->kind->name);
    }
    while (pgrad__json_next(reward->given, &iterator, &key, &length, &value)) {
        const pgrad__argument *argument;
        size_t i = 0;
        while ((argument = pgrad__argument_at(reward->kind, i)) != NULL &&
               (strlen(argument->name) != length || memcmp(argument->name, key, length) != 0))
            i++;
        if (argument == NULL)
            return unknown_argument(reward->kind, key);
    }
    return PGRAD_OK;
}

/* The defaults are JSON like what the host gives, so that one reader serves both. */
static pgrad_status parse_defaults(pgrad__builtin *reward)
{
    pgrad__strbuf text = {.context = reward->context};
    const pgrad__argument *argument;
    pgrad__strbuf_text(&text, "{");
    for (size_t i = 0; (argument = pgrad__argument_at(reward->kind, i)) != NULL; i++)
        pgrad__strbuf_format(&text, "%s\"%s\":%s", i > 0 ? "," : "", argument->name,
                             argument->initial == NULL ? "null" : argument->initial);
    pgrad__strbuf_text(&text, "}");
    pgrad_status status = text.status;
    if (status == PGRAD_OK)
        status = pgrad__json_parse(reward->context, text.data, text.length, "defaults",
                                   &reward->defaults);
    pgrad__strbuf_free(&text);
    return status;
}

pgrad_status pgrad__arguments_read(pgrad__builtin *reward, const char *json)
{
    const pgrad__argument *argument;
    if (json == NULL)
        json = "{}";
    pgrad_status status =
        pgrad__json_parse(reward->context, json, strlen(json), "arguments", &reward->given);
    if (status != PGRAD_OK)
        return pgrad__fail_in(status == PGRAD_E_FORMAT ? PGRAD_E_INVALID : status,
                              "reward '%s': ", reward->kind->name);
    PGRAD__TRY(check_names(reward));
    PGRAD__TRY(parse_defaults(reward));
    for (size_t i = 0; (argument = pgrad__argument_at(reward->kind, i)) != NULL; i++) {
        const pgrad__json *value = pgrad__json_get(reward->given, argument->name);
        if (value == NULL)
            value = pgrad__json_get(reward->defaults, argument->name);
        PGRAD__TRY(read_value(reward, argument, value));
    }
    return PGRAD_OK;
}

void pgrad__arguments_free(pgrad__builtin *reward)
{
    const pgrad__argument *argument;
    for (size_t i = 0; (argument = pgrad__argument_at(reward->kind, i)) != NULL; i++)
        if (argument->type == PGRAD__ARGUMENT_TEXTS)
            pgrad__free(reward->context,
                        ((pgrad__spans *)(void *)((char *)reward + argument->offset))->items);
    pgrad__json_free(reward->given);
    pgrad__json_free(reward->defaults);
}
