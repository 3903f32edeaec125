/* The two products of every backward pass, and the bias's sum. */
#include <string.h>

#include "base/fail.h"
#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum {
    CHUNK_PANELS = 4,
    TASKS_PER_THREAD = 4,
    SUPER_BLOCK = 16 * PGRAD__KC /* outputs of dY that are packed at a time */
};

/* Panels of a task: as many as the cache likes, fewer where that leaves threads without work. */
static size_t choose_chunk(const pgrad__machine *machine, size_t n_panels)
{
    size_t threads = machine->n_workers - 1, chunk = CHUNK_PANELS;
    while (chunk > 1 && pgrad__panel_count(n_panels, chunk) < TASKS_PER_THREAD * threads)
        chunk /= 2;
    return chunk;
}

/* Of a worker: strips of a chunk's panels. */
static size_t strip_floats(const pgrad__machine *machine, size_t chunk)
{
    return chunk * PGRAD__KC * machine->kernels->wide + PGRAD__SLACK;
}

/* ---- dX[t, i] = sum_o dY[t, o] W[o, i] ----
 * The wide side is i: W's panels are transposed, a strip at a time, into the worker's scratch. */

typedef struct input_job {
    const pgrad__kernels *kernels;
    const pgrad__matrix *weight;
    const float *packed; /* dY[:, first_out ..], [panel][n_out][narrow] */
    size_t first_out, n_out, n_rows;
    float *dx;
    size_t ldx, chunk;
    int accumulate;
    float *scratch; /* [worker][chunk][KC][wide] */
    size_t scratch_floats;
} input_job;

/* W[o .. o + n_k, i .. i + wide] as a wide panel over o. o is a multiple of KC, so of the panel
 * width. */
static void transpose_strip(const input_job *job, size_t o, size_t n_k, size_t i, float *strip)
{
    const size_t wide = job->kernels->wide, n_in = job->weight->n_in;
    const size_t cols = pgrad__min(wide, n_in - i);
    for (size_t k = 0; k < n_k;) {
        size_t panel = (o + k) / wide, lane = (o + k) % wide;
        size_t lanes = pgrad__min(wide - lane, n_k - k);
        float widened[PGRAD__MAX_WIDE * PGRAD__MAX_WIDE];
        const float *rows = (const float *)job->weight->data + (panel * n_in + i) * wide;
        if (job->weight->storage != PGRAD_STORAGE_F32) {
            pgrad__widen(job->kernels, job->weight, panel, i, cols, widened);
            rows = widened;
        }
        job->kernels->vec->pack_transposed(rows + lane, wide, cols, lanes, wide, strip + k * wide);
        k += lanes;
    }
}

static void input_task(void *argument, size_t task, uint32_t worker)
{
    const input_job *job = argument;
    const size_t wide = job->kernels->wide, narrow = job->kernels->narrow, n_in = job->weight->n_in;
    const size_t first = task * job->chunk * wide;
    const size_t end = pgrad__min(first + job->chunk * wide, n_in);
    float *scratch = job->scratch + worker * job->scratch_floats;
    for (size_t k = 0; k < job->n_out; k += PGRAD__KC) {
        size_t n_k = pgrad__min(PGRAD__KC, job->n_out - k);
        int accumulate = job->first_out + k > 0 || job->accumulate;
        for (size_t i = first, strip = 0; i < end; i += wide, strip++)
            transpose_strip(job, job->first_out + k, n_k, i, scratch + strip * PGRAD__KC * wide);
        for (size_t t = 0; t < job->n_rows; t += narrow)
            for (size_t i = first, strip = 0; i < end; i += wide, strip++)
                pgrad__tile(job->kernels, n_k, job->packed + t * job->n_out + k * narrow,
                            scratch + strip * PGRAD__KC * wide, job->dx + t * job->ldx + i,
                            job->ldx, pgrad__min(narrow, job->n_rows - t),
                            pgrad__min(wide, n_in - i), accumulate);
    }
}

static size_t packed_outputs(const pgrad__machine *machine, size_t n_rows, size_t n_out)
{
    const size_t rows = pgrad__round_up(n_rows, machine->kernels->narrow);
    return pgrad__round_up(rows * pgrad__min(n_out, SUPER_BLOCK) + PGRAD__SLACK, 16);
}

size_t pgrad__matmul_grad_input_scratch(const pgrad__machine *machine, size_t n_rows,
                                        const pgrad__matrix *weight)
{
    const size_t n_panels = pgrad__panel_count(weight->n_in, machine->kernels->wide);
    return packed_outputs(machine, n_rows, weight->n_out) +
           machine->n_workers * strip_floats(machine, choose_chunk(machine, n_panels));
}

pgrad_status pgrad__matmul_grad_input(pgrad_context *context, pgrad__workspace *workspace,
                                      const float *dy, size_t ldy, size_t n_rows,
                                      const pgrad__matrix *weight, float *dx, size_t ldx,
                                      int accumulate)
{
    const pgrad__machine machine = pgrad__machine_of(context);
    float *data;
    if (n_rows == 0)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__workspace_reserve(
        workspace, pgrad__matmul_grad_input_scratch(&machine, n_rows, weight), &data));
    const size_t n_panels = pgrad__panel_count(weight->n_in, machine.kernels->wide);
    const size_t chunk = choose_chunk(&machine, n_panels);
    input_job job = {.kernels = machine.kernels,
                     .weight = weight,
                     .packed = data,
                     .n_rows = n_rows,
                     .dx = dx,
                     .ldx = ldx,
                     .chunk = chunk,
                     .accumulate = accumulate,
                     .scratch = data + packed_outputs(&machine, n_rows, weight->n_out),
                     .scratch_floats = strip_floats(&machine, chunk)};
    for (size_t o = 0; o < weight->n_out; o += SUPER_BLOCK) {
        job.first_out = o;
        job.n_out = pgrad__min(SUPER_BLOCK, weight->n_out - o);
        pgrad__pack_rows(context, dy + o, ldy, n_rows, job.n_out, data);
        pgrad__parallel(context, pgrad__panel_count(n_panels, job.chunk), input_task, &job);
    }
    return PGRAD_OK;
}

/* ---- dW[o, i] += sum_t dY[t, o] X[t, i] ----
 * The wide side is o, the narrow one i; tiles are added straight into the panels of dW. X is packed
 * once; each task packs the strips of dY it needs. */

typedef struct weight_job {
    const pgrad__kernels *kernels;
    const float *dy;
    size_t ldy, n_rows;
    const float *x;
    size_t ldx;
    float *packed; /* x in [block of KC rows][narrow panel][rows][narrow] */
    pgrad__matrix *d_weight;
    size_t chunk;
    float *scratch;
    size_t scratch_floats;
} weight_job;

static void pack_columns_task(void *argument, size_t task, uint32_t worker)
{
    const weight_job *job = argument;
    const size_t narrow = job->kernels->narrow, n_in = job->d_weight->n_in;
    const size_t panels = pgrad__panel_count(n_in, narrow);
    const size_t t = task / panels * PGRAD__KC, i = task % panels * narrow;
    const size_t n_t = pgrad__min(PGRAD__KC, job->n_rows - t);
    (void)worker;
    job->kernels->vec->pack_straight(job->x + t * job->ldx + i, job->ldx,
                                     pgrad__min(narrow, n_in - i), n_t, narrow,
                                     job->packed + t * panels * narrow + i * n_t);
}

static void weight_task(void *argument, size_t task, uint32_t worker)
{
    const weight_job *job = argument;
    const size_t wide = job->kernels->wide, narrow = job->kernels->narrow;
    const size_t n_in = job->d_weight->n_in, n_out = job->d_weight->n_out;
    const size_t panels = pgrad__panel_count(n_in, narrow);
    const size_t first = task * job->chunk * wide,
                 end = pgrad__min(first + job->chunk * wide, n_out);
    float *scratch = job->scratch + worker * job->scratch_floats;
    for (size_t t = 0; t < job->n_rows; t += PGRAD__KC) {
        size_t n_t = pgrad__min(PGRAD__KC, job->n_rows - t);
        for (size_t o = first, strip = 0; o < end; o += wide, strip++)
            job->kernels->vec->pack_straight(job->dy + t * job->ldy + o, job->ldy,
                                             pgrad__min(wide, n_out - o), n_t, wide,
                                             scratch + strip * PGRAD__KC * wide);
        for (size_t i = 0; i < n_in; i += narrow)
            for (size_t o = first, strip = 0; o < end; o += wide, strip++)
                pgrad__tile(job->kernels, n_t, job->packed + t * panels * narrow + i * n_t,
                            scratch + strip * PGRAD__KC * wide,
                            (float *)job->d_weight->data + (o / wide * n_in + i) * wide, wide,
                            pgrad__min(narrow, n_in - i), wide, 1);
    }
}

static size_t packed_inputs(const pgrad__machine *machine, size_t n_rows, size_t n_in)
{
    const size_t columns = pgrad__round_up(n_in, machine->kernels->narrow);
    return pgrad__round_up(n_rows * columns + PGRAD__SLACK, 16);
}

size_t pgrad__matmul_grad_weight_scratch(const pgrad__machine *machine, size_t n_rows,
                                         const pgrad__matrix *d_weight)
{
    const size_t n_panels = pgrad__panel_count(d_weight->n_out, machine->kernels->wide);
    return packed_inputs(machine, n_rows, d_weight->n_in) +
           machine->n_workers * strip_floats(machine, choose_chunk(machine, n_panels));
}

pgrad_status pgrad__matmul_grad_weight(pgrad_context *context, pgrad__workspace *workspace,
                                       const float *dy, size_t ldy, const float *x, size_t ldx,
                                       size_t n_rows, pgrad__matrix *d_weight)
{
    const pgrad__machine machine = pgrad__machine_of(context);
    float *data;
    if (n_rows == 0)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__workspace_reserve(
        workspace, pgrad__matmul_grad_weight_scratch(&machine, n_rows, d_weight), &data));
    const size_t n_panels = pgrad__panel_count(d_weight->n_out, machine.kernels->wide);
    const size_t narrow_panels = pgrad__panel_count(d_weight->n_in, machine.kernels->narrow);
    const size_t chunk = choose_chunk(&machine, n_panels);
    weight_job job = {.kernels = machine.kernels,
                      .dy = dy,
                      .ldy = ldy,
                      .n_rows = n_rows,
                      .x = x,
                      .ldx = ldx,
                      .packed = data,
                      .d_weight = d_weight,
                      .chunk = chunk,
                      .scratch = data + packed_inputs(&machine, n_rows, d_weight->n_in),
                      .scratch_floats = strip_floats(&machine, chunk)};
    pgrad__parallel(context, pgrad__panel_count(n_rows, PGRAD__KC) * narrow_panels,
                    pack_columns_task, &job);
    pgrad__parallel(context, pgrad__panel_count(n_panels, job.chunk), weight_task, &job);
    return PGRAD_OK;
}

/* ---- db[o] += sum_t dY[t, o]: blocks of rows, each summed by itself ---- */

typedef struct bias_job {
    const pgrad__kernels *kernels;
    const float *dy;
    size_t ldy, n_rows, n_out;
    float *db;
} bias_job;

enum { BIAS_COLUMNS = 256 };

static void bias_task(void *argument, size_t task, uint32_t worker)
{
    const bias_job *job = argument;
    const size_t first = task * BIAS_COLUMNS, n = pgrad__min(BIAS_COLUMNS, job->n_out - first);
    (void)worker;
    for (size_t t = 0; t < job->n_rows; t += PGRAD__ROW_BLOCK) {
        float sum[BIAS_COLUMNS] = {0};
        size_t end = pgrad__min(t + PGRAD__ROW_BLOCK, job->n_rows);
        for (size_t row = t; row < end; row++)
            job->kernels->vec->add(job->dy + row * job->ldy + first, n, sum);
        job->kernels->vec->add(sum, n, job->db + first);
    }
}

void pgrad__bias_grad(pgrad_context *context, const float *dy, size_t ldy, size_t n_rows,
                      size_t n_out, float *db)
{
    bias_job job = {pgrad__kernels_of(context), dy, ldy, n_rows, n_out, db};
    pgrad__parallel(context, pgrad__panel_count(n_out, BIAS_COLUMNS), bias_task, &job);
}
