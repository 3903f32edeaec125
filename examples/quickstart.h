/* What the two files of the quickstart share: runs, tasks, and the pictures of them. */
#ifndef POLICYGRAD_EXAMPLES_QUICKSTART_H
#define POLICYGRAD_EXAMPLES_QUICKSTART_H

#include "common.h"

enum { SHOWN = 4, TEXT_SIZE = 1024 };

/* What is learned: prompts, a text per prompt for the score, and how long. */
typedef struct task {
    const char *name, *scale; /* what is counted, and what random, untrained and perfect models score */
    double (*score)(const char *text, const char *asked, uint32_t finish);
    const char *const *prompts, *const *data;
    size_t n_prompts;
    uint32_t chat, steps, prompts_per_step, group_size, max_new_tokens;
    double learning_rate;
} task;

/* Rewards of a step: mean, quartiles, range. */
typedef struct point {
    double mean, q1, q3, min, max;
} point;

typedef struct run {
    const char *label;
    point *points;
    uint32_t n_points, n_steps;
    uint32_t n_restored; /* of the points, those of an earlier run that is taken up */
    double started, seconds, tokens;
    int terminal;
} run;

double now(void);
int is_terminal(void);
void make_folder(const char *path);
int file_is_there(const char *path);

/* The points of a run as text, to be freed, and back. */
char *points_to_text(const run *r);
void points_from_text(const char *text, run *r);

void describe(pgrad_context *context, pgrad_model *model, const task *t);
void describe_cost(pgrad_context *context, const run *r);

/* Draws both runs: the mean as a line, the quartiles as a band. */
void draw_curves(const char *path, const char *task_name, const run *learned, const run *control);

/* Makes a PNG beside an SVG through rsvg-convert: 1 when it did. */
int convert_to_png(const char *svg_path);

#endif
