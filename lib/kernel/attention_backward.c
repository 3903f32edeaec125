/* Attention backward (Dao 2023, algorithm 2): probabilities are recomputed from the saved
 * log-sum-exp, a tile of 64 queries by 64 keys at a time, so memory is linear in the length.
 *
 *   P = exp(scale Q K^T - lse), dP = dO V^T, dS = P (dP - rowsum(dO O)) scale
 *   dQ = dS K, dK = dS^T Q, dV = P^T dO
 *
 * A task is one kv head of one sequence. dK and dV sum over the query heads in order, then over
 * blocks of queries, 64 positions each, in order; dQ over tiles of keys in order. What a sequence
 * adds to a prefix it shares is kept aside and summed when all are done, in their order. */
#include <string.h>

#include "base/fail.h"
#include "base/pool.h"
#include "kernel/attention.h"

enum { TILE = PGRAD__KEY_TILE, ROWS = 72 /* TILE rounded up to whole narrow panels */ };

typedef struct job {
    const pgrad__kernels *kernels;
    const pgrad__attention_shape *shape;
    const pgrad__attention_sequence *sequences;
    const pgrad__attention_grads *grads;
    size_t n_sequences, n_rows, padded, max_tiles;
    float *scratch;
    size_t scratch_floats;
    float *prefix_grads; /* [sequence with a prefix][2][n_prefix, n_kv_heads * head_dim]: dK, dV */
} job;

/* A worker's scratch. Tiles of keys, packed once per task: */
typedef struct scratch {
    float *keys_by_key;   /* [tile][TILE / wide][head_dim][wide]: for Q K^T */
    float *values_by_key; /* likewise, for dO V^T */
    float *keys_by_dim;   /* [tile][padded / wide][TILE][wide]: for dS K */
    float *dk, *dv;       /* [tile * TILE, padded] */
    /* one block of queries: */
    float *q_narrow, *do_narrow; /* narrow panels over head_dim */
    float *q_wide, *do_wide;     /* wide panels of head_dim over queries */
    float *p, *ds;               /* [ROWS, TILE] */
    float *narrow;               /* p or ds in narrow panels, either way round */
    float *dq;                   /* [ROWS, padded] */
    float delta[TILE];
} scratch;

static size_t take(size_t *at, size_t floats)
{
    size_t here = *at;
    *at += pgrad__round_up(floats, 16) + PGRAD__SLACK;
    return here;
}

/* Cuts the parts out of base; with base NULL only the size matters, which is returned. */
static size_t cut(const job *j, float *base, scratch *s)
{
    const size_t dim = j->shape->head_dim, padded = j->padded, n = j->max_tiles * TILE;
    size_t at = 0;
    size_t offsets[13] = {
        take(&at, n * dim),      take(&at, n * dim),       take(&at, n * padded),
        take(&at, n * padded),   take(&at, n * padded),    take(&at, ROWS * dim),
        take(&at, ROWS * dim),   take(&at, TILE * padded), take(&at, TILE * padded),
        take(&at, ROWS * TILE),  take(&at, ROWS * TILE),   take(&at, ROWS * ROWS),
        take(&at, ROWS * padded)};
    if (base != NULL) {
        float **parts[13] = {
            &s->keys_by_key, &s->values_by_key, &s->keys_by_dim, &s->dk,      &s->dv,
            &s->q_narrow,    &s->do_narrow,     &s->q_wide,      &s->do_wide, &s->p,
            &s->ds,          &s->narrow,        &s->dq};
        for (size_t i = 0; i < 13; i++)
            *parts[i] = base + offsets[i];
    }
    return at;
}

/* Row of the batch that holds position p of a sequence. */
static size_t row_of(const job *j, size_t sequence, size_t p)
{
    const pgrad__attention_sequence *own = &j->sequences[sequence];
    const size_t n_prefix = pgrad__n_prefix(j->sequences, sequence);
    return p < n_prefix ? j->sequences[own->prefix - 1].first_row + p
                        : own->first_row + (p - n_prefix);
}

/* Packs keys and values of positions 0 .. n - 1, tile by tile; keys beyond are zero. dk and dv, not
 * yet in use, hold them one after another meanwhile. */
static void pack_keys(const job *j, const scratch *s, size_t sequence, size_t n, size_t kv_head)
{
    const pgrad__vector_ops *vec = j->kernels->vec;
    const size_t wide = j->kernels->wide, dim = j->shape->head_dim;
    for (size_t p = 0; p < n; p++) {
        const size_t from = row_of(j, sequence, p) * j->grads->ldkv + kv_head * dim;
        memcpy(s->dk + p * dim, j->grads->k + from, dim * sizeof(float));
        memcpy(s->dv + p * dim, j->grads->v + from, dim * sizeof(float));
    }
    for (size_t t = 0; t < n; t += TILE) {
        const size_t keys = pgrad__min(TILE, n - t);
        for (size_t i = 0; i < TILE; i += wide) {
            size_t lanes = i < keys ? pgrad__min(wide, keys - i) : 0;
            vec->pack_transposed(s->dk + (t + i) * dim, dim, lanes, dim, wide,
                                 s->keys_by_key + (t + i) * dim);
            vec->pack_transposed(s->dv + (t + i) * dim, dim, lanes, dim, wide,
                                 s->values_by_key + (t + i) * dim);
        }
        for (size_t d = 0; d < dim; d += wide) {
            float *panel = s->keys_by_dim + t * j->padded + d * TILE;
            vec->pack_straight(s->dk + t * dim + d, dim, pgrad__min(wide, dim - d), keys, wide,
                               panel);
            memset(panel + keys * wide, 0, (TILE - keys) * wide * sizeof(float));
        }
    }
}

/* Packs queries and dO of a block both ways. */
static void pack_queries(const job *j, scratch *s, size_t row, size_t n, size_t head)
{
    const pgrad__vector_ops *vec = j->kernels->vec;
    const pgrad__attention_grads *g = j->grads;
    const size_t wide = j->kernels->wide, dim = j->shape->head_dim;
    const float *q = g->q + row * g->ldq + head * dim, *d_o = g->d_o + row * g->ldo + head * dim;
    const float *o = g->o + row * g->ldo + head * dim;
    pgrad__pack_narrow(j->kernels, q, g->ldq, n, dim, s->q_narrow);
    pgrad__pack_narrow(j->kernels, d_o, g->ldo, n, dim, s->do_narrow);
    for (size_t d = 0; d < dim; d += wide) {
        size_t lanes = pgrad__min(wide, dim - d);
        vec->pack_straight(q + d, g->ldq, lanes, n, wide, s->q_wide + d * TILE);
        vec->pack_straight(d_o + d, g->ldo, lanes, n, wide, s->do_wide + d * TILE);
    }
    for (size_t i = 0; i < n; i++)
        s->delta[i] = vec->dot(d_o + i * g->ldo, o + i * g->ldo, dim);
}

/* C [TILE keys, padded] += X^T W, X [n, TILE] row-major, W wide panels over the n queries. */
static void add_transposed(const job *j, const scratch *s, const float *x, size_t n,
                           const float *wide_panels, float *c)
{
    const size_t narrow = j->kernels->narrow;
    for (size_t key = 0; key < TILE; key += narrow)
        j->kernels->vec->pack_straight(x + key, TILE, pgrad__min(narrow, TILE - key), n, narrow,
                                       s->narrow + key * n);
    pgrad__tile_product(j->kernels, TILE, j->padded, n, s->narrow, n, wide_panels, TILE, c,
                        j->padded, 1);
}

/* One block of n queries from position q0 on, which are rows from `row` on, against the tile of
 * keys from t on. */
static void one_tile(const job *j, const scratch *s, size_t row, size_t head, size_t q0, size_t n,
                     size_t t)
{
    const pgrad__vector_ops *vec = j->kernels->vec;
    const size_t dim = j->shape->head_dim;
    const float scale = j->shape->scale;
    pgrad__tile_product(j->kernels, n, TILE, dim, s->q_narrow, dim, s->keys_by_key + t * dim, dim,
                        s->p, TILE, 0);
    pgrad__tile_product(j->kernels, n, TILE, dim, s->do_narrow, dim, s->values_by_key + t * dim,
                        dim, s->ds, TILE, 0);
    for (size_t i = 0; i < n; i++) {
        size_t visible = pgrad__min(TILE, q0 + i - t + 1);
        vec->attention_row_recompute(s->p + i * TILE, visible, scale,
                                     j->grads->lse[(row + i) * j->shape->n_heads + head]);
        vec->attention_row_backward(s->p + i * TILE, s->ds + i * TILE, s->delta[i], scale);
    }
    add_transposed(j, s, s->p, n, s->do_wide, s->dv + t * j->padded);
    add_transposed(j, s, s->ds, n, s->q_wide, s->dk + t * j->padded);
    pgrad__pack_narrow(j->kernels, s->ds, TILE, n, TILE, s->narrow);
    pgrad__tile_product(j->kernels, n, j->padded, TILE, s->narrow, TILE,
                        s->keys_by_dim + t * j->padded, TILE, s->dq, j->padded, t > 0);
}

static void write_rows(const float *from, size_t padded, size_t n, size_t dim, float *to, size_t ld)
{
    for (size_t i = 0; i < n; i++)
        memcpy(to + i * ld, from + i * padded, dim * sizeof(float));
}

/* Where what `sequence` adds to its prefix is kept. */
static size_t prefix_offset(const job *j, size_t sequence)
{
    const size_t width = (size_t)j->shape->n_kv_heads * j->shape->head_dim;
    size_t floats = 0;
    for (size_t i = 0; i < sequence; i++)
        floats += 2 * pgrad__n_prefix(j->sequences, i) * width;
    return floats;
}

/* dK and dV of a task: to the batch's rows, those of a prefix aside. */
static void write_key_grads(const job *j, const scratch *s, size_t sequence, size_t kv_head)
{
    const pgrad__attention_grads *g = j->grads;
    const pgrad__attention_sequence *own = &j->sequences[sequence];
    const size_t n_prefix = pgrad__n_prefix(j->sequences, sequence), dim = j->shape->head_dim;
    const size_t width = j->shape->n_kv_heads * dim, at = kv_head * dim;
    float *aside = j->prefix_grads + prefix_offset(j, sequence);
    write_rows(s->dk, j->padded, n_prefix, dim, aside + at, width);
    write_rows(s->dv, j->padded, n_prefix, dim, aside + n_prefix * width + at, width);
    write_rows(s->dk + n_prefix * j->padded, j->padded, own->n_rows, dim,
               g->dk + own->first_row * g->lddkv + at, g->lddkv);
    write_rows(s->dv + n_prefix * j->padded, j->padded, own->n_rows, dim,
               g->dv + own->first_row * g->lddkv + at, g->lddkv);
}

static void backward_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const pgrad__attention_grads *g = j->grads;
    const size_t kv_heads = j->shape->n_kv_heads, kv_head = task % kv_heads;
    const size_t sequence = task / kv_heads, dim = j->shape->head_dim;
    const size_t n_prefix = pgrad__n_prefix(j->sequences, sequence);
    const size_t n = n_prefix + j->sequences[sequence].n_rows;
    const size_t heads = j->shape->n_heads / kv_heads;
    scratch s;
    (void)cut(j, j->scratch + worker * j->scratch_floats, &s);
    pack_keys(j, &s, sequence, n, kv_head);
    memset(s.dk, 0, pgrad__round_up(n, TILE) * j->padded * sizeof(float));
    memset(s.dv, 0, pgrad__round_up(n, TILE) * j->padded * sizeof(float));
    for (size_t head = kv_head * heads; head < (kv_head + 1) * heads; head++)
        for (size_t q0 = n_prefix, block; q0 < n; q0 += block) {
            const size_t row = row_of(j, sequence, q0);
            block = pgrad__min(TILE - q0 % TILE, n - q0);
            pack_queries(j, &s, row, block, head);
            for (size_t t = 0; t <= q0; t += TILE)
                one_tile(j, &s, row, head, q0, block, t);
            write_rows(s.dq, j->padded, block, dim, g->dq + row * g->lddq + head * dim, g->lddq);
        }
    write_key_grads(j, &s, sequence, kv_head);
}

/* Adds what was kept aside, the sequences in their order; a task is one row of a prefix. */
static void prefix_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const pgrad__attention_grads *g = j->grads;
    const size_t width = (size_t)j->shape->n_kv_heads * j->shape->head_dim;
    size_t sequence = 0, p = task;
    (void)worker;
    for (; p >= j->sequences[sequence].n_rows; sequence++)
        p -= j->sequences[sequence].n_rows;
    const size_t row = j->sequences[sequence].first_row + p;
    const size_t n_prefix = j->sequences[sequence].n_rows;
    const float *aside = j->prefix_grads;
    for (size_t i = 0; i < j->n_sequences; i++) {
        if (j->sequences[i].prefix == sequence + 1) {
            j->kernels->vec->add(aside + p * width, width, g->dk + row * g->lddkv);
            j->kernels->vec->add(aside + (n_prefix + p) * width, width, g->dv + row * g->lddkv);
        }
        aside += 2 * pgrad__n_prefix(j->sequences, i) * width;
    }
}

static job make_job(const pgrad__machine *machine, const pgrad__attention_shape *shape,
                    const pgrad__attention_sequence *sequences, size_t n_sequences)
{
    job j = {.kernels = machine->kernels,
             .shape = shape,
             .sequences = sequences,
             .n_sequences = n_sequences,
             .padded = pgrad__padded_dim(machine->kernels, shape->head_dim)};
    for (size_t i = 0; i < n_sequences; i++) {
        const size_t n = (size_t)pgrad__n_prefix(sequences, i) + sequences[i].n_rows;
        if (pgrad__panel_count(n, TILE) > j.max_tiles)
            j.max_tiles = pgrad__panel_count(n, TILE);
        j.n_rows += sequences[i].n_rows;
    }
    j.scratch_floats = cut(&j, NULL, NULL);
    return j;
}

size_t pgrad__attention_backward_scratch(const pgrad__machine *machine,
                                         const pgrad__attention_shape *shape,
                                         const pgrad__attention_sequence *sequences,
                                         size_t n_sequences)
{
    const job j = make_job(machine, shape, sequences, n_sequences);
    return machine->n_workers * j.scratch_floats + prefix_offset(&j, n_sequences);
}

pgrad_status pgrad__attention_backward(pgrad_context *context, pgrad__workspace *workspace,
                                       const pgrad__attention_shape *shape,
                                       const pgrad__attention_sequence *sequences,
                                       size_t n_sequences, const pgrad__attention_grads *grads)
{
    const pgrad__machine machine = pgrad__machine_of(context);
    job j = make_job(&machine, shape, sequences, n_sequences);
    if (j.max_tiles == 0)
        return PGRAD_OK;
    j.grads = grads;
    const size_t aside = prefix_offset(&j, n_sequences);
    PGRAD__TRY(pgrad__workspace_reserve(workspace, machine.n_workers * j.scratch_floats + aside,
                                        &j.scratch));
    j.prefix_grads = j.scratch + machine.n_workers * j.scratch_floats;
    pgrad__parallel(context, n_sequences * shape->n_kv_heads, backward_task, &j);
    if (aside > 0)
        pgrad__parallel(context, j.n_rows, prefix_task, &j);
    return PGRAD_OK;
}
