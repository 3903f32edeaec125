/* The merge engine against the plain one: the lowest rank first, the leftmost among equals, again and again. */
#include "../base/base_test.h"

#include "text/bpe.h"

enum { N_FIRST = 6, N_MERGES = 60, LENGTH = 200 };

static uint32_t state = 1;

static uint32_t below(uint32_t n)
{
    state = state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(state >> 8) * n >> 24);
}

/* Of any two tokens there are by then. */
static void make_merges(pgrad__merges *merges, pgrad_context *context)
{
    OK(pgrad__merges_init(merges, context, N_MERGES));
    for (uint32_t rank = 0, id = N_FIRST; rank < N_MERGES; rank++) {
        const pgrad__merge merge = {.left = below(id), .right = below(id), .rank = rank, .id = id};
        if (pgrad__merges_get(merges, merge.left, merge.right) != NULL)
            continue;
        pgrad__merges_put(merges, merge);
        id++;
    }
}

static void merge_plainly(const pgrad__merges *merges, pgrad_token *ids, size_t *n)
{
    for (;;) {
        const pgrad__merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < *n; i++) {
            const pgrad__merge *merge = pgrad__merges_get(merges, (uint32_t)ids[i], (uint32_t)ids[i + 1]);
            if (merge != NULL && (best == NULL || merge->rank < best->rank)) {
                best = merge;
                at = i;
            }
        }
        if (best == NULL)
            return;
        ids[at] = (pgrad_token)best->id;
        memmove(ids + at + 1, ids + at + 2, (--*n - at - 1) * sizeof *ids);
    }
}

START_TEST(merges_as_the_plain_engine)
{
    pgrad_context *context = make_context(1, PGRAD_KERNELS_AUTO);
    size_t n_merged = 0;
    for (int round = 0; round < 300; round++) {
        pgrad__merges merges;
        pgrad__bpe_scratch scratch = {.context = context};
        make_merges(&merges, context);
        for (size_t length = 0; length <= LENGTH; length = 2 * length + 1) {
            pgrad_token ids[LENGTH], plain[LENGTH];
            size_t n = length, n_plain = length;
            const uint32_t letters = 1 + below(N_FIRST); /* runs of one letter too */
            for (size_t i = 0; i < length; i++)
                ids[i] = plain[i] = (pgrad_token)below(letters);
            OK(pgrad__bpe_merge(&merges, &scratch, ids, &n));
            merge_plainly(&merges, plain, &n_plain);
            ck_assert_uint_eq(n, n_plain);
            ck_assert(memcmp(ids, plain, n * sizeof *ids) == 0);
            n_merged += length - n;
        }
        pgrad__bpe_scratch_free(&scratch);
        pgrad__merges_free(&merges);
    }
    ck_assert_uint_gt(n_merged, 5000);
    pgrad_context_free(context);
}
END_TEST

START_TEST(sizes_beyond_the_limit)
{
    pgrad_context *context = make_context(1, PGRAD_KERNELS_AUTO);
    pgrad__merges merges;
    pgrad__bpe_scratch scratch = {.context = context};
    pgrad_token id = 1;
    size_t n = (size_t)1 << 30;
    FAILS(PGRAD_E_LIMIT, "18446744073709551615 merges are too many", pgrad__merges_init(&merges, context, SIZE_MAX));
    make_merges(&merges, context);
    FAILS(PGRAD_E_LIMIT, "a piece of 1073741824 bytes is too long to tokenize",
          pgrad__bpe_merge(&merges, &scratch, &id, &n));
    ck_assert_uint_eq(n, (size_t)1 << 30);
    pgrad__merges_free(&merges);
    pgrad_context_free(context);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, merges_as_the_plain_engine);
    tcase_add_test(tests, sizes_beyond_the_limit);
}

int main(void)
{
    return run_case("text/bpe", NULL, NULL, 60, add);
}
