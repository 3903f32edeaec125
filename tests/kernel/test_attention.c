#include "kernel_test.h"

#include "kernel/vec.h"

typedef struct attention {
    uint32_t heads, kv_heads, dim;
    size_t rows;
} attention;

static const attention CASES[] = {{1, 1, 1, 1},   {2, 1, 8, 63},   {4, 4, 16, 64}, {6, 2, 24, 150},
                                  {3, 3, 64, 65}, {2, 2, 80, 130}, {8, 1, 32, 20}};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

static unsigned char *pool;
static unsigned char *pages[16];

static const unsigned char *const *store(const pgrad__attention_shape *shape, const float *k, const float *v,
                                         size_t rows)
{
    const size_t n_pages = (rows + PGRAD__KEY_TILE - 1) / PGRAD__KEY_TILE;
    const size_t page = pgrad__kv_block_floats(kernels, shape->head_dim) * shape->n_kv_heads *
                        pgrad__kv_element_bytes(shape->kv_storage);
    ck_assert_uint_le(n_pages, 16);
    OK(pgrad__calloc(context, n_pages * page + PGRAD__SLACK * sizeof(float), 1, &pool));
    for (size_t i = 0; i < n_pages; i++)
        pages[i] = pool + i * page;
    const pgrad__kv_run run = {0, (uint32_t)rows, 0, pages};
    const pgrad__kv_rows fresh = {k, v, (size_t)shape->n_kv_heads * shape->head_dim, &run, 1};
    pgrad__kv_store(context, shape, &fresh);
    return (const unsigned char *const *)pages;
}

/* Scores are sums of `dim` products of size up to 4 with scale 1 / sqrt(dim); probabilities are off by
 * the scores' error, a few u times their size, values by that again: 1e-5 leaves a factor of some ten. */
START_TEST(forward_and_backward)
{
    const attention *c = &CASES[_i % N_CASES];
    if (!begin(_i / N_CASES, 2))
        return;
    const pgrad__attention_shape shape = {c->heads, c->kv_heads, c->dim, 1.0f / sqrtf((float)c->dim), PGRAD_KV_F32};
    const ref_shape reference = {c->rows, c->heads, c->kv_heads, c->dim, shape.scale};
    const size_t width = (size_t)c->heads * c->dim, kv_width = (size_t)c->kv_heads * c->dim;
    const size_t nq = c->rows * width, nk = c->rows * kv_width, nh = c->rows * c->heads;
    float *q = random_floats(nq), *k = random_floats(nk), *v = random_floats(nk), *d_o = random_floats(nq);
    float *o = zeros(nq), *lse = zeros(nh), *dq = random_floats(nq), *dk = random_floats(nk), *dv = random_floats(nk);
    double *Q = to_double(q, nq), *K = to_double(k, nk), *V = to_double(v, nk);
    double *O = doubles(nq), *LSE = doubles(nh), *DQ = doubles(nq), *DK = doubles(nk), *DV = doubles(nk);

    const pgrad__attention_span span = {0, (uint32_t)c->rows, 0, store(&shape, k, v, c->rows), 0, 0};
    OK(pgrad__attention_forward(context, &workspace, &shape, NULL, q, width, &span, 1, o, width, lse));
    ref_attention(&reference, Q, K, V, O, LSE);
    check_near("o", o, O, nq, 1e-5, 0);
    check_near("lse", lse, LSE, nh, 1e-5, 0);

    const pgrad__attention_sequence sequence = {0, (uint32_t)c->rows, 0};
    const pgrad__attention_grads grads = {q,  k,  v,     o,        d_o,   lse,   dq,
                                          dk, dv, width, kv_width, width, width, kv_width};
    OK(pgrad__attention_backward(context, &workspace, &shape, &sequence, 1, &grads));
    ref_attention_grad(&reference, Q, K, V, to_double(d_o, nq), DQ, DK, DV);
    check_near("dq", dq, DQ, nq, 2e-5, 1e-5);
    check_near("dk", dk, DK, nk, 5e-5, 1e-5); /* sums over queries and heads */
    check_near("dv", dv, DV, nk, 5e-5, 1e-5);
    pgrad__free(context, pool);
    end();
}
END_TEST

/* Several sequences in one batch, rows inside a larger array: each as if alone, the rest untouched. */
START_TEST(sequences_do_not_meet)
{
    enum { HEADS = 2, DIM = 16, WIDTH = HEADS * DIM, LD = WIDTH + 5, ROWS = 120 };
    if (!begin(_i, 3))
        return;
    const pgrad__attention_shape shape = {HEADS, HEADS, DIM, 0.25f, PGRAD_KV_F32};
    static const pgrad__attention_sequence sequences[] = {{0, 7, 0}, {10, 70, 0}, {90, 1, 0}, {91, 29, 0}};
    float *q = random_floats(ROWS * LD), *k = random_floats(ROWS * LD), *v = random_floats(ROWS * LD);
    float *o = random_floats(ROWS * LD), *d_o = random_floats(ROWS * LD), *lse = random_floats(ROWS * HEADS);
    float *dq = random_floats(ROWS * LD), *dk = random_floats(ROWS * LD), *dv = random_floats(ROWS * LD);
    float *before = copy_of(dq, ROWS * LD);
    const pgrad__attention_grads all = {q, k, v, o, d_o, lse, dq, dk, dv, LD, LD, LD, LD, LD};
    OK(pgrad__attention_backward(context, &workspace, &shape, sequences, 4, &all));
    float *aq = zeros(ROWS * LD), *ak = zeros(ROWS * LD), *av = zeros(ROWS * LD);
    for (int s = 0; s < 4; s++) {
        const size_t at = sequences[s].first_row, n = sequences[s].n_rows;
        const pgrad__attention_grads one = {q, k, v, o, d_o, lse, aq, ak, av, LD, LD, LD, LD, LD};
        OK(pgrad__attention_backward(context, &workspace, &shape, &sequences[s], 1, &one));
        for (size_t t = at; t < at + n; t++) {
            check_same("dq", dq + t * LD, aq + t * LD, WIDTH);
            check_same("dk", dk + t * LD, ak + t * LD, WIDTH);
            check_same("dv", dv + t * LD, av + t * LD, WIDTH);
            check_same("beside dq", dq + t * LD + WIDTH, before + t * LD + WIDTH, LD - WIDTH);
        }
    }
    for (size_t t = 7; t < 10; t++)
        check_same("between", dq + t * LD, before + t * LD, LD);
    end();
}
END_TEST

/* Scores that overflow exp when not shifted: the running maximum takes care. */
START_TEST(large_scores)
{
    enum { DIM = 4, ROWS = 100 };
    if (!begin(_i, 1))
        return;
    const pgrad__attention_shape shape = {1, 1, DIM, 1.0f, PGRAD_KV_F32};
    const ref_shape reference = {ROWS, 1, 1, DIM, 1.0};
    float *q = random_floats(ROWS * DIM), *k = random_floats(ROWS * DIM), *v = random_floats(ROWS * DIM);
    for (int i = 0; i < ROWS * DIM; i++) {
        q[i] *= 30;
        k[i] *= 30;
    }
    float *o = zeros(ROWS * DIM), *lse = zeros(ROWS);
    double *O = doubles(ROWS * DIM), *LSE = doubles(ROWS);
    const pgrad__attention_span span = {0, ROWS, 0, store(&shape, k, v, ROWS), 0, 0};
    OK(pgrad__attention_forward(context, &workspace, &shape, NULL, q, DIM, &span, 1, o, DIM, lse));
    ref_attention(&reference, to_double(q, ROWS * DIM), to_double(k, ROWS * DIM), to_double(v, ROWS * DIM), O, LSE);
    check_near("lse", lse, LSE, ROWS, 1e-3, 0); /* 4 u times scores of thousands */
    check_near("o", o, O, ROWS * DIM, 5e-3, 0); /* exp(x) with x off by u 4000 */
    pgrad__free(context, pool);
    end();
}
END_TEST

/* ---- narrow pages ---- */

static void round_all(uint32_t storage, const float *x, size_t n, float *rounded)
{
    uint16_t *narrow = array(n, sizeof *narrow);
    if (storage == PGRAD_KV_F16) {
        kernels->vec->f16_narrow(x, n, narrow);
        kernels->vec->f16_widen(narrow, n, rounded);
    } else {
        kernels->vec->bf16_narrow(x, n, narrow);
        kernels->vec->bf16_widen(narrow, n, rounded);
    }
}

enum { COPIES = 12 };

/* All rows at once, then rows at the last position as decoding has them: a group of COPIES that shares the full
 * pages, and one alone; packed products and those of few rows. */
static void attend(const attention *c, uint32_t storage, const float *q, const float *k, const float *v, float *o)
{
    const size_t width = (size_t)c->heads * c->dim;
    const pgrad__attention_shape shape = {c->heads, c->kv_heads, c->dim, 1.0f / sqrtf((float)c->dim), storage};
    const unsigned char *const *stored = store(&shape, k, v, c->rows);
    const uint32_t last = (uint32_t)c->rows - 1;
    const pgrad__attention_span whole = {0, (uint32_t)c->rows, 0, stored, 0, 0};
    const pgrad__attention_span alone = {c->rows + COPIES, 1, last, stored, 0, 0};
    pgrad__attention_span copies[COPIES];
    OK(pgrad__attention_forward(context, &workspace, &shape, NULL, q, width, &whole, 1, o, width, NULL));
    for (uint32_t i = 0; i < COPIES; i++)
        copies[i] = (pgrad__attention_span){c->rows + i, 1, last, stored, 1, last / PGRAD__KEY_TILE};
    OK(pgrad__attention_forward(context, &workspace, &shape, NULL, q, width, copies, COPIES, o, width, NULL));
    OK(pgrad__attention_forward(context, &workspace, &shape, NULL, q, width, &alone, 1, o, width, NULL));
    pgrad__free(context, pool);
}

START_TEST(narrow_pages_are_f32_pages_of_rounded_values)
{
    const attention *c = &CASES[_i % N_CASES];
    if (!begin(_i / N_CASES, 2))
        return;
    const size_t nk = c->rows * c->kv_heads * c->dim;
    const size_t n = (c->rows + COPIES + 1) * c->heads * c->dim;
    float *q = random_floats(n), *k = random_floats(nk), *v = random_floats(nk);
    float *found = zeros(n), *wanted = zeros(n), *unrounded = zeros(n), *rk = zeros(nk), *rv = zeros(nk);
    k[0] = 1e-6f; /* subnormal in f16 */
    attend(c, PGRAD_KV_F32, q, k, v, unrounded);
    for (uint32_t storage = PGRAD_KV_F16; storage <= PGRAD_KV_BF16; storage++) {
        round_all(storage, k, nk, rk);
        round_all(storage, v, nk, rv);
        attend(c, PGRAD_KV_F32, q, rk, rv, wanted);
        attend(c, storage, q, k, v, found);
        check_same("o", found, wanted, n);
        ck_assert(memcmp(found, unrounded, n * sizeof *found) != 0);
    }
    end();
}
END_TEST

/* ---- keys and values of the same call ---- */

/* Three spans behind 40 positions that are there already; with 30 rows each a task stores what it reads, with 70 all
 * is stored before. Both ways write and give what storing by a call of its own does. */
START_TEST(fresh_rows_are_stored_and_seen)
{
    enum { SPANS = 3, BEFORE = 40, HEADS = 4, KV_HEADS = 2, DIM = 24, PAGES = 2 * SPANS };
    static const uint32_t STORAGES[] = {PGRAD_KV_F32, PGRAD_KV_F16, PGRAD_KV_BF16};
    const uint32_t n_rows = _i % 2 ? 70 : 23, storage = STORAGES[_i / 2 % 3];
    if (!begin(_i / 6, 3))
        return;
    const pgrad__attention_shape shape = {HEADS, KV_HEADS, DIM, 0.25f, storage};
    const size_t page = pgrad__kv_block_floats(kernels, DIM) * KV_HEADS * pgrad__kv_element_bytes(storage);
    const size_t n = SPANS * n_rows, width = HEADS * DIM, kv_width = KV_HEADS * DIM;
    float *q = random_floats(n * width), *o[2] = {zeros(n * width), zeros(n * width)};
    float *k = random_floats((n + SPANS * BEFORE) * kv_width), *v = random_floats((n + SPANS * BEFORE) * kv_width);
    unsigned char *blocks[2];
    for (int way = 0; way < 2; way++) {
        unsigned char *at[PAGES];
        pgrad__kv_run before[SPANS], runs[SPANS];
        pgrad__attention_span spans[SPANS];
        OK(pgrad__calloc(context, PAGES * page + PGRAD__SLACK * sizeof(float), 1, &blocks[way]));
        for (size_t i = 0; i < PAGES; i++)
            at[i] = blocks[way] + i * page;
        for (uint32_t i = 0; i < SPANS; i++) {
            before[i] = (pgrad__kv_run){n + i * BEFORE, BEFORE, 0, at + 2 * i};
            runs[i] = (pgrad__kv_run){(size_t)i * n_rows, n_rows, BEFORE, at + 2 * i};
            spans[i] = (pgrad__attention_span){(size_t)i * n_rows, n_rows, BEFORE,
                                               (const unsigned char *const *)(at + 2 * i), 0, 0};
        }
        const pgrad__kv_rows first = {k, v, kv_width, before, SPANS}, fresh = {k, v, kv_width, runs, SPANS};
        pgrad__kv_store(context, &shape, &first);
        if (way == 0)
            pgrad__kv_store(context, &shape, &fresh);
        OK(pgrad__attention_forward(context, &workspace, &shape, way == 0 ? NULL : &fresh, q, width, spans, SPANS,
                                    o[way], width, NULL));
    }
    check_same("o", o[1], o[0], n * width);
    ck_assert_mem_eq(blocks[1], blocks[0], PAGES * page);
    for (int way = 0; way < 2; way++)
        pgrad__free(context, blocks[way]);
    end();
}
END_TEST

/* ---- scratch ---- */

/* A prompt of n tokens alone; behind it, so many completions of half its length; and the last token of n by itself. */
enum { ALONE, GROUP, LAST, N_LAYOUTS, COMPLETIONS = 3, SHORTEST = 1024, LONGEST = 8192 };

static size_t forward_scratch(const pgrad__machine *machine, const pgrad__attention_shape *shape, int layout, uint32_t n)
{
    const pgrad__attention_span whole = {.n_rows = n}, last = {.n_rows = 1, .first_position = n - 1};
    pgrad__attention_span group[1 + COMPLETIONS] = {whole};
    for (uint32_t i = 1; i <= COMPLETIONS; i++)
        group[i] = (pgrad__attention_span){.n_rows = n / 2, .first_position = n};
    if (layout == GROUP)
        return pgrad__attention_forward_scratch(machine, shape, group, 1 + COMPLETIONS);
    return pgrad__attention_forward_scratch(machine, shape, layout == ALONE ? &whole : &last, 1);
}

static size_t backward_scratch(const pgrad__machine *machine, const pgrad__attention_shape *shape, int layout, uint32_t n)
{
    pgrad__attention_sequence group[1 + COMPLETIONS] = {{0, n, 0}};
    for (uint32_t i = 1; i <= COMPLETIONS; i++)
        group[i] = (pgrad__attention_sequence){n + (i - 1) * (n / 2), n / 2, 1};
    return pgrad__attention_backward_scratch(machine, shape, group, layout == ALONE ? 1 : 1 + COMPLETIONS);
}

/* Every 1,024 tokens more take as much as the 1,024 before: never a matrix of scores. Going forward takes the same at
 * any length. */
START_TEST(scratch_is_linear_in_the_length)
{
    if (!begin(_i, 1))
        return;
    const pgrad__attention_shape shapes[] = {{9, 3, 64, 0.125f, PGRAD_KV_F32}, {12, 12, 80, 0.1f, PGRAD_KV_F16}};
    for (uint32_t n_workers = 1; n_workers <= 9; n_workers += 8)
        for (size_t s = 0; s < 2; s++)
            for (int layout = ALONE; layout < N_LAYOUTS; layout++) {
                const pgrad__machine machine = {kernels, n_workers};
                const size_t forward = forward_scratch(&machine, &shapes[s], layout, SHORTEST);
                ck_assert_uint_gt(forward, 0);
                for (uint32_t n = SHORTEST; n <= LONGEST; n += SHORTEST)
                    ck_assert_uint_eq(forward_scratch(&machine, &shapes[s], layout, n), forward);
                if (layout == LAST)
                    continue;
                size_t before = backward_scratch(&machine, &shapes[s], layout, SHORTEST);
                const size_t more = backward_scratch(&machine, &shapes[s], layout, 2 * SHORTEST) - before;
                ck_assert_uint_le(more, before); /* no more than in proportion */
                for (uint32_t n = 2 * SHORTEST; n <= LONGEST; n += SHORTEST) {
                    const size_t now = backward_scratch(&machine, &shapes[s], layout, n);
                    ck_assert_uint_eq(now - before, more);
                    before = now;
                }
            }
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, scratch_is_linear_in_the_length, 0, N_SETS);
    tcase_add_loop_test(tests, narrow_pages_are_f32_pages_of_rounded_values, 0, N_SETS * N_CASES);
    tcase_add_loop_test(tests, forward_and_backward, 0, N_SETS * N_CASES);
    tcase_add_loop_test(tests, sequences_do_not_meet, 0, N_SETS);
    tcase_add_loop_test(tests, large_scores, 0, N_SETS);
    tcase_add_loop_test(tests, fresh_rows_are_stored_and_seen, 0, 6 * N_SETS);
}

int main(void)
{
    return run_case("kernel/attention", NULL, NULL, 60, add);
}
