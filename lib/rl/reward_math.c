/* TRL's rewards of mathematical answers: where a text says its answer, and whether it is right. */
#include <math.h>
#include <string.h>

#include <policygrad/rollout.h>

#include "base/ascii.h"
#include "base/fail.h"
#include "base/real.h"
#include "rl/reward_builtin.h"
#include "text/math.h"
#include "text/unicode.h"

static const pgrad__span ANSWER = {"answer", 6};

/* ---- mathematics in a text ---- */

static int has(pgrad__span text, size_t at, const char *what)
{
    const size_t n = strlen(what);
    return at <= text.length && text.length - at >= n && memcmp(text.data + at, what, n) == 0;
}

static int is_space(pgrad__span text, size_t at)
{
    return at < text.length && memchr(" \t\r\n", text.data[at], 4) != NULL;
}

/* The closing brace of what begins behind an opening one at `at`, SIZE_MAX when it stays open. */
static size_t closing_brace(pgrad__span text, size_t at)
{
    int depth = 1;
    for (; at < text.length; at++) {
        if (text.data[at] == '\\')
            at++;
        else if (text.data[at] == '{')
            depth++;
        else if (text.data[at] == '}' && --depth == 0)
            return at;
    }
    return SIZE_MAX;
}

/* \frac{1}{2} of plain numbers counts without dollars around it. */
static size_t bare_fraction(pgrad__span text, size_t at)
{
    const size_t sign = has(text, at, "-") ? 1 : 0;
    size_t end = at + sign + 5;
    if (!has(text, at + sign, "\\frac"))
        return 0;
    for (int i = 0; i < 2; i++) {
        if (!has(text, end, "{"))
            return 0;
        end += has(text, end + 1, "-") ? 2 : 1;
        if (!pgrad__span_is_digit(text, end))
            return 0;
        while (pgrad__span_is_digit(text, end) ||
               (has(text, end, ".") && pgrad__span_is_digit(text, end + 1)))
            end++;
        if (!has(text, end, "}"))
            return 0;
        end++;
    }
    return end - at;
}

/* A piece of mathematics at a place: what is inside, and the end of the whole. */
static int math_at(pgrad__span text, size_t at, pgrad__span *inside, size_t *end)
{
    static const struct {
        const char *open, *close;
        int one_line;
    } MARKS[] = {{"$$", "$$", 0}, {"\\[", "\\]", 0}, {"$", "$", 1}, {"\\(", "\\)", 1}};
    const size_t fraction = bare_fraction(text, at);
    if (fraction > 0) {
        *inside = (pgrad__span){text.data + at, fraction};
        *end = at + fraction;
        return 1;
    }
    for (size_t i = 0; i < sizeof MARKS / sizeof MARKS[0]; i++) {
        const size_t n = strlen(MARKS[i].open);
        if (!has(text, at, MARKS[i].open) ||
            (at > 0 && (text.data[at - 1] == '\\' ||
                        (MARKS[i].open[0] == '$' && n == 1 && pgrad__span_is_digit(text, at - 1)))))
            continue;
        for (size_t to = at + n; to < text.length; to++) {
            if (MARKS[i].one_line && text.data[to] == '\n')
                break;
            if (!has(text, to, MARKS[i].close) || text.data[to - 1] == '\\')
                continue;
            if (to == at + n)
                break;
            *inside = (pgrad__span){text.data + at + n, to - at - n};
            *end = to + n;
            return 1;
        }
    }
    return 0;
}

/* ---- where the answer is ---- */

/* What is told of the answer: up to PGRAD__MATH_ITEMS pieces, more than one being a list. */
typedef struct pieces {
    pgrad__span items[PGRAD__MATH_ITEMS];
    size_t n;
} pieces;

static void add_piece(pieces *to, pgrad__span piece)
{
    if (to->n < PGRAD__MATH_ITEMS)
        to->items[to->n++] = piece;
}

static void find_boxes(pgrad__span text, size_t from, size_t to, pieces *out)
{
    static const pgrad__span BOX = {"\\boxed{", 7};
    const pgrad__span part = {text.data, to};
    size_t at = from;
    while ((at = pgrad__span_find(part, BOX, at)) != SIZE_MAX) {
        size_t end = closing_brace(part, at + BOX.length);
        if (end == SIZE_MAX)
            return;
        at += BOX.length;
        if (pgrad__span_begins(pgrad__span_from(part, at), BOX, 0) == SIZE_MAX) {
            if (end > at)
                add_piece(out, (pgrad__span){text.data + at, end - at});
            at = end;
        }
    }
}

/* All boxes; but where mathematics between marks ends behind the last of them, those in there. */
static void find_boxed(pgrad__span text, pieces *out)
{
    static const pgrad__span BRACE = {"}", 1};
    const size_t brace = pgrad__span_find_last(text, BRACE);
    pieces last = {.n = 0};
    for (size_t at = 0, end; at<text.length; at = end> at ? end : at + 1) {
        pgrad__span inside;
        pieces found = {.n = 0};
        end = at;
        if (!math_at(text, at, &inside, &end) || inside.data == text.data + at)
            continue;
        find_boxes(text, at, end, &found);
        if (found.n > 0 && brace != SIZE_MAX && end > brace)
            last = found;
    }
    if (last.n > 0)
        *out = last;
    else
        find_boxes(text, 0, text.length, out);
}

/* , and or between pieces of one answer: bytes, 0 for none. */
static size_t connection(pgrad__span text, size_t at)
{
    static const char *const WORDS[] = {",and", ",or", "and", "or", ","};
    size_t to = at, n = 0;
    while (is_space(text, to))
        to++;
    for (size_t i = 0; i < sizeof WORDS / sizeof WORDS[0] && n == 0; i++)
        n = has(text, to, WORDS[i]) ? strlen(WORDS[i]) : 0;
    if (n == 0)
        return 0;
    for (to += n; is_space(text, to);)
        to++;
    return to - at;
}

static size_t add_connected(pgrad__span text, size_t end, pgrad__span inside, pieces *out)
{
    size_t link, next;
    add_piece(out, inside);
    while ((link = connection(text, end)) > 0 && math_at(text, end + link, &inside, &next)) {
        add_piece(out, inside);
        end = next;
    }
    return end;
}

/* The first mathematics at most `most` bytes behind a place. */
static int math_behind(pgrad__span text, size_t from, size_t most, pieces *out, size_t *end)
{
    for (size_t at = from; at < text.length && at - from <= most; at++) {
        pgrad__span inside;
        if (!math_at(text, at, &inside, end))
            continue;
        out->n = 0;
        *end = add_connected(text, *end, inside, out);
        return 1;
    }
    return 0;
}

static size_t find_answer_word(pgrad__span text, size_t from)
{
    for (; from < text.length; from++)
        if (pgrad__span_begins(pgrad__span_from(text, from), ANSWER, 1) != SIZE_MAX)
            return from;
    return SIZE_MAX;
}

/* Behind "answer:", else behind "answer", the last of them with mathematics near it. */
static void find_anchored(pgrad__span text, pieces *out)
{
    for (int colon = 1; colon >= 0 && out->n == 0; colon--)
        for (size_t at = 0, end; (at = find_answer_word(text, at)) != SIZE_MAX; at = end) {
            pieces found = {.n = 0};
            end = at + ANSWER.length;
            if (colon && !has(text, end, ":"))
                continue;
            if (math_behind(text, end + (size_t)colon, 50, &found, &end))
                *out = found;
        }
}

static void find_last_math(pgrad__span text, pieces *out)
{
    for (size_t at = 0, end; at < text.length; at++) {
        pieces found = {.n = 0};
        if (!math_behind(text, at, 0, &found, &end))
            continue;
        *out = found;
        at = end - 1;
    }
}

/* ---- numbers without LaTeX, in right answers only ---- */

static int is_expression_byte(char c)
{
    return pgrad__is_digit(c) || memchr(".+-*/^() ", c, 9) != NULL;
}

/* A number or a sum of numbers at a place where a word may begin. */
static size_t plain_at(pgrad__span text, size_t at)
{
    size_t end = at, last;
    if (has(text, end, "$"))
        end++;
    const size_t start = end;
    end += has(text, end, "-") ? 1 : 0;
    end += has(text, end, "(") ? 1 : 0;
    if (!pgrad__span_is_digit(text, end) &&
        !(has(text, end, ".") && pgrad__span_is_digit(text, end + 1)))
        return 0;
    for (last = end; end < text.length; end++) {
        const int thousand =
            !has(text, start, "(") && has(text, end, ",") && pgrad__span_is_digit(text, end + 1);
        if (!thousand && !is_expression_byte(text.data[end]))
            break;
        if (pgrad__span_is_digit(text, end) || has(text, end, ")"))
            last = end + 1;
        if (has(text, end, " ") && end + 1 < text.length && pgrad__span_is_digit(text, end + 1) &&
            end > start && pgrad__span_is_digit(text, end - 1))
            break; /* two numbers */
    }
    if (has(text, start, "(") && memchr(text.data + start, ')', last - start) == NULL)
        return 0;
    if (has(text, last, "%"))
        last++;
    return last - at;
}

static int is_start(pgrad__span text, size_t at)
{
    return at == 0 || is_space(text, at - 1) || text.data[at - 1] == '=' ||
           text.data[at - 1] == '*';
}

/* Behind the word "answer" the first number within 50 bytes, else the last one of all. */
static void find_plain(pgrad__span text, pieces *out)
{
    const size_t anchor = find_answer_word(text, 0);
    for (size_t at = 0; at < text.length; at++) {
        const size_t n = is_start(text, at) ? plain_at(text, at) : 0;
        if (n == 0)
            continue;
        const size_t skip = has(text, at, "$") ? 1 : 0;
        out->n = 0;
        add_piece(out, (pgrad__span){text.data + at + skip, n - skip});
        at += n - 1;
        if (anchor != SIZE_MAX && at > anchor && at - anchor <= 56)
            return;
    }
}

/* ---- reading and comparing ---- */

/* Several pieces are one list. */
static pgrad_status read_pieces(pgrad_context *context, const pieces *found, pgrad__math *out)
{
    pgrad__strbuf text = {.context = context};
    for (size_t i = 0; i < found->n; i++) {
        pgrad__strbuf_text(&text, i > 0 ? "," : "");
        pgrad__strbuf_append(&text, found->items[i].data, found->items[i].length);
    }
    pgrad_status status = text.status;
    if (status == PGRAD_OK)
        status = pgrad__math_read(context, text.data, text.length, out);
    pgrad__strbuf_free(&text);
    return status;
}

static void find_right(pgrad__span text, pieces *out)
{
    find_boxed(text, out);
    if (out->n == 0)
        find_anchored(text, out);
    if (out->n == 0)
        find_last_math(text, out);
    if (out->n == 0)
        find_plain(text, out);
}

/* 1 or 0; NaN when the right answer says nothing. */
static pgrad_status compare(pgrad_context *context, pgrad__span given, pgrad__span wanted,
                            double *score)
{
    pieces right = {.n = 0}, answer = {.n = 0};
    pgrad__math a, b;
    find_right(wanted, &right);
    *score = NAN;
    if (right.n == 0)
        return PGRAD_OK;
    find_boxed(given, &answer);
    if (answer.n == 0)
        find_anchored(given, &answer);
    *score = 0.0;
    if (answer.n == 0)
        return PGRAD_OK;
    PGRAD__TRY(read_pieces(context, &right, &a));
    pgrad_status status = read_pieces(context, &answer, &b);
    if (status == PGRAD_OK) {
        *score = pgrad__math_equal(&a, &b);
        pgrad__math_free(&b);
    }
    pgrad__math_free(&a);
    return status;
}

/* ---- accuracy_reward ---- */

typedef struct accuracy_reward {
    pgrad__builtin base;
    pgrad__span column;
    pgrad__spans delimiters;
    uint32_t max_len;
    double min_wrong, max_wrong, min_correct, max_correct;
} accuracy_reward;

#define SOLUTION_ARGUMENT                                                                          \
    {                                                                                              \
        "column", PGRAD__ARGUMENT_TEXT, offsetof(accuracy_reward, column), "\"solution\"", 1, 256, \
            NULL, "the key of the prompt's data that holds the right answer"                       \
    }

static const pgrad__argument ACCURACY_ARGUMENTS[] = {SOLUTION_ARGUMENT};

static pgrad_status score_text(const accuracy_reward *self, const pgrad__completion *completion,
                               pgrad__span text, double *score)
{
    pgrad__span wanted = {NULL, 0};
    wanted.data = pgrad_rollout_data(completion->rollout, completion->group, self->column.data,
                                     &wanted.length);
    if (wanted.data == NULL)
        return pgrad__fail(PGRAD_E_STATE, "its prompt has no data '%s', the right answer",
                           self->column.data);
    return compare(self->base.context, text, wanted, score);
}

static pgrad_status score_accuracy(const void *reward, const pgrad__completion *completion,
                                   double *score)
{
    return score_text(reward, completion, completion->text, score);
}

const pgrad__reward_kind pgrad__reward_trl_accuracy = {
    .name = "accuracy_reward",
    .report_name = "accuracy_reward",
    .help = "TRL's: 1 when the mathematical answer equals the right one, else 0",
    .needs_text = 1,
    .size = sizeof(accuracy_reward),
    PGRAD__ARGUMENTS(ACCURACY_ARGUMENTS),
    .score = score_accuracy,
};

/* ---- reasoning_accuracy_reward ---- */

static const pgrad__argument REASONING_ARGUMENTS[] = {
    SOLUTION_ARGUMENT,
    {"reasoning_delimiters", PGRAD__ARGUMENT_TEXTS, offsetof(accuracy_reward, delimiters),
     "[\"</think>\"]", 1, 64, NULL,
     "the answer stands behind the last of the first of these that is there"},
};

static pgrad_status score_reasoning(const void *reward, const pgrad__completion *completion,
                                    double *score)
{
    const accuracy_reward *self = reward;
    for (size_t i = 0; i < self->delimiters.count; i++) {
        const pgrad__span delimiter = self->delimiters.items[i];
        const size_t at = pgrad__span_find_last(completion->text, delimiter);
        if (at != SIZE_MAX)
            return score_text(self, completion,
                              pgrad__span_from(completion->text, at + delimiter.length), score);
    }
    *score = 0.0;
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_trl_reasoning_accuracy = {
    .name = "reasoning_accuracy_reward",
    .report_name = "reasoning_accuracy_reward",
    .help = "TRL's: accuracy of what stands behind the reasoning, 0 when that has no end",
    .needs_text = 1,
    .size = sizeof(accuracy_reward),
    PGRAD__ARGUMENTS(REASONING_ARGUMENTS),
    .score = score_reasoning,
};

/* ---- get_cosine_scaled_reward ---- */

#define BOUND(member, text, initial, help)                                                         \
    {                                                                                              \
        text, PGRAD__ARGUMENT_REAL, offsetof(accuracy_reward, member), initial, -1e6, 1e6, NULL,   \
            help                                                                                   \
    }

static const pgrad__argument COSINE_ARGUMENTS[] = {
    SOLUTION_ARGUMENT,
    {"max_len", PGRAD__ARGUMENT_WHOLE, offsetof(accuracy_reward, max_len), NULL, 1, 1e9, NULL,
     "tokens from which on the score no longer changes"},
    BOUND(min_wrong, "min_value_wrong", "-1", "a wrong answer in no tokens"),
    BOUND(max_wrong, "max_value_wrong", "-0.5", "a wrong answer in max_len tokens"),
    BOUND(min_correct, "min_value_correct", "0.5", "a right answer in max_len tokens"),
    BOUND(max_correct, "max_value_correct", "1", "a right answer in no tokens"),
};

static pgrad_status score_cosine(const void *reward, const pgrad__completion *completion,
                                 double *score)
{
    const accuracy_reward *self = reward;
    double correct;
    PGRAD__TRY(score_text(self, completion, completion->text, &correct));
    *score = NAN;
    if (isnan(correct))
        return PGRAD_OK;
    const double progress = fmin((double)completion->n_tokens / self->max_len, 1.0);
    const double wave = 1.0 + pgrad__cos(progress * 3.14159265358979323846);
    const double at_end = correct > 0.0 ? self->min_correct : self->max_wrong;
    const double at_start = correct > 0.0 ? self->max_correct : self->min_wrong;
    *score = at_end + 0.5 * (at_start - at_end) * wave;
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_trl_cosine = {
    .name = "get_cosine_scaled_reward",
    .report_name = "cosine_scaled_reward",
    .help =
        "TRL's: accuracy, a right answer the better and a wrong one the worse the shorter it is",
    .needs_text = 1,
    .size = sizeof(accuracy_reward),
    PGRAD__ARGUMENTS(COSINE_ARGUMENTS),
    .score = score_cosine,
};
