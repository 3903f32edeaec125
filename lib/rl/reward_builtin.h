/* The inside of rewards ready to use: what a row of their table is, and what a row's functions see.
 * Not the host's functions, which are in reward.h. */
#ifndef PGRAD_RL_REWARD_BUILTIN_H
#define PGRAD_RL_REWARD_BUILTIN_H

#include <policygrad/types.h>

#include "io/json.h"

/* Bytes, not closed by a NUL. */
typedef struct pgrad__span {
    const char *data;
    size_t length;
} pgrad__span;

typedef struct pgrad__spans {
    pgrad__span *items;
    size_t count;
} pgrad__spans;

/* What an argument is in JSON, and the member of the reward's struct that it fills. */
typedef enum pgrad__argument_type {
    PGRAD__ARGUMENT_WHOLE,  /* uint32_t */
    PGRAD__ARGUMENT_REAL,   /* double */
    PGRAD__ARGUMENT_FLAG,   /* int */
    PGRAD__ARGUMENT_CHOICE, /* uint32_t, one of `choices` */
    PGRAD__ARGUMENT_TEXT,   /* pgrad__span */
    PGRAD__ARGUMENT_TEXTS   /* pgrad__spans */
} pgrad__argument_type;

typedef struct pgrad__argument {
    const char *name;
    pgrad__argument_type type;
    size_t offset;
    const char *initial;        /* the default as JSON, NULL: it must be given */
    double min, max;            /* of a number, of a text's bytes, of a list's entries */
    const char *const *choices; /* names of a CHOICE by value, NULL-terminated */
    const char *help;           /* plain words, without quotes and backslashes */
} pgrad__argument;

typedef struct pgrad__reward_kind pgrad__reward_kind;

/* Every reward's struct begins with it; the arguments it fills follow. Texts are those of the two
 * documents. */
typedef struct pgrad__builtin {
    pgrad_context *context;
    const pgrad__reward_kind *kind;
    pgrad__json *given, *defaults;
    pgrad__span name;
} pgrad__builtin;

/* What is scored. */
typedef struct pgrad__completion {
    const pgrad_rollout *rollout;
    uint32_t group, finish; /* PGRAD_FINISH_* */
    const pgrad_token *tokens;
    uint32_t n_tokens;
    pgrad__span text; /* data NULL: the rollout has no tokenizer */
} pgrad__completion;

/* A row of the table. */
struct pgrad__reward_kind {
    const char *name;        /* what it is asked for by */
    const char *report_name; /* what reports call it */
    const char *help;
    int needs_text;
    size_t size; /* of its struct */
    const pgrad__argument *arguments;
    size_t n_arguments;
    pgrad_status (*prepare)(void *reward); /* checks and compiles the arguments; may be NULL */
    void (*release)(void *reward);         /* undoes prepare, whole or not; may be NULL */
    /* NaN: not applicable */
    pgrad_status (*score)(const void *reward, const pgrad__completion *completion, double *score);
};

#define PGRAD__ARGUMENTS(list) .arguments = (list), .n_arguments = sizeof(list) / sizeof((list)[0])

/* The rows, in the order in which they are listed; the table is in reward_builtin.c. */
extern const pgrad__reward_kind pgrad__reward_exact, pgrad__reward_numeric, pgrad__reward_choice,
    pgrad__reward_regex, pgrad__reward_words, pgrad__reward_json, pgrad__reward_script,
    pgrad__reward_think_then_answer, pgrad__reward_end_reached, pgrad__reward_length,
    pgrad__reward_overlong, pgrad__reward_repetition, pgrad__reward_trl_accuracy,
    pgrad__reward_trl_reasoning_accuracy, pgrad__reward_trl_cosine, pgrad__reward_trl_think_format,
    pgrad__reward_trl_repetition, pgrad__reward_trl_overlong;

/* Fills a reward's struct (zeroed, context and kind set) from JSON text (NULL: all defaults).
 * E_INVALID names reward, argument, expected and found. */
pgrad_status pgrad__arguments_read(pgrad__builtin *reward, const char *json);
void pgrad__arguments_free(pgrad__builtin *reward);

/* Argument i of a kind, those that all have first; NULL behind the last. */
const pgrad__argument *pgrad__argument_at(const pgrad__reward_kind *kind, size_t i);

/* ---- texts ---- */

/* Where `what` first (or last) stands in a text from `start` on, SIZE_MAX when it does not. */
size_t pgrad__span_find(pgrad__span text, pgrad__span what, size_t start);
size_t pgrad__span_find_last(pgrad__span text, pgrad__span what);
pgrad__span pgrad__span_from(pgrad__span text, size_t start);
/* Without white space at both ends. */
pgrad__span pgrad__span_strip(pgrad__span text);
/* The next word, split at white space: *at moves behind it; length 0 at the end. */
pgrad__span pgrad__span_word(pgrad__span text, size_t *at);
/* Bytes of the character at text[at]; a byte that is no UTF-8 counts as one, with *code U+FFFD. */
size_t pgrad__span_character(pgrad__span text, size_t at, uint32_t *code);
int pgrad__span_is_digit(pgrad__span text, size_t at); /* 0 behind the end */
/* Bytes of text that are equal to the whole of `what`, SIZE_MAX when it does not begin so. Case is
 * ignored character by character. */
size_t pgrad__span_begins(pgrad__span text, pgrad__span what, int ignore_case);
int pgrad__span_equal(pgrad__span a, pgrad__span b, int ignore_case);
/* Where a word stands from `start` on, no word character going on at either side; SIZE_MAX. */
size_t pgrad__span_find_word(pgrad__span text, pgrad__span word, size_t start, int ignore_case,
                             size_t *end);

#endif
