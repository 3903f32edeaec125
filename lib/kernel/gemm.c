/* Y[t, o] = sum_i X[t, i] W[o, i] + b[o]: the product of every forward pass.
 *
 * X is packed once, by all threads. A task is a chunk of weight panels times a block of rows: the
 * chunk stays in the second-level cache while the rows go past it. The order of a sum is that of
 * kernel.h whatever the tasks are. Narrow weights are widened, the chunk's panels of a block of k
 * at a time, into the worker's scratch; few rows widen them in registers. */
#include <string.h>

#include "base/fail.h"
#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum { CHUNK_PANELS = 8, BLOCK_ROWS = 240, TASKS_PER_THREAD = 4, FEW_ROWS_TASKS = 12 };

/* ---- packing the rows ---- */

typedef struct pack_job {
    const pgrad__kernels *kernels;
    const float *x;
    size_t ldx, n_rows, depth;
    float *packed;
} pack_job;

static void pack_task(void *argument, size_t task, uint32_t worker)
{
    const pack_job *job = argument;
    const size_t narrow = job->kernels->narrow, first = task * narrow;
    (void)worker;
    job->kernels->vec->pack_transposed(job->x + first * job->ldx, job->ldx,
                                       pgrad__min(narrow, job->n_rows - first), job->depth, narrow,
                                       job->packed + first * job->depth);
}

void pgrad__pack_rows(pgrad_context *context, const float *x, size_t ldx, size_t n_rows,
                      size_t depth, float *packed)
{
    pack_job job = {pgrad__kernels_of(context), x, ldx, n_rows, depth, packed};
    pgrad__parallel(context, pgrad__panel_count(n_rows, job.kernels->narrow), pack_task, &job);
}

/* ---- the product ---- */

typedef struct job {
    const pgrad__kernels *kernels;
    const float *x, *packed;
    size_t ldx, n_rows, depth;
    const pgrad__product *products;
    size_t n_products;
    size_t chunk;      /* panels of a task */
    size_t block_rows; /* rows of a task */
    size_t n_blocks;
    float *scratch; /* [worker][chunk][KC][wide], of narrow weights */
    size_t scratch_floats;
} job;

/* The part of a product a task computes. */
typedef struct part {
    const pgrad__product *product;
    size_t first_panel, n_panels, first_row, n_rows;
} part;

static size_t chunks_of(const job *j, const pgrad__product *product)
{
    return pgrad__panel_count(pgrad__panel_count(product->weight->n_out, j->kernels->wide),
                              j->chunk);
}

static part find_part(const job *j, size_t task)
{
    size_t chunk = task / j->n_blocks, block = task % j->n_blocks;
    const pgrad__product *product = j->products;
    while (chunk >= chunks_of(j, product))
        chunk -= chunks_of(j, product++);
    part p = {
        .product = product, .first_panel = chunk * j->chunk, .first_row = block * j->block_rows};
    size_t panels = pgrad__panel_count(product->weight->n_out, j->kernels->wide);
    p.n_panels = pgrad__min(j->chunk, panels - p.first_panel);
    p.n_rows = pgrad__min(j->block_rows, j->n_rows - p.first_row);
    return p;
}

static void add_bias(const job *j, const part *p)
{
    const pgrad__product *product = p->product;
    if (product->bias == NULL)
        return;
    size_t first = p->first_panel * j->kernels->wide;
    size_t n = pgrad__min(p->n_panels * j->kernels->wide, product->weight->n_out - first);
    for (size_t t = p->first_row; t < p->first_row + p->n_rows; t++)
        j->kernels->vec->add(product->bias + first, n, product->y + t * product->ldy + first);
}

/* Inputs k .. k + n_k - 1 of a part, whose panels lie `distance` floats apart. A few rows at the
 * end would be a narrow panel of mostly nothing: they go past the whole panels unpacked. */
static void multiply_block(const job *j, const part *p, size_t k, size_t n_k, const float *panels,
                           size_t distance)
{
    const size_t wide = j->kernels->wide, narrow = j->kernels->narrow, ldy = p->product->ldy;
    const size_t n_out = p->product->weight->n_out - p->first_panel * wide;
    const size_t few = p->n_rows % narrow <= j->kernels->rows_max ? p->n_rows % narrow : 0;
    const size_t whole = few == 0 ? 0 : pgrad__min(p->n_panels, n_out / wide);
    const int accumulate = k > 0 || p->product->accumulate;
    float *y = p->product->y + p->first_panel * wide;
    for (size_t t = 0; t < p->n_rows; t += narrow) {
        const size_t rows = pgrad__min(narrow, p->n_rows - t);
        const float *x = j->packed + (p->first_row + t) * j->depth + k * narrow;
        float *y_row = y + (p->first_row + t) * ldy;
        const size_t first = rows == few ? whole : 0;
        for (size_t i = first; i < p->n_panels; i++)
            pgrad__tile(j->kernels, n_k, x, panels + i * distance, y_row + i * wide, ldy, rows,
                        pgrad__min(wide, n_out - i * wide), accumulate);
        if (first > 0)
            j->kernels->rows[PGRAD_STORAGE_F32](rows, n_k, j->x + (p->first_row + t) * j->ldx + k,
                                                j->ldx, panels, distance * sizeof(float), first,
                                                y_row, ldy, accumulate);
    }
}

static void panel_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const part p = find_part(j, task);
    const size_t wide = j->kernels->wide, depth = j->depth;
    const pgrad__matrix *weight = p.product->weight;
    float *scratch = j->scratch + worker * j->scratch_floats;
    for (size_t k = 0; k < depth; k += PGRAD__KC) {
        size_t n_k = pgrad__min(PGRAD__KC, depth - k);
        const float *panels = (const float *)weight->data + (p.first_panel * depth + k) * wide;
        size_t distance = depth * wide;
        if (weight->storage != PGRAD_STORAGE_F32) {
            distance = PGRAD__KC * wide;
            for (size_t i = 0; i < p.n_panels; i++)
                pgrad__widen(j->kernels, weight, p.first_panel + i, k, n_k, scratch + i * distance);
            panels = scratch;
        }
        multiply_block(j, &p, k, n_k, panels, distance);
    }
    add_bias(j, &p);
}

/* Few rows: every panel is read once and nothing is packed. */
static void row_panels(const job *j, const pgrad__product *product, size_t panel, size_t n_panels,
                       float *c, size_t ldc)
{
    const uint32_t storage = product->weight->storage;
    const size_t bytes = pgrad__panel_bytes(j->kernels, storage, product->weight->n_in);
    const size_t block_bytes = pgrad__panel_bytes(j->kernels, storage, PGRAD__KC);
    const unsigned char *data = (const unsigned char *)product->weight->data + panel * bytes;
    for (size_t k = 0; k < j->depth; k += PGRAD__KC, data += block_bytes)
        j->kernels->rows[storage](j->n_rows, pgrad__min(PGRAD__KC, j->depth - k), j->x + k, j->ldx,
                                  data, bytes, n_panels, c, ldc, k > 0 || product->accumulate);
}

/* The last panel, through a tile of full size. */
static void row_edge(const job *j, const pgrad__product *product, size_t panel)
{
    const size_t wide = j->kernels->wide, cols = product->weight->n_out - panel * wide;
    _Alignas(64) float tile[PGRAD__MAX_NARROW * PGRAD__MAX_WIDE];
    float *y = product->y + panel * wide;
    for (size_t t = 0; product->accumulate && t < j->n_rows; t++)
        memcpy(tile + t * wide, y + t * product->ldy, cols * sizeof(float));
    row_panels(j, product, panel, 1, tile, wide);
    for (size_t t = 0; t < j->n_rows; t++)
        memcpy(y + t * product->ldy, tile + t * wide, cols * sizeof(float));
}

static void row_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const part p = find_part(j, task);
    (void)worker;
    const size_t wide = j->kernels->wide;
    const size_t whole = pgrad__min(p.n_panels, p.product->weight->n_out / wide - p.first_panel);
    row_panels(j, p.product, p.first_panel, whole, p.product->y + p.first_panel * wide,
               p.product->ldy);
    if (whole < p.n_panels)
        row_edge(j, p.product, p.first_panel + whole);
    add_bias(j, &p);
}

static size_t count_tasks(const job *j)
{
    size_t chunks = 0;
    for (size_t i = 0; i < j->n_products; i++)
        chunks += chunks_of(j, &j->products[i]);
    return chunks * j->n_blocks;
}

/* Chunks as large as the cache likes them, smaller where that leaves threads without work. Few rows
 * use a weight once: there only an even end counts. */
static void choose_tasks(job *j, const pgrad__machine *machine)
{
    size_t threads = machine->n_workers - 1;
    j->block_rows = j->n_rows <= BLOCK_ROWS + BLOCK_ROWS / 2
                        ? pgrad__round_up(j->n_rows, j->kernels->narrow)
                        : BLOCK_ROWS;
    j->n_blocks = pgrad__panel_count(j->n_rows, j->block_rows);
    j->chunk = CHUNK_PANELS;
    const size_t tasks = j->n_rows <= j->kernels->rows_max ? FEW_ROWS_TASKS : TASKS_PER_THREAD;
    while (j->chunk > 1 && count_tasks(j) < tasks * threads)
        j->chunk /= 2;
}

static job make_job(const pgrad__machine *machine, size_t n_rows, const pgrad__product *products,
                    size_t n_products)
{
    job j = {.kernels = machine->kernels,
             .n_rows = n_rows,
             .depth = products[0].weight->n_in,
             .products = products,
             .n_products = n_products};
    choose_tasks(&j, machine);
    for (size_t i = 0; i < n_products; i++)
        if (products[i].weight->storage != PGRAD_STORAGE_F32)
            j.scratch_floats = j.chunk * PGRAD__KC * j.kernels->wide + PGRAD__SLACK;
    return j;
}

static size_t packed_floats(const job *j)
{
    const size_t rows = pgrad__round_up(j->n_rows, j->kernels->narrow);
    return pgrad__round_up(rows * j->depth + PGRAD__SLACK, 16);
}

size_t pgrad__matmul_scratch(const pgrad__machine *machine, size_t n_rows,
                             const pgrad__product *products, size_t n_products)
{
    if (n_rows <= machine->kernels->rows_max)
        return 0;
    const job j = make_job(machine, n_rows, products, n_products);
    return packed_floats(&j) + machine->n_workers * j.scratch_floats;
}

pgrad_status pgrad__matmul(pgrad_context *context, pgrad__workspace *workspace, const float *x,
                           size_t ldx, size_t n_rows, const pgrad__product *products,
                           size_t n_products)
{
    const pgrad__machine machine = pgrad__machine_of(context);
    float *packed;
    if (n_rows == 0)
        return PGRAD_OK;
    job j = make_job(&machine, n_rows, products, n_products);
    j.x = x;
    j.ldx = ldx;
    if (n_rows <= j.kernels->rows_max) {
        pgrad__parallel(context, count_tasks(&j), row_task, &j);
        return PGRAD_OK;
    }
    PGRAD__TRY(pgrad__workspace_reserve(
        workspace, pgrad__matmul_scratch(&machine, n_rows, products, n_products), &packed));
    pgrad__pack_rows(context, x, ldx, n_rows, j.depth, packed);
    j.packed = packed;
    j.scratch = packed + packed_floats(&j);
    pgrad__parallel(context, count_tasks(&j), panel_task, &j);
    return PGRAD_OK;
}
