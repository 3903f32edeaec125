/* Which tokens top_k, top_p and min_p keep. The lightest of them is found by the digits of the
 * weights, the leading one first: candidates are counted by digit, and only those that share the
 * digit of the one looked for are looked at again. Nothing is sorted.
 *
 * The mass of the heaviest tokens has one value, whatever order they are added in: weights between
 * the same powers of two have one spacing, so that a double holds the sum of any number of them
 * exactly, and it is rounded only where the next power begins. */
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "kernel/vec.h"
#include "rl/sampler.h"

enum { BLOCK = PGRAD__SOFTMAX_BLOCK };

/* Bits 29 .. 20, 19 .. 10, 9 .. 0 of a weight up to 1. */
enum { DIGITS = 3, DIGIT_BITS = 10, DIGIT_VALUES = 1 << DIGIT_BITS };
enum { BINADE = 1 << (23 - 2 * DIGIT_BITS) }; /* leading digits from one power of two to the next */

#define LIGHTEST 0x1p-149f /* a weight of 0 is never kept */

/* Tokens are kept, the heavier first and the lower id among equals, until there are n or until
 * their mass is reached. */
typedef struct limit {
    size_t n;
    double mass;
} limit;

/* The candidates, ids ascending, and what is heavier than all of them. */
typedef struct search {
    const float *weight;
    uint32_t *ids;
    size_t n, n_above;
    double mass_above, mass_beside; /* of greater powers of two, and of the candidates' own */
} search;

typedef struct histogram {
    double mass[DIGIT_VALUES];
    uint32_t n[DIGIT_VALUES];
} histogram;

static uint32_t digit_of(float weight, int digit)
{
    return pgrad__bits_of_float(weight) >> ((DIGITS - 1 - digit) * DIGIT_BITS) & (DIGIT_VALUES - 1);
}

/* 1 when the limit is reached with the next n tokens, which lie between the same powers of two. */
static int is_reached(const search *s, const limit *to, size_t n, double mass)
{
    return s->n_above + n >= to->n || s->mass_above + (s->mass_beside + mass) >= to->mass;
}

static void count_digits(const search *s, int digit, histogram *h)
{
    memset(h, 0, sizeof *h);
    for (size_t i = 0; i < s->n; i++) {
        const float weight = s->weight[s->ids[i]];
        const uint32_t value = digit_of(weight, digit);
        h->n[value]++;
        h->mass[value] += (double)weight;
    }
}

/* Of the candidates those are left that weigh what the last one kept weighs; none when the limit is
 * not reached with all of them. */
static void find_last(search *s, const limit *to)
{
    histogram h;
    for (int digit = 0; digit < DIGITS && s->n > 0; digit++) {
        size_t value = DIGIT_VALUES, n = 0;
        count_digits(s, digit, &h);
        while (value-- > 0) {
            if (digit == 0 && value % BINADE == BINADE - 1) {
                s->mass_above += s->mass_beside;
                s->mass_beside = 0.0;
            }
            if (is_reached(s, to, h.n[value], h.mass[value]))
                break;
            s->n_above += h.n[value];
            s->mass_beside += h.mass[value];
        }
        for (size_t i = 0; i < s->n; i++) {
            const uint32_t id = s->ids[i];
            s->ids[n] = id;
            n += digit_of(s->weight[id], digit) == value;
        }
        s->n = n;
    }
}

/* How many of the candidates, which weigh the same, it takes to reach the limit. */
static size_t equals_kept(const search *s, const limit *to)
{
    const double weight = (double)s->weight[s->ids[0]];
    size_t low = 1, high = s->n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (is_reached(s, to, middle, (double)middle * weight))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static uint32_t block_size(const pgrad__draw_scratch *scratch, uint32_t first)
{
    return scratch->n_vocab - first < BLOCK ? scratch->n_vocab - first : BLOCK;
}

/* Tokens of at least the threshold; blocks without one are not looked at. */
static size_t gather(const pgrad__kernels *kernels, const pgrad__draw_scratch *scratch,
                     float threshold)
{
    size_t n = 0;
    for (uint32_t first = 0; first < scratch->n_vocab; first += BLOCK)
        if (scratch->largest[first / BLOCK] >= threshold)
            n += kernels->vec->gather_block(scratch->weight + first, block_size(scratch, first),
                                            threshold, first, scratch->ids + n);
    return n;
}

/* Keeps tokens up to the limit, none of which is lighter than the threshold. Returns what the
 * lightest weighs; *mass is that of all. Among its equals those that are not kept become 0, all
 * that are lighter stay. */
static float keep(const pgrad__kernels *kernels, pgrad__draw_scratch *scratch, const limit *to,
                  float threshold, double *mass)
{
    search s = {.weight = scratch->weight, .ids = scratch->ids};
    s.n = gather(kernels, scratch, threshold);
    find_last(&s, to);
    if (s.n > 0) {
        const size_t kept = equals_kept(&s, to);
        threshold = scratch->weight[s.ids[0]];
        s.mass_beside += (double)kept * (double)threshold;
        for (size_t i = kept; i < s.n; i++)
            scratch->weight[s.ids[i]] = 0.0f;
    }
    *mass = s.mass_above + s.mass_beside;
    return threshold;
}

/* The k-th largest of the blocks' largest weights: k tokens or more weigh as much. */
static float threshold_of_k(const pgrad__draw_scratch *scratch, size_t k)
{
    search s = {.weight = scratch->largest, .ids = scratch->ids};
    for (; s.n * BLOCK < scratch->n_vocab; s.n++)
        s.ids[s.n] = (uint32_t)s.n;
    find_last(&s, &(limit){k, INFINITY});
    return s.n == 0 ? LIGHTEST : fmaxf(s.weight[s.ids[0]], LIGHTEST);
}

/* What is lighter has, if it were all n tokens, less than 1 - top_p of the mass, by more than
 * rounding can hide. */
static float threshold_of_p(double top_p, size_t n, double mass)
{
    const double share = 1.0 - top_p - 1e-9;
    return fmaxf((float)(0.99 * share * mass / (double)n), LIGHTEST);
}

/* The smallest float that is not below min_p. */
static float threshold_of_min_p(double min_p)
{
    const float nearest = (float)min_p;
    return (double)nearest < min_p ? pgrad__float_of_bits(pgrad__bits_of_float(nearest) + 1)
                                   : nearest;
}

/* What is lighter than the threshold becomes 0; the sums of what is left. */
static double cut(const pgrad__kernels *kernels, pgrad__draw_scratch *scratch, float threshold)
{
    double total = 0.0;
    for (uint32_t first = 0; first < scratch->n_vocab; first += BLOCK) {
        double sum = 0.0;
        if (scratch->largest[first / BLOCK] >= threshold)
            sum = kernels->vec->cut_block(scratch->weight + first, block_size(scratch, first),
                                          threshold);
        scratch->sums[first / BLOCK] = sum;
        total += sum;
    }
    return total;
}

double pgrad__cut_tail(const pgrad_sampler_params *params, const pgrad__kernels *kernels,
                       pgrad__draw_scratch *scratch, double mass)
{
    size_t n = scratch->n_vocab;
    float threshold = LIGHTEST;
    if (params->top_k != 0 && params->top_k < n) {
        n = params->top_k;
        threshold =
            keep(kernels, scratch, &(limit){n, INFINITY}, threshold_of_k(scratch, n), &mass);
    }
    if (params->top_p < 1.0) {
        const float light = threshold_of_p(params->top_p, n, mass);
        threshold = keep(kernels, scratch, &(limit){SIZE_MAX, params->top_p * mass},
                         fmaxf(threshold, light), &mass);
    }
    return cut(kernels, scratch, fmaxf(threshold, threshold_of_min_p(params->min_p)));
}
