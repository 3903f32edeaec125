/* Optimizer updates, strip by strip: what is not stored as f32 is widened, updated and rounded
 * while it lies in the first-level cache, so every rule works with every storage. */
#include <stdatomic.h>
#include <string.h>

#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum {
    STRIP = PGRAD__MOMENT_BLOCK,
    FLAT_WIDE = 16,
    STRIPS = 32, /* of a task */
    ROOM = STRIP * PGRAD__MAX_WIDE
};

/* Any array as panels of rows: n_rows rows of `wide` values in each. */
typedef struct grid {
    size_t wide, panels, n_rows, strips; /* strips of a panel */
} grid;

static grid grid_of(const pgrad__kernels *kernels, uint32_t n_out, size_t n_in)
{
    grid g = {.wide = FLAT_WIDE, .panels = 1, .n_rows = pgrad__panel_count(n_in, FLAT_WIDE)};
    if (n_out != 0)
        g = (grid){.wide = kernels->wide,
                   .panels = pgrad__panel_count(n_out, kernels->wide),
                   .n_rows = n_in};
    g.strips = pgrad__panel_count(g.n_rows, STRIP);
    return g;
}

size_t pgrad__stored_bytes(const pgrad__kernels *kernels, uint32_t n_out, size_t n_in,
                           pgrad__storage storage, size_t *n_exponents)
{
    static const size_t SIZE[] = {sizeof(float), sizeof(uint16_t), sizeof(uint8_t)};
    const grid g = grid_of(kernels, n_out, n_in);
    *n_exponents = storage == PGRAD__STORAGE_Q8 ? g.panels * g.strips * g.wide : 0;
    return g.panels * g.n_rows * g.wide * SIZE[storage];
}

typedef struct job {
    const pgrad__vector_ops *vec;
    const pgrad__update_rule *rule;
    const pgrad__update_arrays *arrays;
    grid grid;
    int write;
    atomic_uint max[3]; /* bits of floats that are not negative: ordered as they are */
} job;

/* Rows first .. first + depth of a panel: the n values from `at` on, of which a flat array's last
 * row may lack some. */
typedef struct strip {
    size_t at, n, depth, wide, exponents;
    pgrad__strip_random random;
} strip;

static strip strip_of(const job *j, size_t number)
{
    const grid *g = &j->grid;
    const size_t panel = number / g->strips, first = number % g->strips * STRIP;
    strip s = {.at = (panel * g->n_rows + first) * g->wide,
               .depth = pgrad__min(STRIP, g->n_rows - first),
               .wide = g->wide,
               .exponents = number * g->wide};
    s.n = s.depth * s.wide;
    if (j->arrays->n_out == 0)
        s.n = pgrad__min(s.n, j->arrays->n_in - s.at);
    s.random = (pgrad__strip_random){.seed = j->rule->seed,
                                     .array = j->rule->array,
                                     .update = (uint32_t)j->rule->update,
                                     .first_output = panel * g->wide,
                                     .first_quad = first / 4,
                                     .quads = pgrad__panel_count(g->n_rows, 4)};
    return s;
}

/* The strip as f32: itself where it can be worked on in place, else a copy. */
static float *widened(const job *j, const strip *s, const pgrad__stored *stored, int root,
                      float *room)
{
    if (stored->data == NULL)
        return NULL;
    switch (stored->storage) {
    case PGRAD__STORAGE_F32:
        if (j->write)
            return (float *)stored->data + s->at;
        memcpy(room, (const float *)stored->data + s->at, s->n * sizeof *room);
        break;
    case PGRAD__STORAGE_BF16:
        j->vec->bf16_widen((const uint16_t *)stored->data + s->at, s->n, room);
        break;
    case PGRAD__STORAGE_Q8:
        j->vec->q8_widen((const uint8_t *)stored->data + s->at, stored->exponents + s->exponents,
                         s->depth, s->wide, root, room);
        break;
    }
    return room;
}

/* Rounds the strip to its storage, for a dry run into nothing. */
static void store(const job *j, const strip *s, const pgrad__stored *stored, int root, float *x,
                  const uint32_t *bits, uint32_t shift, uint32_t *max)
{
    uint16_t nothing[ROOM];
    uint8_t exponents[PGRAD__MAX_WIDE];
    if (stored->data == NULL || stored->storage == PGRAD__STORAGE_F32)
        return;
    if (stored->storage == PGRAD__STORAGE_BF16)
        j->vec->bf16_round(x, bits, shift, s->n,
                           j->write ? (uint16_t *)stored->data + s->at : nothing, max);
    else
        j->vec->q8_round(x, bits, shift, s->depth, s->wide, root,
                         j->write ? (uint8_t *)stored->data + s->at : (uint8_t *)nothing,
                         j->write ? stored->exponents + s->exponents : exponents, max);
}

static int is_rounded(const pgrad__stored *stored)
{
    return stored->data != NULL && stored->storage != PGRAD__STORAGE_F32;
}

static void update_strip(const job *j, strip *s, uint32_t max[3])
{
    const pgrad__update_arrays *a = j->arrays;
    _Alignas(64) float room[3][ROOM];
    _Alignas(64) uint32_t bits[ROOM];
    float *theta = widened(j, s, &a->theta, 0, room[0]);
    float *m = widened(j, s, &a->m, 0, room[1]), *v = widened(j, s, &a->v, 1, room[2]);
    if (j->rule->adam != NULL)
        j->vec->adam(j->rule->adam, s->n, theta, a->g + s->at, m, v, max);
    else
        j->vec->sgd(j->rule->sgd, s->n, theta, a->g + s->at, m, max);
    if (is_rounded(&a->m)) {
        j->vec->random_bits(&s->random, s->depth, s->wide, bits);
        store(j, s, &a->m, 0, m, bits, 0, &max[1]);
        store(j, s, &a->v, 1, v, bits, 16, &max[2]);
    }
    if (is_rounded(&a->theta)) {
        s->random.draw = 1;
        j->vec->random_bits(&s->random, s->depth, s->wide, bits);
        store(j, s, &a->theta, 0, theta, bits, 0, &max[0]);
    }
}

static void raise_to(atomic_uint *max, uint32_t value)
{
    unsigned now = atomic_load_explicit(max, memory_order_relaxed);
    while (now < value && !atomic_compare_exchange_weak_explicit(
                              max, &now, value, memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void task(void *argument, size_t number, uint32_t worker)
{
    job *j = argument;
    const size_t end = pgrad__min((number + 1) * STRIPS, j->grid.panels * j->grid.strips);
    uint32_t max[3] = {0};
    (void)worker;
    for (size_t i = number * STRIPS; i < end; i++) {
        strip s = strip_of(j, i);
        update_strip(j, &s, max);
    }
    for (int i = 0; i < 3; i++)
        raise_to(&j->max[i], max[i]);
}

pgrad__reach pgrad__update(pgrad_context *context, const pgrad__update_rule *rule,
                           const pgrad__update_arrays *arrays, int write)
{
    const pgrad__kernels *kernels = pgrad__kernels_of(context);
    job j = {.vec = kernels->vec,
             .rule = rule,
             .arrays = arrays,
             .grid = grid_of(kernels, arrays->n_out, arrays->n_in),
             .write = write};
    pgrad__reach reach;
    pgrad__parallel(context, pgrad__panel_count(j.grid.panels * j.grid.strips, STRIPS), task, &j);
    const uint32_t max[3] = {j.max[0], j.max[1], j.max[2]};
    memcpy(&reach, max, sizeof reach);
    return reach;
}
