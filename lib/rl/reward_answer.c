/* Rewards that compare the completion's answer with the prompt's data: exact, numeric, choice. */
#include <math.h>

#include <policygrad/rollout.h>

#include "base/fail.h"
#include "base/number.h"
#include "rl/reward_builtin.h"
#include "text/unicode.h"

enum { LAST, FIRST };
static const char *const WHICH[] = {"last", "first", NULL};
static const char *const MISSING[] = {"error", "skip", NULL};

/* Where the answers stand: every one of these rewards begins with it. */
typedef struct answer_reward {
    pgrad__builtin base;
    pgrad__span column, after, data_after;
    uint32_t skip_missing;
} answer_reward;

#define ANSWER_TEXT(member, initial, min, help)                                                    \
    {                                                                                              \
#member, PGRAD__ARGUMENT_TEXT, offsetof(answer_reward, member), initial, min, 256, NULL,   \
            help                                                                                   \
    }
#define ANSWER_ARGUMENTS                                                                           \
    ANSWER_TEXT(column, "\"answer\"", 1,                                                           \
                "the key of the prompt's data that holds the right answer"),                       \
        MISSING_ARGUMENT,                                                                          \
        ANSWER_TEXT(                                                                               \
            after, "\"\"", 0,                                                                      \
            "the answer stands behind the last of these marks; without one the score is 0"),       \
        ANSWER_TEXT(data_after, "\"\"", 0, "the same mark in the data, where it may be absent")
#define MISSING_ARGUMENT                                                                           \
    {                                                                                              \
        "missing", PGRAD__ARGUMENT_CHOICE, offsetof(answer_reward, skip_missing), "\"error\"", 0,  \
            0, MISSING, "a prompt without a usable answer: fail, or leave its completions out"     \
    }

/* *given has data NULL when the completion gives no answer, *wanted when the data do not. */
static pgrad_status find_answers(const answer_reward *self, const pgrad__completion *completion,
                                 pgrad__span *given, pgrad__span *wanted)
{
    size_t mark = pgrad__span_find_last(completion->text, self->after);
    *given = (pgrad__span){NULL, 0};
    if (self->after.length == 0)
        *given = completion->text;
    else if (mark != SIZE_MAX)
        *given = pgrad__span_from(completion->text, mark + self->after.length);
    wanted->length = 0;
    wanted->data = pgrad_rollout_data(completion->rollout, completion->group, self->column.data,
                                      &wanted->length);
    if (wanted->data == NULL)
        return self->skip_missing
                   ? PGRAD_OK
                   : pgrad__fail(PGRAD_E_STATE, "its prompt has no data '%s', the right answer",
                                 self->column.data);
    mark =
        self->data_after.length == 0 ? SIZE_MAX : pgrad__span_find_last(*wanted, self->data_after);
    if (mark != SIZE_MAX)
        *wanted = pgrad__span_from(*wanted, mark + self->data_after.length);
    return PGRAD_OK;
}

/* The data are there and make no sense. */
static pgrad_status unusable(const answer_reward *self, const char *expected, pgrad__span found,
                             double *score)
{
    *score = NAN;
    if (self->skip_missing)
        return PGRAD_OK;
    return pgrad__fail(PGRAD_E_FORMAT, "data '%s': expected %s, found '%.*s'", self->column.data,
                       expected, (int)(found.length < 64 ? found.length : 64), found.data);
}

/* ---- exact ---- */

typedef struct exact_reward {
    answer_reward source;
    int ignore_case, strip, within;
} exact_reward;

static const pgrad__argument EXACT_ARGUMENTS[] = {
    ANSWER_ARGUMENTS,
    {"ignore_case", PGRAD__ARGUMENT_FLAG, offsetof(exact_reward, ignore_case), "false", 0, 1, NULL,
     "capitals equal small letters"},
    {"strip", PGRAD__ARGUMENT_FLAG, offsetof(exact_reward, strip), "true", 0, 1, NULL,
     "white space at both ends does not count"},
    {"within", PGRAD__ARGUMENT_FLAG, offsetof(exact_reward, within), "false", 0, 1, NULL,
     "the answer may stand anywhere, between word boundaries"},
};

static pgrad_status score_exact(const void *reward, const pgrad__completion *completion,
                                double *score)
{
    const exact_reward *self = reward;
    pgrad__span given, wanted;
    size_t end;
    PGRAD__TRY(find_answers(&self->source, completion, &given, &wanted));
    *score = NAN;
    if (wanted.data == NULL)
        return PGRAD_OK;
    if (self->strip)
        wanted = pgrad__span_strip(wanted);
    if (self->within && wanted.length == 0)
        return unusable(&self->source, "some text", wanted, score);
    *score = 0.0;
    if (given.data == NULL)
        return PGRAD_OK;
    if (self->strip)
        given = pgrad__span_strip(given);
    *score = self->within
                 ? pgrad__span_find_word(given, wanted, 0, self->ignore_case, &end) != SIZE_MAX
                 : pgrad__span_equal(given, wanted, self->ignore_case);
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_exact = {
    .name = "exact",
    .report_name = "exact",
    .help = "1 when the completion is the right answer, byte for byte, else 0",
    .needs_text = 1,
    .size = sizeof(exact_reward),
    PGRAD__ARGUMENTS(EXACT_ARGUMENTS),
    .score = score_exact,
};

/* ---- numeric ---- */

typedef struct numeric_reward {
    answer_reward source;
    uint32_t which;
    double relative, absolute;
} numeric_reward;

static const pgrad__argument NUMERIC_ARGUMENTS[] = {
    ANSWER_ARGUMENTS,
    {"which", PGRAD__ARGUMENT_CHOICE, offsetof(numeric_reward, which), "\"last\"", 0, 0, WHICH,
     "which number counts, in the completion and in the data"},
    {"relative", PGRAD__ARGUMENT_REAL, offsetof(numeric_reward, relative), "1e-6", 0, 1, NULL,
     "how far off an answer may be, as a part of the right one"},
    {"absolute", PGRAD__ARGUMENT_REAL, offsetof(numeric_reward, absolute), "0", 0, 1e300, NULL,
     "how far off it may be beside that"},
};

/* Three digits and no fourth behind a comma. */
static int is_thousand(pgrad__span text, size_t at)
{
    return at < text.length && text.data[at] == ',' && pgrad__span_is_digit(text, at + 1) &&
           pgrad__span_is_digit(text, at + 2) && pgrad__span_is_digit(text, at + 3) &&
           !pgrad__span_is_digit(text, at + 4);
}

enum { MAX_DIGITS = 400 };

static size_t take_digits(pgrad__span text, size_t at, char *out, size_t *n)
{
    for (; pgrad__span_is_digit(text, at); at++)
        if (*n < MAX_DIGITS)
            out[(*n)++] = text.data[at];
    return at;
}

/* Reads the number that begins with a digit or a point at `at`: 1 and the end behind it. */
static int read_number(pgrad__span text, size_t at, int negative, double *value, size_t *end)
{
    char digits[MAX_DIGITS + 16];
    size_t n = 0, first = at;
    if (negative)
        digits[n++] = '-';
    at = take_digits(text, at, digits, &n);
    if (at - first <= 3 && at > first)
        while (is_thousand(text, at))
            at = take_digits(text, at + 1, digits, &n);
    if (at < text.length && text.data[at] == '.' && pgrad__span_is_digit(text, at + 1)) {
        digits[n++] = '.';
        at = take_digits(text, at + 1, digits, &n);
    }
    if (at < text.length && (text.data[at] == 'e' || text.data[at] == 'E')) {
        const size_t sign =
            at + 1 < text.length && (text.data[at + 1] == '-' || text.data[at + 1] == '+');
        if (pgrad__span_is_digit(text, at + 1 + sign)) {
            digits[n++] = 'e';
            if (sign)
                digits[n++] = text.data[at + 1];
            at = take_digits(text, at + 1 + sign, digits, &n);
        }
    }
    digits[n] = '\0';
    *end = at;
    return n < MAX_DIGITS && pgrad__parse_real(digits, value) && isfinite(*value);
}

/* A minus counts as the number's sign where no word or number ends before it. */
static int is_negative(pgrad__span text, size_t at)
{
    uint32_t code;
    size_t length = at == 0 ? 0 : pgrad__utf8_last(text.data, at, &code);
    if (length == 0 || (code != '-' && code != 0x2212))
        return 0;
    at -= length;
    if (at == 0)
        return 1;
    (void)pgrad__utf8_last(text.data, at, &code);
    return !pgrad__is_word(code) && code != ')';
}

static int starts_number(pgrad__span text, size_t at)
{
    uint32_t before = ' ';
    if (!pgrad__span_is_digit(text, at) &&
        !(text.data[at] == '.' && pgrad__span_is_digit(text, at + 1)))
        return 0;
    if (at > 0)
        (void)pgrad__utf8_last(text.data, at, &before);
    return !pgrad__is_word(before);
}

static int find_number(pgrad__span text, uint32_t which, double *value)
{
    int found = 0;
    for (size_t at = 0; at < text.length && !(found && which == FIRST);) {
        size_t end = at + 1;
        if (starts_number(text, at) && read_number(text, at, is_negative(text, at), value, &end))
            found = 1;
        at = end;
    }
    return found;
}

static pgrad_status score_numeric(const void *reward, const pgrad__completion *completion,
                                  double *score)
{
    const numeric_reward *self = reward;
    pgrad__span given, wanted;
    double answer, right;
    PGRAD__TRY(find_answers(&self->source, completion, &given, &wanted));
    *score = NAN;
    if (wanted.data == NULL)
        return PGRAD_OK;
    if (!find_number(wanted, self->which, &right))
        return unusable(&self->source, "a number", wanted, score);
    *score = given.data != NULL && find_number(given, self->which, &answer) &&
             fabs(answer - right) <= self->absolute + self->relative * fabs(right);
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_numeric = {
    .name = "numeric",
    .report_name = "numeric",
    .help = "1 when the completion's number is the right one within a tolerance, else 0",
    .needs_text = 1,
    .size = sizeof(numeric_reward),
    PGRAD__ARGUMENTS(NUMERIC_ARGUMENTS),
    .score = score_numeric,
};

/* ---- choice ---- */

typedef struct choice_reward {
    answer_reward source;
    pgrad__spans choices;
    uint32_t which;
    int ignore_case;
} choice_reward;

static const pgrad__argument CHOICE_ARGUMENTS[] = {
    ANSWER_ARGUMENTS,
    {"choices", PGRAD__ARGUMENT_TEXTS, offsetof(choice_reward, choices),
     "[\"A\",\"B\",\"C\",\"D\",\"E\"]", 2, 1000, NULL, "what can be chosen"},
    {"which", PGRAD__ARGUMENT_CHOICE, offsetof(choice_reward, which), "\"last\"", 0, 0, WHICH,
     "which mention counts, in the completion and in the data"},
    {"ignore_case", PGRAD__ARGUMENT_FLAG, offsetof(choice_reward, ignore_case), "false", 0, 1, NULL,
     "capitals equal small letters"},
};

/* The choice mentioned first or last, of two at the same place the longer; SIZE_MAX for none. */
static size_t find_choice(const choice_reward *self, pgrad__span text)
{
    size_t best = SIZE_MAX, best_at = 0, best_end = 0;
    for (size_t i = 0; i < self->choices.count; i++) {
        size_t end = 0, start = 0, at;
        while ((at = pgrad__span_find_word(text, self->choices.items[i], start, self->ignore_case,
                                           &end)) != SIZE_MAX) {
            const int better = self->which == FIRST ? at < best_at : at > best_at;
            if (best == SIZE_MAX || better || (at == best_at && end > best_end)) {
                best = i;
                best_at = at;
                best_end = end;
            }
            start = end;
            if (self->which == FIRST)
                break;
        }
    }
    return best;
}

static pgrad_status score_choice(const void *reward, const pgrad__completion *completion,
                                 double *score)
{
    const choice_reward *self = reward;
    pgrad__span given, wanted;
    PGRAD__TRY(find_answers(&self->source, completion, &given, &wanted));
    *score = NAN;
    if (wanted.data == NULL)
        return PGRAD_OK;
    const size_t right = find_choice(self, wanted);
    if (right == SIZE_MAX)
        return unusable(&self->source, "one of the choices", wanted, score);
    *score = given.data != NULL && find_choice(self, given) == right;
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_choice = {
    .name = "choice",
    .report_name = "choice",
    .help = "1 when the choice that the completion names is the right one, else 0",
    .needs_text = 1,
    .size = sizeof(choice_reward),
    PGRAD__ARGUMENTS(CHOICE_ARGUMENTS),
    .score = score_choice,
};
