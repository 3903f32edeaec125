/* Rewards of tokens and lengths. */
#include <math.h>

#include <policygrad/rollout.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/hashmap.h"
#include "rl/reward_builtin.h"

enum { TOKENS, CHARACTERS, WORDS, BYTES };
static const char *const LENGTH_UNITS[] = {"tokens", "characters", "words", "bytes", NULL};
static const char *const RUN_UNITS[] = {"tokens", "characters", "words", NULL};

/* ---- length ---- */

typedef struct length_reward {
    pgrad__builtin base;
    uint32_t target, tolerance, width, unit;
} length_reward;

static const pgrad__argument LENGTH_ARGUMENTS[] = {
    {"target", PGRAD__ARGUMENT_WHOLE, offsetof(length_reward, target), NULL, 1, 1e9, NULL,
     "the length that scores 1"},
    {"tolerance", PGRAD__ARGUMENT_WHOLE, offsetof(length_reward, tolerance), "0", 0, 1e9, NULL,
     "lengths this far from the target still score 1"},
    {"width", PGRAD__ARGUMENT_WHOLE, offsetof(length_reward, width), "0", 0, 1e9, NULL,
     "how much further the score falls to 0; 0: as much as the target"},
    {"unit", PGRAD__ARGUMENT_CHOICE, offsetof(length_reward, unit), "\"tokens\"", 0, 0,
     LENGTH_UNITS, "what is counted; tokens count the end token"},
};

static size_t count_words(pgrad__span text)
{
    size_t at = 0, n = 0;
    while (pgrad__span_word(text, &at).length > 0)
        n++;
    return n;
}

static size_t count_characters(pgrad__span text)
{
    uint32_t code;
    size_t n = 0;
    for (size_t at = 0; at < text.length; at += pgrad__span_character(text, at, &code))
        n++;
    return n;
}

static size_t count(const pgrad__completion *completion, uint32_t unit)
{
    return unit == TOKENS       ? completion->n_tokens
           : unit == CHARACTERS ? count_characters(completion->text)
           : unit == WORDS      ? count_words(completion->text)
                                : completion->text.length;
}

static pgrad_status has_text(const pgrad__completion *completion, uint32_t unit)
{
    if (unit != TOKENS && completion->text.data == NULL)
        return pgrad__fail(PGRAD_E_STATE, "unit: expected \"tokens\", since the rollout has no "
                                          "tokenizer");
    return PGRAD_OK;
}

static pgrad_status score_length(const void *reward, const pgrad__completion *completion,
                                 double *score)
{
    const length_reward *self = reward;
    PGRAD__TRY(has_text(completion, self->unit));
    const double off = fabs((double)count(completion, self->unit) - self->target);
    const double beyond = fmax(0.0, off - self->tolerance);
    *score = fmax(0.0, 1.0 - beyond / (self->width > 0 ? self->width : self->target));
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_length = {
    .name = "length",
    .report_name = "length",
    .help = "1 at a length, falling to 0 on both sides of it",
    .size = sizeof(length_reward),
    PGRAD__ARGUMENTS(LENGTH_ARGUMENTS),
    .score = score_length,
};

/* ---- overlong ---- */

typedef struct overlong_reward {
    pgrad__builtin base;
    uint32_t max_length, buffer;
    double factor;
} overlong_reward;

static const pgrad__argument OVERLONG_ARGUMENTS[] = {
    {"max_length", PGRAD__ARGUMENT_WHOLE, offsetof(overlong_reward, max_length), NULL, 1, 1e9, NULL,
     "tokens from which on the penalty is whole"},
    {"buffer", PGRAD__ARGUMENT_WHOLE, offsetof(overlong_reward, buffer), NULL, 0, 1e9, NULL,
     "tokens before that over which it grows"},
    {"factor", PGRAD__ARGUMENT_REAL, offsetof(overlong_reward, factor), "1", 0, 1e6, NULL,
     "the whole penalty is minus this"},
};
static const pgrad__argument TRL_OVERLONG_ARGUMENTS[] = {
    {"max_completion_len", PGRAD__ARGUMENT_WHOLE, offsetof(overlong_reward, max_length), NULL, 0,
     1e9, NULL, "tokens from which on the penalty is whole"},
    {"soft_punish_cache", PGRAD__ARGUMENT_WHOLE, offsetof(overlong_reward, buffer), NULL, 0, 1e9,
     NULL, "tokens before that over which it grows"},
};

/* 0 up to max - buffer tokens, then down to -1 at max, and -1 beyond. */
static double overlong(uint32_t n_tokens, uint32_t max, uint32_t buffer)
{
    const double free_length = (double)max - buffer, length = n_tokens;
    if (length <= free_length)
        return 0.0;
    return length <= max ? (free_length - length) / buffer : -1.0;
}

static pgrad_status score_overlong(const void *reward, const pgrad__completion *completion,
                                   double *score)
{
    const overlong_reward *self = reward;
    *score = self->factor * overlong(completion->n_tokens, self->max_length, self->buffer);
    return PGRAD_OK;
}

static pgrad_status score_trl_overlong(const void *reward, const pgrad__completion *completion,
                                       double *score)
{
    const overlong_reward *self = reward;
    *score = overlong(completion->n_tokens, self->max_length, self->buffer);
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_overlong = {
    .name = "overlong",
    .report_name = "overlong",
    .help = "a penalty that grows over the last tokens before a length (DAPO)",
    .size = sizeof(overlong_reward),
    PGRAD__ARGUMENTS(OVERLONG_ARGUMENTS),
    .score = score_overlong,
};
const pgrad__reward_kind pgrad__reward_trl_overlong = {
    .name = "get_soft_overlong_punishment",
    .report_name = "soft_overlong_punishment_reward",
    .help = "TRL's: overlong with factor 1",
    .size = sizeof(overlong_reward),
    PGRAD__ARGUMENTS(TRL_OVERLONG_ARGUMENTS),
    .score = score_trl_overlong,
};

/* ---- repetition ---- */

typedef struct repetition_reward {
    pgrad__builtin base;
    uint32_t n, unit;
    double max_penalty;
} repetition_reward;

static const pgrad__argument REPETITION_ARGUMENTS[] = {
    {"n", PGRAD__ARGUMENT_WHOLE, offsetof(repetition_reward, n), "3", 1, 1024, NULL,
     "how many make a run"},
    {"unit", PGRAD__ARGUMENT_CHOICE, offsetof(repetition_reward, unit), "\"tokens\"", 0, 0,
     RUN_UNITS, "what runs are made of"},
    {"max_penalty", PGRAD__ARGUMENT_REAL, offsetof(repetition_reward, max_penalty), "-1", -1e6, 0,
     NULL, "what the share of repeated runs is multiplied by"},
};
static const pgrad__argument TRL_REPETITION_ARGUMENTS[] = {
    {"ngram_size", PGRAD__ARGUMENT_WHOLE, offsetof(repetition_reward, n), "3", 1, 1024, NULL,
     "how many tokens make a run"},
    {"max_penalty", PGRAD__ARGUMENT_REAL, offsetof(repetition_reward, max_penalty), "-1", -1e6, 0,
     NULL, "what the share of repeated runs is multiplied by"},
};

/* 1 - distinct / all runs of n ids; 0 when there is none. */
static pgrad_status repeated_share(pgrad_context *context, const int32_t *ids, size_t n_ids,
                                   uint32_t n, double *share)
{
    pgrad__hashmap seen;
    *share = 0.0;
    if (n_ids < n)
        return PGRAD_OK;
    const size_t n_runs = n_ids - n + 1;
    PGRAD__TRY(pgrad__hashmap_init(&seen, context, n_runs));
    pgrad_status status = PGRAD_OK;
    for (size_t i = 0; i < n_runs && status == PGRAD_OK; i++)
        status = pgrad__hashmap_put(&seen, (const char *)(ids + i), n * sizeof *ids, 0, NULL);
    *share = 1.0 - (double)seen.count / (double)n_runs;
    pgrad__hashmap_free(&seen);
    return status;
}

static pgrad__span next_unit(pgrad__span text, uint32_t unit, size_t *at)
{
    uint32_t code;
    if (unit == WORDS)
        return pgrad__span_word(text, at);
    pgrad__span character = {text.data + *at, 0};
    if (*at < text.length)
        character.length = pgrad__span_character(text, *at, &code);
    *at += character.length;
    return character;
}

/* Words or characters as ids, the same one for the same bytes. */
static pgrad_status number_units(pgrad_context *context, pgrad__span text, uint32_t unit,
                                 int32_t *ids, size_t *n)
{
    pgrad__hashmap seen;
    pgrad__span part;
    size_t at = 0;
    *n = 0;
    PGRAD__TRY(pgrad__hashmap_init(&seen, context, 16));
    pgrad_status status = PGRAD_OK;
    while ((part = next_unit(text, unit, &at)).length > 0) {
        uint32_t id = (uint32_t)seen.count;
        PGRAD__GO(pgrad__hashmap_put(&seen, part.data, part.length, id, NULL));
        (void)pgrad__hashmap_get(&seen, part.data, part.length, &id);
        ids[(*n)++] = (int32_t)id;
    }
fail:
    pgrad__hashmap_free(&seen);
    return status;
}

static pgrad_status score_repetition(const void *reward, const pgrad__completion *completion,
                                     double *score)
{
    const repetition_reward *self = reward;
    pgrad_context *context = self->base.context;
    int32_t *ids = NULL;
    double share;
    size_t n;
    PGRAD__TRY(has_text(completion, self->unit));
    if (self->unit == TOKENS) {
        PGRAD__TRY(
            repeated_share(context, completion->tokens, completion->n_tokens, self->n, &share));
    } else {
        PGRAD__TRY(pgrad__alloc(context, completion->text.length, sizeof *ids, &ids));
        pgrad_status status = number_units(context, completion->text, self->unit, ids, &n);
        if (status == PGRAD_OK)
            status = repeated_share(context, ids, n, self->n, &share);
        pgrad__free(context, ids);
        PGRAD__TRY(status);
    }
    *score = share > 0.0 ? share * self->max_penalty : 0.0;
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_repetition = {
    .name = "repetition",
    .report_name = "repetition",
    .help = "a penalty for the share of runs said before",
    .size = sizeof(repetition_reward),
    PGRAD__ARGUMENTS(REPETITION_ARGUMENTS),
    .score = score_repetition,
};
const pgrad__reward_kind pgrad__reward_trl_repetition = {
    .name = "get_repetition_penalty_reward",
    .report_name = "repetition_penalty_reward",
    .help = "TRL's: repetition of tokens",
    .size = sizeof(repetition_reward),
    PGRAD__ARGUMENTS(TRL_REPETITION_ARGUMENTS),
    .score = score_repetition,
};

/* ---- end reached ---- */

typedef struct end_reward {
    pgrad__builtin base;
    double reached, cut;
} end_reward;

static const pgrad__argument END_ARGUMENTS[] = {
    {"reached", PGRAD__ARGUMENT_REAL, offsetof(end_reward, reached), "1", -1e6, 1e6, NULL,
     "score of a completion that ended by itself: end token, stop token or stop string"},
    {"cut", PGRAD__ARGUMENT_REAL, offsetof(end_reward, cut), "0", -1e6, 1e6, NULL,
     "score of one that was cut off at the longest length"},
};

static pgrad_status score_end(const void *reward, const pgrad__completion *completion,
                              double *score)
{
    const end_reward *self = reward;
    *score = completion->finish == PGRAD_FINISH_LENGTH ? self->cut : self->reached;
    return PGRAD_OK;
}

const pgrad__reward_kind pgrad__reward_end_reached = {
    .name = "end_reached",
    .report_name = "end_reached",
    .help = "whether the completion came to its end",
    .size = sizeof(end_reward),
    PGRAD__ARGUMENTS(END_ARGUMENTS),
    .score = score_end,
};
