/* Rewards of a text's form: patterns, words, JSON, script, thinking before answering. */
#include <string.h>

#include "base/fail.h"
#include "base/strbuf.h"
#include "base/utf8.h"
#include "rl/reward_builtin.h"
#include "text/regex.h"

/* ---- regex ---- */

enum { ANYWHERE, START, WHOLE };
enum { LIMIT_ZERO, LIMIT_ERROR };
static const char *const WHERE[] = {"anywhere", "start", "whole", NULL};
static const char *const ON_LIMIT[] = {"zero", "error", NULL};

typedef struct regex_reward {
    pgrad__builtin base;
    pgrad__span pattern;
    uint32_t where, on_limit;
    pgrad__regex_bounds bounds;
    pgrad__regex *regex;
} regex_reward;

static const pgrad__argument REGEX_ARGUMENTS[] = {
    {"pattern", PGRAD__ARGUMENT_TEXT, offsetof(regex_reward, pattern), NULL, 1, 65536, NULL,
     "a PCRE2 pattern, with Unicode classes"},
    {"where", PGRAD__ARGUMENT_CHOICE, offsetof(regex_reward, where), "\"anywhere\"", 0, 0, WHERE,
     "what must match: a part, the beginning, or the whole text"},
    {"ignore_case", PGRAD__ARGUMENT_FLAG, offsetof(regex_reward, bounds.ignore_case), "false", 0, 1,
     NULL, "capitals match small letters"},
    {"dot_all", PGRAD__ARGUMENT_FLAG, offsetof(regex_reward, bounds.dot_all), "false", 0, 1, NULL,
     "a dot matches a newline too"},
    {"multi_line", PGRAD__ARGUMENT_FLAG, offsetof(regex_reward, bounds.multi_line), "false", 0, 1,
     NULL, "^ and $ match at every line"},
    {"match_limit", PGRAD__ARGUMENT_WHOLE, offsetof(regex_reward, bounds.match_limit), "1000000", 1,
     1e9, NULL, "steps a match may take"},
    {"depth_limit", PGRAD__ARGUMENT_WHOLE, offsetof(regex_reward, bounds.depth_limit), "100000", 1,
     1e9, NULL, "how deep it may backtrack"},
    {"heap_limit", PGRAD__ARGUMENT_WHOLE, offsetof(regex_reward, bounds.heap_limit_kib), "20000", 0,
     4e6, NULL, "KiB of memory it may take"},
    {"on_limit", PGRAD__ARGUMENT_CHOICE, offsetof(regex_reward, on_limit), "\"zero\"", 0, 0,
     ON_LIMIT, "beyond a limit: score 0, or fail with E_LIMIT"},
};

static pgrad_status prepare_regex(void *reward)
{
    regex_reward *self = reward;
    self->bounds.at_start = self->where != ANYWHERE;
    self->bounds.at_end = self->where == WHOLE;
    pgrad_status status =
        pgrad__regex_compile_bounded(self->base.context, self->pattern.data, self->pattern.length,
                                     &self->bounds, "pattern", &self->regex);
    return status == PGRAD_E_UNSUPPORTED ? PGRAD_E_INVALID : status;
}

static void release_regex(void *reward)
{
    pgrad__regex_free(((regex_reward *)reward)->regex);
}

/* Bytes that are no UTF-8 part a text into pieces, and PCRE2 looks for anchored matches in each. */
static int is_where(const regex_reward *self, pgrad__span text, size_t begin)
{
    if (self->where == ANYWHERE || pgrad__utf8_is_valid(text.data, text.length))
        return 1;
    return self->where == START && begin == 0;
}

static pgrad_status score_regex(const void *reward, const pgrad__completion *completion,
                                double *score)
{
    const regex_reward *self = reward;
    const pgrad__span text = completion->text;
    pgrad__regex_match *match = NULL;
    size_t begin = 0, end;
    int found = 0;
    PGRAD__TRY(pgrad__regex_match_create(self->base.context, &match));
    pgrad_status status =
        pgrad__regex_find(self->regex, match, text.data, text.length, 0, &found, &begin, &end);
    pgrad__regex_match_free(match);
    if (found < 0 && self->on_limit == LIMIT_ZERO)
        status = PGRAD_OK;
    *score = found > 0 && is_where(self, text, begin);
    return status;
}

const pgrad__reward_kind pgrad__reward_regex = {
    .name = "regex",
    .report_name = "regex",
    .help = "1 when a regular expression matches, else 0",
    .needs_text = 1,
    .size = sizeof(regex_reward),
    PGRAD__ARGUMENTS(REGEX_ARGUMENTS),
    .prepare = prepare_regex,
    .release = release_regex,
    .score = score_regex,
};

/* ---- words ---- */

typedef struct words_reward {
    pgrad__builtin base;
    pgrad__spans required, forbidden;
    int ignore_case;
} words_reward;

static const pgrad__argument WORDS_ARGUMENTS[] = {
    {"required", PGRAD__ARGUMENT_TEXTS, offsetof(words_reward, required), "[]", 0, 1000, NULL,
     "words or phrases that should stand in the text"},
    {"forbidden", PGRAD__ARGUMENT_TEXTS, offsetof(words_reward, forbidden), "[]", 0, 1000, NULL,
     "words or phrases that should not"},
    {"ignore_case", PGRAD__ARGUMENT_FLAG, offsetof(words_reward, ignore_case), "true", 0, 1, NULL,
     "capitals match small letters"},
};

static pgrad_status prepare_words(void *reward)
{
    const words_reward *self = reward;
    if (self->required.count + self->forbidden.count == 0)
        return pgrad__fail(PGRAD_E_INVALID,
                           "required, forbidden: expected a word in one of them, found none");
    return PGRAD_OK;
}

static double found_share(const words_reward *self, const pgrad__spans *words, pgrad__span text)
{
    size_t n = 0, end;
    for (size_t i = 0; i < words->count; i++)
        n += pgrad__span_find_word(text, words->items[i], 0, self->ignore_case, &end) != SIZE_MAX;
    return words->count == 0 ? 0.0 : (double)n / (double)words->count;
}

static pgrad_status score_words(const void *reward, const pgrad__completion *completion,
                                double *score)
{
    const words_reward *self = reward;
    *score = found_share(self, &self->required, completion->text) -
             found_share(self, &self->forbidden, completion->text);
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_words = {
    .name = "words",
    .report_name = "words",
    .help = "the share of required words that are there, minus that of forbidden ones",
    .needs_text = 1,
    .size = sizeof(words_reward),
    PGRAD__ARGUMENTS(WORDS_ARGUMENTS),
    .prepare = prepare_words,
    .score = score_words,
};

/* ---- JSON ---- */

enum { JSON_ANY, JSON_OBJECT, JSON_ARRAY };
static const char *const JSON_TYPES[] = {"any", "object", "array", NULL};

typedef struct json_reward {
    pgrad__builtin base;
    pgrad__spans keys;
    uint32_t type;
    int fenced, partial;
} json_reward;

static const pgrad__argument JSON_ARGUMENTS[] = {
    {"keys", PGRAD__ARGUMENT_TEXTS, offsetof(json_reward, keys), "[]", 0, 1000, NULL,
     "members the object must have; null counts as absent"},
    {"type", PGRAD__ARGUMENT_CHOICE, offsetof(json_reward, type), "\"any\"", 0, 0, JSON_TYPES,
     "what the document must be"},
    {"fenced", PGRAD__ARGUMENT_FLAG, offsetof(json_reward, fenced), "false", 0, 1, NULL,
     "a Markdown fence around it is allowed"},
    {"partial", PGRAD__ARGUMENT_FLAG, offsetof(json_reward, partial), "false", 0, 1, NULL,
     "with some of k keys the score is (1 + those) / (1 + k), not 0"},
};

/* What is between ``` with a word behind it and ```, where there are such. */
static pgrad__span without_fence(pgrad__span text)
{
    static const pgrad__span FENCE = {"```", 3}, NEWLINE = {"\n", 1};
    text = pgrad__span_strip(text);
    const size_t line = pgrad__span_find(text, NEWLINE, 0);
    if (text.length < 7 || line == SIZE_MAX || pgrad__span_find(text, FENCE, 0) != 0 ||
        pgrad__span_find_last(text, FENCE) != text.length - 3 || line > text.length - 3)
        return text;
    return (pgrad__span){text.data + line, text.length - 3 - line};
}

static double score_document(const json_reward *self, const pgrad__json *root)
{
    size_t n = 0;
    const int type = pgrad__json_type(root);
    if ((self->type == JSON_OBJECT && type != PGRAD__JSON_OBJECT) ||
        (self->type == JSON_ARRAY && type != PGRAD__JSON_ARRAY))
        return 0.0;
    for (size_t i = 0; i < self->keys.count; i++)
        n += pgrad__json_get(root, self->keys.items[i].data) != NULL;
    if (!self->partial)
        return n == self->keys.count;
    return (double)(1 + n) / (double)(1 + self->keys.count);
}

static pgrad_status score_json(const void *reward, const pgrad__completion *completion,
                               double *score)
{
    const json_reward *self = reward;
    const pgrad__span text = self->fenced ? without_fence(completion->text) : completion->text;
    pgrad__json *root = NULL;
    pgrad_status status =
        pgrad__json_parse(self->base.context, text.data, text.length, "completion", &root);
    if (status == PGRAD_OK)
        *score = score_document(self, root);
    pgrad__json_free(root);
    return status == PGRAD_E_FORMAT ? PGRAD_OK : status;
}

const pgrad__reward_kind pgrad__reward_json = {
    .name = "json",
    .report_name = "json",
    .help = "1 when the text is valid JSON with the required members, else 0",
    .needs_text = 1,
    .size = sizeof(json_reward),
    PGRAD__ARGUMENTS(JSON_ARGUMENTS),
    .score = score_json,
};

/* ---- script ---- */

typedef struct script_reward {
    pgrad__builtin base;
    pgrad__spans scripts;
    pgrad__regex *letters, *theirs; /* runs of letters, of letters of the scripts */
} script_reward;

static const pgrad__argument SCRIPT_ARGUMENTS[] = {
    {"scripts", PGRAD__ARGUMENT_TEXTS, offsetof(script_reward, scripts), NULL, 1, 16, NULL,
     "Unicode scripts by name or short name: Latin, Cyrillic, Han, Hira"},
};

static const pgrad__regex_bounds PLAIN = {0, 0, 0, 0, 0, 100000000, 100000000, 1 << 20};

static pgrad_status compile_text(const pgrad__strbuf *pattern, pgrad__regex **out)
{
    PGRAD__TRY(pattern->status);
    return pgrad__regex_compile_bounded(pattern->context, pattern->data, pattern->length, &PLAIN,
                                        "scripts", out);
}

/* The name goes into a pattern: nothing but a name may be in it. */
static pgrad_status check_script(const script_reward *self, pgrad__span name)
{
    pgrad__strbuf pattern = {.context = self->base.context};
    pgrad__regex *regex = NULL;
    pgrad_status status = PGRAD_E_UNSUPPORTED;
    if (strspn(name.data, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_ ") ==
        name.length) {
        pgrad__strbuf_format(&pattern, "\\p{sc:%s}", name.data);
        status = compile_text(&pattern, &regex);
    }
    pgrad__regex_free(regex);
    pgrad__strbuf_free(&pattern);
    if (status == PGRAD_E_UNSUPPORTED)
        return pgrad__fail(PGRAD_E_INVALID,
                           "scripts: expected names of Unicode scripts, found \"%.40s\"",
                           name.data);
    return status;
}

static pgrad_status prepare_script(void *reward)
{
    script_reward *self = reward;
    pgrad__strbuf pattern = {.context = self->base.context};
    pgrad_status status = PGRAD_OK;
    pgrad__strbuf_text(&pattern, "(?:(?=\\p{L})[");
    for (size_t i = 0; i < self->scripts.count; i++) {
        PGRAD__GO(check_script(self, self->scripts.items[i]));
        pgrad__strbuf_format(&pattern, "\\p{sc:%s}", self->scripts.items[i].data);
    }
    pgrad__strbuf_text(&pattern, "])++");
    PGRAD__GO(compile_text(&pattern, &self->theirs));
    pgrad__strbuf_clear(&pattern);
    pgrad__strbuf_text(&pattern, "\\p{L}++");
    PGRAD__GO(compile_text(&pattern, &self->letters));
fail:
    pgrad__strbuf_free(&pattern);
    return status;
}

static void release_script(void *reward)
{
    const script_reward *self = reward;
    pgrad__regex_free(self->letters);
    pgrad__regex_free(self->theirs);
}

/* Characters in all matches. */
static pgrad_status count_matched(pgrad_context *context, const pgrad__regex *regex,
                                  pgrad__span text, size_t *n)
{
    pgrad__regex_match *match = NULL;
    pgrad_status status = PGRAD_OK;
    size_t begin, end = 0;
    int found = 1;
    *n = 0;
    PGRAD__TRY(pgrad__regex_match_create(context, &match));
    while (status == PGRAD_OK && found) {
        uint32_t code;
        status = pgrad__regex_find(regex, match, text.data, text.length, end, &found, &begin, &end);
        for (size_t at = begin; status == PGRAD_OK && found && at < end; (*n)++)
            at += pgrad__span_character(text, at, &code);
    }
    pgrad__regex_match_free(match);
    return status;
}

static pgrad_status score_script(const void *reward, const pgrad__completion *completion,
                                 double *score)
{
    const script_reward *self = reward;
    pgrad_context *context = self->base.context;
    size_t n_letters, n_theirs;
    PGRAD__TRY(count_matched(context, self->letters, completion->text, &n_letters));
    PGRAD__TRY(count_matched(context, self->theirs, completion->text, &n_theirs));
    *score = n_letters == 0 ? 0.0 : (double)n_theirs / (double)n_letters;
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_script = {
    .name = "script",
    .report_name = "script",
    .help = "the share of the letters that belong to some scripts; 0 without letters",
    .needs_text = 1,
    .size = sizeof(script_reward),
    PGRAD__ARGUMENTS(SCRIPT_ARGUMENTS),
    .prepare = prepare_script,
    .release = release_script,
    .score = score_script,
};

/* ---- thinking, then answering ---- */

typedef struct think_reward {
    pgrad__builtin base;
    pgrad__span open, close;
    int opened, answer;
} think_reward;

static const pgrad__argument THINK_ARGUMENTS[] = {
    {"open", PGRAD__ARGUMENT_TEXT, offsetof(think_reward, open), "\"<think>\"", 1, 256, NULL,
     "what stands before the thought"},
    {"close", PGRAD__ARGUMENT_TEXT, offsetof(think_reward, close), "\"</think>\"", 1, 256, NULL,
     "what stands behind it"},
    {"opened", PGRAD__ARGUMENT_FLAG, offsetof(think_reward, opened), "false", 0, 1, NULL,
     "the prompt has opened it already"},
    {"answer", PGRAD__ARGUMENT_FLAG, offsetof(think_reward, answer), "true", 0, 1, NULL,
     "something must stand behind the thought"},
};

static pgrad_status score_think(const void *reward, const pgrad__completion *completion,
                                double *score)
{
    const think_reward *self = reward;
    pgrad__span text = pgrad__span_strip(completion->text);
    *score = 0.0;
    if (!self->opened) {
        const size_t n = pgrad__span_begins(text, self->open, 0);
        if (n == SIZE_MAX)
            return PGRAD_OK;
        text = pgrad__span_from(text, n);
    }
    const size_t close = pgrad__span_find(text, self->close, 0);
    if (close == SIZE_MAX || close != pgrad__span_find_last(text, self->close) ||
        pgrad__span_find(text, self->open, 0) != SIZE_MAX)
        return PGRAD_OK;
    const pgrad__span thought = {text.data, close};
    const pgrad__span answer = pgrad__span_from(text, close + self->close.length);
    *score = pgrad__span_strip(thought).length > 0 &&
             (!self->answer || pgrad__span_strip(answer).length > 0);
    return PGRAD_OK;
}

static pgrad_status score_trl_think_format(const void *reward, const pgrad__completion *completion,
                                           double *score)
{
    static const pgrad__span OPEN = {"<think>", 7}, CLOSE = {"</think>", 8};
    (void)reward;
    *score = pgrad__span_begins(completion->text, OPEN, 0) == OPEN.length &&
             pgrad__span_find(completion->text, OPEN, OPEN.length) == SIZE_MAX &&
             pgrad__span_find(completion->text, CLOSE, OPEN.length) != SIZE_MAX;
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_think_then_answer = {
    .name = "think_then_answer",
    .report_name = "think_then_answer",
    .help = "1 when the text is one thought between its marks and then an answer, else 0",
    .needs_text = 1,
    .size = sizeof(think_reward),
    PGRAD__ARGUMENTS(THINK_ARGUMENTS),
    .score = score_think,
};
const pgrad__reward_kind pgrad__reward_trl_think_format = {
    .name = "think_format_reward",
    .report_name = "think_format_reward",
    .help = "TRL's: 1 when the text begins with <think>, says it once, and has </think>",
    .needs_text = 1,
    .size = sizeof(pgrad__builtin),
    .score = score_trl_think_format,
};
