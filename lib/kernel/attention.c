/* Attention forward: one code for prefill, decode and training.
 *
 * A task is one kv head and some query rows: rows of one span, or of several spans that share their
 * first pages. The g = H / n_kv_heads query heads of the kv head lie one after another for each
 * row, so that a tile of keys is read once for all of them. What a row computes depends on its own
 * q, position and pages alone.
 *
 * Where every span is part of one task, the task stores the span's keys and values itself: they are
 * then in the cache of the core that reads them. Storing a key touches a line for each of its
 * elements, and each of those would have to be fetched from the other core (decoding 64 sequences
 * of GPT-2 124M: 5 % of a step). */
#include "kernel/attention.h"

#include <math.h>
#include <string.h>

#include "base/fail.h"
#include "base/pool.h"
#include "base/real.h"

enum {
    TILE = PGRAD__KEY_TILE,
    BLOCK_ROWS = 48, /* query rows of a task of one span; a multiple of every narrow side */
    GROUP_ROWS = 4 * BLOCK_ROWS /* of a task of several spans, at most */
};

size_t pgrad__kv_block_floats(const pgrad__kernels *kernels, uint32_t head_dim)
{
    return pgrad__round_up((size_t)TILE * head_dim + TILE * pgrad__padded_dim(kernels, head_dim),
                           16);
}

size_t pgrad__kv_element_bytes(uint32_t kv_storage)
{
    return kv_storage == PGRAD_KV_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* ---- storing keys and values ---- */

typedef struct store_job {
    const pgrad__kernels *kernels;
    const pgrad__attention_shape *shape;
    const pgrad__kv_rows *rows;
} store_job;

/* n values as pages have them: themselves, or what they are narrowed to, in `narrow`. */
static const void *stored(const store_job *job, const float *x, size_t n, uint16_t *narrow)
{
    if (job->shape->kv_storage == PGRAD_KV_F32)
        return x;
    if (job->shape->kv_storage == PGRAD_KV_F16)
        job->kernels->vec->f16_narrow(x, n, narrow);
    else
        job->kernels->vec->bf16_narrow(x, n, narrow);
    return narrow;
}

static void scatter(const unsigned char *from, size_t n, const size_t bytes, size_t stride,
                    unsigned char *to)
{
    for (size_t i = 0; i < n; i++)
        memcpy(to + i * stride * bytes, from + i * bytes, bytes);
}

/* The rows of a run, for one kv head. */
static void store_run(const store_job *job, const pgrad__kv_run *run, size_t head)
{
    const size_t wide = job->kernels->wide, head_dim = job->shape->head_dim;
    const size_t bytes = pgrad__kv_element_bytes(job->shape->kv_storage);
    const size_t block = pgrad__kv_block_floats(job->kernels, job->shape->head_dim) * bytes;
    for (size_t row = 0; row < run->n_rows; row++) {
        const size_t position = run->first_position + row, slot = position % TILE;
        const size_t from = (run->first_row + row) * job->rows->ldkv + head * head_dim;
        unsigned char *page = run->pages[position / TILE] + head * block;
        unsigned char *keys = page + (slot / wide * head_dim * wide + slot % wide) * bytes;
        unsigned char *values = page + (TILE * head_dim + slot * wide) * bytes;
        for (size_t d = 0; d < head_dim; d += wide) {
            const size_t n = pgrad__min(wide, head_dim - d);
            uint16_t narrow[PGRAD__MAX_WIDE];
            const void *k = stored(job, job->rows->k + from + d, n, narrow);
            if (bytes == sizeof(float))
                scatter(k, n, sizeof(float), wide, keys + d * wide * bytes);
            else
                scatter(k, n, sizeof(uint16_t), wide, keys + d * wide * bytes);
            memcpy(values + d * TILE * bytes, stored(job, job->rows->v + from + d, n, narrow),
                   n * bytes);
        }
    }
}

static void store_task(void *argument, size_t task, uint32_t worker)
{
    const store_job *job = argument;
    const size_t kv_heads = job->shape->n_kv_heads;
    (void)worker;
    store_run(job, &job->rows->runs[task / kv_heads], task % kv_heads);
}

void pgrad__kv_store(pgrad_context *context, const pgrad__attention_shape *shape,
                     const pgrad__kv_rows *rows)
{
    store_job job = {pgrad__kernels_of(context), shape, rows};
    pgrad__parallel(context, rows->n_runs * shape->n_kv_heads, store_task, &job);
}

/* ---- forward ---- */

typedef struct job {
    const pgrad__kernels *kernels;
    const pgrad__attention_shape *shape;
    const float *q;
    size_t ldq;
    const pgrad__attention_span *spans;
    size_t n_spans;
    float *o;
    size_t ldo;
    float *lse;
    size_t group_heads; /* g */
    size_t max_rows;    /* virtual rows of the largest task */
    float *scratch;
    size_t scratch_floats;
    const store_job *fresh; /* stored by the task that reads it; NULL: nothing */
} job;

/* A worker's scratch for a task of n virtual rows; virtual row v is query row v / g, head v % g. */
typedef struct rows {
    size_t n;
    float *q;        /* [n, head_dim] */
    float *packed_q; /* the same in narrow panels */
    float *s;        /* [n, TILE] */
    float *packed_s;
    float *tile;  /* [n, padded] P.V of one tile */
    float *sum;   /* [n, padded] o */
    float *m, *l; /* [n] */
    float *wide;  /* [TILE, padded] keys or values of a tile, where pages are narrower than f32 */
} rows;

static size_t scratch_floats(const job *j)
{
    const size_t n = pgrad__round_up(pgrad__round_up(j->max_rows, j->kernels->narrow), 16);
    const size_t padded = pgrad__padded_dim(j->kernels, j->shape->head_dim);
    return n * (2 * pgrad__round_up(j->shape->head_dim, 16) + 2 * TILE + 2 * padded + 2) +
           (j->shape->kv_storage == PGRAD_KV_F32 ? 0 : TILE * padded) + 9 * PGRAD__SLACK;
}

static rows cut_scratch(const job *j, uint32_t worker, size_t n_rows)
{
    const size_t n = pgrad__round_up(pgrad__round_up(j->max_rows, j->kernels->narrow), 16);
    const size_t padded = pgrad__padded_dim(j->kernels, j->shape->head_dim);
    const size_t dim = n * pgrad__round_up(j->shape->head_dim, 16);
    rows r = {.n = n_rows, .q = j->scratch + worker * j->scratch_floats};
    r.packed_q = r.q + dim + PGRAD__SLACK;
    r.s = r.packed_q + dim + PGRAD__SLACK;
    r.packed_s = r.s + n * TILE + PGRAD__SLACK;
    r.tile = r.packed_s + n * TILE + PGRAD__SLACK;
    r.sum = r.tile + n * padded + PGRAD__SLACK;
    r.m = r.sum + n * padded + PGRAD__SLACK;
    r.l = r.m + n;
    r.wide = r.l + n + PGRAD__SLACK;
    return r;
}

/* C [v0 .. v1, cols] = rows v0 .. v1 of x [n, depth] of ldx floats times wide panels of `stride`
 * rows. Few rows go unpacked. */
static void multiply(const job *j, size_t v0, size_t v1, size_t depth, const float *x, size_t ldx,
                     const float *packed, const float *wide_panels, size_t stride, size_t cols,
                     float *c, size_t ldc)
{
    const size_t wide = j->kernels->wide, narrow = j->kernels->narrow;
    if (v1 - v0 <= j->kernels->rows_max) {
        for (size_t k = 0; k < depth; k += PGRAD__KC)
            j->kernels->rows[PGRAD_STORAGE_F32](v1 - v0, pgrad__min(PGRAD__KC, depth - k),
                                                x + v0 * ldx + k, ldx, wide_panels + k * wide,
                                                stride * wide * sizeof(float), cols / wide,
                                                c + v0 * ldc, ldc, k > 0);
        return;
    }
    const size_t first = v0 / narrow * narrow; /* rows in front are computed and not used */
    pgrad__tile_product(j->kernels, pgrad__round_up(v1 - first, narrow), cols, depth,
                        packed + first * depth, depth, wide_panels, stride, c + first * ldc, ldc,
                        0);
}

/* n elements of each of some panels of a page, `stride` apart: as they are, or widened to the same
 * places of the scratch. */
static const float *widened(const job *j, const rows *r, const unsigned char *panels,
                            size_t n_panels, size_t stride, size_t n)
{
    if (j->shape->kv_storage == PGRAD_KV_F32)
        return (const float *)(const void *)panels;
    for (size_t i = 0; i < n_panels; i++) {
        const void *from = panels + i * stride * sizeof(uint16_t);
        if (j->shape->kv_storage == PGRAD_KV_F16)
            j->kernels->vec->f16_widen(from, n, r->wide + i * stride);
        else
            j->kernels->vec->bf16_widen(from, n, r->wide + i * stride);
    }
    return r->wide;
}

/* The keys of a tile that the last of rows v0 .. v1 sees. */
static size_t seen_of(const job *j, size_t v0, size_t v1, const size_t *visible)
{
    size_t seen = 0;
    for (size_t i = v0 / j->group_heads; i <= (v1 - 1) / j->group_heads; i++)
        seen = visible[i] > seen ? visible[i] : seen;
    return seen;
}

/* One tile of keys for virtual rows v0 .. v1: S, softmax, P.V. What no row sees is left out: its
 * probability is zero, and a sum that begins with +0 keeps its bits when a zero is added. */
static void add_tile(const job *j, const rows *r, const unsigned char *page, size_t kv_head,
                     size_t v0, size_t v1, const size_t *visible)
{
    const pgrad__vector_ops *vec = j->kernels->vec;
    const size_t head_dim = j->shape->head_dim,
                 padded = pgrad__padded_dim(j->kernels, j->shape->head_dim);
    const size_t bytes = pgrad__kv_element_bytes(j->shape->kv_storage);
    const size_t block = pgrad__kv_block_floats(j->kernels, j->shape->head_dim);
    const unsigned char *keys = page + kv_head * block * bytes;
    const unsigned char *values = keys + TILE * head_dim * bytes;
    const size_t seen = seen_of(j, v0, v1, visible);
    const size_t wide = j->kernels->wide, key_panels = pgrad__panel_count(seen, wide);
    multiply(j, v0, v1, head_dim, r->q, head_dim, r->packed_q,
             widened(j, r, keys, key_panels, head_dim * wide, head_dim * wide), head_dim,
             key_panels * wide, r->s, TILE);
    for (size_t v = v0; v < v1; v++) {
        float factor;
        vec->attention_row(r->s + v * TILE, visible[v / j->group_heads], j->shape->scale, r->m + v,
                           r->l + v, &factor);
        vec->scale(factor, head_dim, r->sum + v * padded);
    }
    if (v1 - v0 > j->kernels->rows_max) {
        size_t first = v0 / j->kernels->narrow * j->kernels->narrow;
        pgrad__pack_narrow(j->kernels, r->s + first * TILE, TILE, v1 - first, seen,
                           r->packed_s + first * seen);
    }
    multiply(j, v0, v1, seen, r->s, TILE, r->packed_s,
             widened(j, r, values, padded / wide, TILE * wide, seen * wide), TILE, padded, r->tile,
             padded);
    for (size_t v = v0; v < v1; v++)
        vec->add(r->tile + v * padded, head_dim, r->sum + v * padded);
}

/* The query rows of a task: rows [first, end) counted over the spans [span, span_end). */
typedef struct task_rows {
    size_t span, span_end, kv_head, first, end;
} task_rows;

static void gather_queries(const job *j, const task_rows *t, rows *r)
{
    const size_t g = j->group_heads, head_dim = j->shape->head_dim;
    size_t counted = 0, v = 0;
    for (size_t span = t->span; span < t->span_end; span++)
        for (uint32_t row = 0; row < j->spans[span].n_rows; row++, counted++) {
            if (counted < t->first || counted >= t->end)
                continue;
            memcpy(r->q + v * head_dim,
                   j->q + (j->spans[span].first_row + row) * j->ldq + t->kv_head * g * head_dim,
                   g * head_dim * sizeof(float));
            v += g;
        }
    if (v > j->kernels->rows_max)
        pgrad__pack_narrow(j->kernels, r->q, head_dim, v, head_dim, r->packed_q);
    const size_t padded = pgrad__padded_dim(j->kernels, j->shape->head_dim);
    memset(r->sum, 0, v * padded * sizeof(float));
    for (size_t i = 0; i < v; i++) {
        r->m[i] = -INFINITY;
        r->l[i] = 0.0f;
    }
}

/* The span's own pages, for its rows [row, row_end) of this task, which are virtual rows from v on.
 */
static void attend_span(const job *j, const rows *r, const task_rows *t,
                        const pgrad__attention_span *span, size_t row, size_t row_end, size_t v,
                        size_t *visible)
{
    const size_t g = j->group_heads, first = span->first_position + row;
    const size_t last = span->first_position + row_end - 1, first_index = v / g;
    for (size_t page = span->n_shared_pages; page * TILE <= last; page++) {
        size_t start =
            page * TILE > first ? page * TILE - first : 0; /* rows before see none of it */
        for (size_t i = start; i < row_end - row; i++)
            visible[first_index + i] = pgrad__min(TILE, first + i - page * TILE + 1);
        add_tile(j, r, span->pages[page], t->kv_head, v + start * g, v + (row_end - row) * g,
                 visible);
    }
}

static void write_outputs(const job *j, const rows *r, const task_rows *t,
                          const pgrad__attention_span *span, size_t row, size_t row_end, size_t v)
{
    const size_t g = j->group_heads, head_dim = j->shape->head_dim;
    const size_t padded = pgrad__padded_dim(j->kernels, j->shape->head_dim);
    for (size_t i = row; i < row_end; i++)
        for (size_t h = 0; h < g; h++, v++) {
            const size_t at = span->first_row + i, head = t->kv_head * g + h;
            const float inverse = 1.0f / r->l[v];
            float *o = j->o + at * j->ldo + head * head_dim;
            for (size_t d = 0; d < head_dim; d++)
                o[d] = r->sum[v * padded + d] * inverse;
            if (j->lse != NULL)
                j->lse[at * j->shape->n_heads + head] =
                    (float)((double)r->m[v] + pgrad__log((double)r->l[v]));
        }
}

static void attend(const job *j, const task_rows *t, uint32_t worker)
{
    const size_t g = j->group_heads;
    size_t visible[GROUP_ROWS], counted = 0, v = 0;
    rows r = cut_scratch(j, worker, (t->end - t->first) * g);
    gather_queries(j, t, &r);
    if (j->spans[t->span].group != 0 && t->span_end - t->span > 1) {
        for (size_t i = 0; i < t->end - t->first; i++)
            visible[i] = TILE;
        for (uint32_t page = 0; page < j->spans[t->span].n_shared_pages; page++)
            add_tile(j, &r, j->spans[t->span].pages[page], t->kv_head, 0, r.n, visible);
    }
    for (size_t s = t->span; s < t->span_end; s++) {
        pgrad__attention_span span = j->spans[s];
        const size_t begin = counted, end = begin + span.n_rows;
        const size_t from = begin > t->first ? begin : t->first, to = pgrad__min(end, t->end);
        counted = end;
        if (from >= to) /* none of its rows are the task's */
            continue;
        const size_t row = from - begin, row_end = to - begin;
        if (t->span_end - t->span == 1)
            span.n_shared_pages = 0; /* alone: all pages are its own */
        attend_span(j, &r, t, &span, row, row_end, v, visible);
        write_outputs(j, &r, t, &span, row, row_end, v);
        v += (row_end - row) * g;
    }
}

/* ---- tasks ---- */

/* The spans that are computed together from `span` on: a group, while its rows fit a task. */
static size_t batch_end(const job *j, size_t span)
{
    size_t end = span + 1, n = j->spans[span].n_rows;
    if (j->spans[span].group == 0 || j->spans[span].n_shared_pages == 0)
        return end;
    while (end < j->n_spans && j->spans[end].group == j->spans[span].group &&
           n + j->spans[end].n_rows <= GROUP_ROWS)
        n += j->spans[end++].n_rows;
    return end;
}

static size_t batch_rows(const job *j, size_t span, size_t end)
{
    size_t n = 0;
    for (; span < end; span++)
        n += j->spans[span].n_rows;
    return n;
}

/* Query rows of a task: a whole group, or a block of a single span. */
static size_t block_of(size_t span, size_t end, size_t n)
{
    return end - span > 1 ? n : BLOCK_ROWS;
}

/* Task numbers run over batches, blocks, kv heads; a walk over the spans finds one. */
static void attention_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t kv_heads = j->shape->n_kv_heads;
    size_t block = task / kv_heads;
    for (size_t span = 0; span < j->n_spans;) {
        size_t end = batch_end(j, span), n = batch_rows(j, span, end),
               size = block_of(span, end, n);
        size_t blocks = pgrad__panel_count(n, size);
        if (block < blocks) {
            task_rows t = {span, end, task % kv_heads, block * size,
                           pgrad__min(n, (block + 1) * size)};
            for (size_t i = span; j->fresh != NULL && i < end; i++)
                store_run(j->fresh, &j->fresh->rows->runs[i], t.kv_head);
            attend(j, &t, worker);
            return;
        }
        block -= blocks;
        span = end;
    }
}

/* Sets max_rows; returns how many blocks of rows there are. */
static size_t plan_tasks(job *j)
{
    size_t blocks = 0;
    for (size_t span = 0; span < j->n_spans;) {
        size_t end = batch_end(j, span), n = batch_rows(j, span, end),
               size = block_of(span, end, n);
        blocks += pgrad__panel_count(n, size);
        if (pgrad__min(n, size) * j->group_heads > j->max_rows)
            j->max_rows = pgrad__min(n, size) * j->group_heads;
        span = end;
    }
    j->scratch_floats = pgrad__round_up(scratch_floats(j), 16);
    return blocks;
}

static job make_job(const pgrad__machine *machine, const pgrad__attention_shape *shape,
                    const pgrad__attention_span *spans, size_t n_spans)
{
    return (job){.kernels = machine->kernels,
                 .shape = shape,
                 .spans = spans,
                 .n_spans = n_spans,
                 .group_heads = shape->n_heads / shape->n_kv_heads};
}

size_t pgrad__attention_forward_scratch(const pgrad__machine *machine,
                                        const pgrad__attention_shape *shape,
                                        const pgrad__attention_span *spans, size_t n_spans)
{
    job j = make_job(machine, shape, spans, n_spans);
    return plan_tasks(&j) == 0 ? 0 : machine->n_workers * j.scratch_floats;
}

/* 1 when nobody but a span's own task reads what its run writes: no run fills a page. */
static int are_apart(const job *j, const pgrad__kv_rows *fresh)
{
    _Static_assert(BLOCK_ROWS < TILE, "a span of one task fills no page");
    size_t most = 0;
    for (size_t i = 0; i < j->n_spans; i++)
        most = j->spans[i].n_rows > most ? j->spans[i].n_rows : most;
    return fresh->n_runs == j->n_spans && most <= BLOCK_ROWS;
}

pgrad_status pgrad__attention_forward(pgrad_context *context, pgrad__workspace *workspace,
                                      const pgrad__attention_shape *shape,
                                      const pgrad__kv_rows *fresh, const float *q, size_t ldq,
                                      const pgrad__attention_span *spans, size_t n_spans, float *o,
                                      size_t ldo, float *lse)
{
    const pgrad__machine machine = pgrad__machine_of(context);
    const store_job store = {machine.kernels, shape, fresh};
    job j = make_job(&machine, shape, spans, n_spans);
    j.q = q;
    j.ldq = ldq;
    j.o = o;
    j.ldo = ldo;
    j.lse = lse;
    const size_t blocks = plan_tasks(&j);
    if (blocks == 0)
        return PGRAD_OK;
    PGRAD__TRY(
        pgrad__workspace_reserve(workspace, machine.n_workers * j.scratch_floats, &j.scratch));
    if (fresh != NULL && are_apart(&j, fresh))
        j.fresh = &store;
    else if (fresh != NULL)
        pgrad__kv_store(context, shape, fresh);
    pgrad__parallel(context, blocks * shape->n_kv_heads, attention_task, &j);
    return PGRAD_OK;
}
