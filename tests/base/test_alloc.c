#include "base_test.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "base/context.h"

/* An allocator that counts, checks what it is told, and fails on demand. */
typedef struct counting {
    size_t n_blocks, n_bytes, n_calls, fail_at, askew_at;
} counting;

enum { ASKEW = 32 }; /* bytes beyond where an aligned block would be */

static void *counting_alloc(void *user, size_t size, size_t alignment)
{
    counting *c = user;
    if (++c->n_calls == c->fail_at)
        return NULL;
    ck_assert_uint_ge(alignment, 64);
    ck_assert_uint_eq(alignment & (alignment - 1), 0);
    ck_assert_uint_eq(size % alignment, 0); /* as aligned_alloc wants it */
    c->n_blocks++;
    c->n_bytes += size;
    if (c->n_calls != c->askew_at)
        return aligned_alloc(alignment, size);
    unsigned char *block = aligned_alloc(alignment, size + alignment);
    return block == NULL ? NULL : block + ASKEW;
}

static void counting_free(void *user, void *pointer, size_t size)
{
    counting *c = user;
    ck_assert_ptr_nonnull(pointer);
    c->n_blocks--;
    c->n_bytes -= size;
    free((unsigned char *)pointer - (uintptr_t)pointer % 64);
}

static pgrad_status create(counting *c, uint64_t limit, pgrad_context **out)
{
    const pgrad_allocator allocator = {c, counting_alloc, counting_free};
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 1;
    params.allocator = &allocator;
    params.memory_limit = limit;
    return pgrad_context_create(&params, out);
}

START_TEST(all_memory_is_the_hosts)
{
    counting c = {0};
    pgrad_context *context = NULL;
    float *a, *b = NULL;
    char *text;
    OK(create(&c, 0, &context));
    uint64_t before = context->memory_now;
    OK(pgrad__alloc(context, 100, sizeof *a, &a));
    ck_assert_uint_eq((uintptr_t)a % 64, 0);
    OK(pgrad__calloc(context, 33, sizeof *b, &b));
    for (int i = 0; i < 33; i++)
        ck_assert(b[i] == 0.0f);
    OK(pgrad__copy_text(context, "abcd", 3, &text));
    ck_assert_str_eq(text, "abc");
    ck_assert_uint_ge(context->memory_now, before + 400 + 132 + 4);
    ck_assert_uint_eq(context->memory_peak, context->memory_now);
    pgrad__free(context, a);
    pgrad__free(context, b);
    pgrad__free(context, text);
    pgrad__free(context, NULL);
    ck_assert_uint_eq(context->memory_now, before);
    pgrad_context_free(context);
    ck_assert_uint_eq(c.n_blocks, 0);
    ck_assert_uint_eq(c.n_bytes, 0);
}
END_TEST

START_TEST(empty_blocks_are_blocks)
{
    counting c = {0};
    pgrad_context *context = NULL;
    void *a = NULL, *b = NULL;
    OK(create(&c, 0, &context));
    OK(pgrad__alloc(context, 0, 8, &a));
    OK(pgrad__alloc(context, 8, 0, &b));
    ck_assert_ptr_nonnull(a);
    ck_assert_ptr_ne(a, b);
    pgrad__free(context, a);
    pgrad__free(context, b);
    pgrad_context_free(context);
}
END_TEST

START_TEST(al02_sizes_that_overflow)
{
    counting c = {0};
    pgrad_context *context = NULL;
    void *block = &c;
    OK(create(&c, 0, &context));
    const size_t calls = c.n_calls;
    FAILS(PGRAD_E_LIMIT, "addressed", pgrad__alloc(context, SIZE_MAX, 2, &block));
    FAILS(PGRAD_E_LIMIT, "addressed", pgrad__calloc(context, (size_t)1 << 63, 2, &block));
    FAILS(PGRAD_E_LIMIT, "addressed", pgrad__alloc(context, SIZE_MAX, 1, &block));
    FAILS(PGRAD_E_LIMIT, "addressed", pgrad__alloc(context, SIZE_MAX - 63, 1, &block));
    ck_assert_ptr_eq(block, &c);
    ck_assert_uint_eq(c.n_calls, calls); /* the host was not asked */
    pgrad_context_free(context);
}
END_TEST

/* A block that is not aligned is told and given back: each of a context's in turn, and a later one. */
START_TEST(al02_blocks_askew)
{
    pgrad_context *context = NULL;
    char *block = NULL;
    counting c = {0};
    OK(create(&c, 0, &context));
    const size_t n_calls = c.n_calls;
    const uint64_t before = context->memory_now, peak = context->memory_peak, n = context->n_allocations;
    c.askew_at = n_calls + 1;
    FAILS(PGRAD_E_INVALID, "aligned to 64 bytes, found one 32 bytes beyond", pgrad__alloc(context, 1 << 20, 1, &block));
    ck_assert_ptr_null(block);
    ck_assert_uint_eq(c.n_calls, n_calls + 1);
    ck_assert_uint_eq(context->memory_now, before);
    ck_assert_uint_eq(context->memory_peak, peak);
    ck_assert_uint_eq(context->n_allocations, n);
    OK(pgrad__alloc(context, 1 << 20, 1, &block)); /* the next one is good */
    pgrad__free(context, block);
    pgrad_context_free(context);
    ck_assert_uint_eq(c.n_bytes, 0);
    ck_assert_uint_ge(n_calls, 3);
    for (size_t at = 1; at <= n_calls; at++) {
        counting each = {.askew_at = at};
        context = NULL;
        FAILS(PGRAD_E_INVALID, "aligned to 64 bytes", create(&each, 0, &context));
        ck_assert_ptr_null(context);
        ck_assert_uint_eq(each.n_blocks, 0);
        ck_assert_uint_eq(each.n_bytes, 0);
    }
}
END_TEST

START_TEST(al03_limit)
{
    counting c = {0};
    pgrad_context *context = NULL;
    char *a = NULL;
    OK(create(&c, 1 << 20, &context));
    const uint64_t before = context->memory_now;
    FAILS(PGRAD_E_LIMIT, "1048576", pgrad__alloc(context, 1 << 20, 1, &a));
    ck_assert_ptr_null(a);
    ck_assert_uint_eq(context->memory_now, before);
    OK(pgrad__alloc(context, 1 << 19, 1, &a));
    FAILS(PGRAD_E_LIMIT, "", pgrad__realloc(context, &a, 1 << 20, 1));
    ck_assert_ptr_nonnull(a);
    pgrad__free(context, a);
    pgrad_context_free(context);
    ck_assert_uint_eq(c.n_blocks, 0);
}
END_TEST

/* The peak is of blocks that were had: one the host refuses was never held. */
START_TEST(a_refused_block_is_no_peak)
{
    counting c = {0};
    pgrad_context *context = NULL;
    char *a = NULL;
    OK(create(&c, 0, &context));
    const uint64_t now = context->memory_now, peak = context->memory_peak;
    c.fail_at = c.n_calls + 1;
    FAILS(PGRAD_E_NOMEM, "refused", pgrad__alloc(context, 1 << 20, 1, &a));
    ck_assert_uint_eq(context->memory_now, now);
    ck_assert_uint_eq(context->memory_peak, peak);
    OK(pgrad__alloc(context, 1 << 10, 1, &a));
    ck_assert_uint_eq(context->memory_peak, context->memory_now > peak ? context->memory_now : peak);
    pgrad__free(context, a);
    pgrad_context_free(context);
}
END_TEST

START_TEST(realloc_keeps_contents)
{
    counting c = {0};
    pgrad_context *context = NULL;
    unsigned char *a = NULL;
    OK(create(&c, 0, &context));
    OK(pgrad__realloc(context, &a, 10, 1));
    for (unsigned char i = 0; i < 10; i++)
        a[i] = i;
    OK(pgrad__realloc(context, &a, 1000, 1));
    for (unsigned char i = 0; i < 10; i++)
        ck_assert_uint_eq(a[i], i);
    OK(pgrad__realloc(context, &a, 5, 1));
    for (unsigned char i = 0; i < 5; i++)
        ck_assert_uint_eq(a[i], i);
    unsigned char *old = a;
    c.fail_at = c.n_calls + 1;
    FAILS(PGRAD_E_NOMEM, "refused", pgrad__realloc(context, &a, 1 << 20, 1));
    ck_assert_ptr_eq(a, old);
    ck_assert_uint_eq(a[4], 4);
    pgrad__free(context, a);
    pgrad_context_free(context);
    ck_assert_uint_eq(c.n_blocks, 0);
}
END_TEST

START_TEST(reserve_doubles)
{
    counting c = {0};
    pgrad_context *context = NULL;
    uint32_t *items = NULL;
    size_t capacity = 0;
    OK(create(&c, 0, &context));
    for (uint32_t i = 0; i < 10000; i++) {
        OK(pgrad__reserve(context, &items, &capacity, i + 1, sizeof *items));
        items[i] = i;
    }
    for (uint32_t i = 0; i < 10000; i++)
        ck_assert_uint_eq(items[i], i);
    ck_assert_uint_le(c.n_calls, 20);
    const size_t had = capacity;
    FAILS(PGRAD_E_LIMIT, "", pgrad__reserve(context, &items, &capacity, SIZE_MAX, sizeof *items));
    ck_assert_uint_eq(capacity, had);
    pgrad__free(context, items);
    pgrad_context_free(context);
}
END_TEST

/* AL01: each allocation of creating a context fails in turn. */
START_TEST(al01_context_without_memory)
{
    for (size_t fail_at = 1; fail_at < 100; fail_at++) {
        counting c = {.fail_at = fail_at};
        pgrad_context *context = NULL;
        pgrad_status status = create(&c, 0, &context);
        if (status == PGRAD_OK) {
            ck_assert_uint_ge(fail_at, 2);
            pgrad_context_free(context);
            ck_assert_uint_eq(c.n_blocks, 0);
            return;
        }
        ck_assert_int_eq(status, PGRAD_E_NOMEM);
        ck_assert_ptr_null(context);
        ck_assert_uint_eq(c.n_blocks, 0);
    }
    ck_abort_msg("never enough memory");
}
END_TEST

START_TEST(checked_sizes)
{
    size_t out = 5;
    ck_assert(!pgrad__mul(SIZE_MAX, 2, &out) && out == 5);
    ck_assert(!pgrad__add(SIZE_MAX, 1, &out) && out == 5);
    ck_assert(!pgrad__align(SIZE_MAX - 3, 64, &out) && out == 5);
    ck_assert(pgrad__mul(3, 4, &out) && out == 12);
    ck_assert(pgrad__add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX);
    ck_assert(pgrad__align(65, 64, &out) && out == 128);
    ck_assert(pgrad__align(64, 64, &out) && out == 64);
    ck_assert(pgrad__align(0, 64, &out) && out == 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, all_memory_is_the_hosts);
    tcase_add_test(tests, empty_blocks_are_blocks);
    tcase_add_test(tests, al02_sizes_that_overflow);
    tcase_add_test(tests, al02_blocks_askew);
    tcase_add_test(tests, al03_limit);
    tcase_add_test(tests, a_refused_block_is_no_peak);
    tcase_add_test(tests, realloc_keeps_contents);
    tcase_add_test(tests, reserve_doubles);
    tcase_add_test(tests, al01_context_without_memory);
    tcase_add_test(tests, checked_sizes);
}

int main(void)
{
    return run_case("base/alloc", NULL, NULL, 60, add);
}
