#include "base_test.h"

#include "base/arena.h"

typedef struct plan {
    size_t n[2];
    double *at[2];
} plan;

static void lay_out(pgrad__arena *arena, void *user)
{
    plan *p = user;
    for (int i = 0; i < 2; i++)
        p->at[i] = pgrad__arena_take(arena, p->n[i], sizeof *p->at[i]);
}

/* Each piece on its border, side by side; a smaller plan takes the same block. */
START_TEST(laid_out_as_measured)
{
    pgrad_context *context = make_context(1, PGRAD_KERNELS_AUTO);
    pgrad__arena arena = {.context = context};
    plan p = {.n = {3, 100}};
    size_t bytes = 0;
    OK(pgrad__arena_measure(lay_out, &p, &bytes));
    ck_assert_uint_eq(bytes, 64 + 832);
    OK(pgrad__arena_plan(&arena, lay_out, &p));
    ck_assert_uint_eq(arena.capacity, bytes);
    ck_assert_uint_eq((uintptr_t)p.at[0] % 64, 0);
    ck_assert_ptr_eq(p.at[1], p.at[0] + 8);
    const double *first = p.at[0];
    p.n[1] = 1;
    OK(pgrad__arena_plan(&arena, lay_out, &p));
    ck_assert_ptr_eq(p.at[0], first);
    ck_assert_uint_eq(arena.capacity, bytes);
    pgrad__arena_free(&arena);
    pgrad_context_free(context);
}
END_TEST

/* A product or a sum beyond what can be addressed is no small plan. */
START_TEST(sizes_that_overflow)
{
    static const size_t TOO_MANY[][2] = {{SIZE_MAX / 8 + 1, 1}, {SIZE_MAX / 8, 1}, {SIZE_MAX / 16, SIZE_MAX / 16}};
    pgrad_context *context = make_context(1, PGRAD_KERNELS_AUTO);
    pgrad__arena arena = {.context = context};
    plan p = {.n = {4, 4}};
    OK(pgrad__arena_plan(&arena, lay_out, &p));
    const unsigned char *block = arena.base;
    for (size_t i = 0; i < sizeof TOO_MANY / sizeof TOO_MANY[0]; i++) {
        size_t bytes = 7;
        memcpy(p.n, TOO_MANY[i], sizeof p.n);
        FAILS(PGRAD_E_LIMIT, "memory: more than can be addressed", pgrad__arena_measure(lay_out, &p, &bytes));
        ck_assert_uint_eq(bytes, 7);
        FAILS(PGRAD_E_LIMIT, "memory: more than can be addressed", pgrad__arena_plan(&arena, lay_out, &p));
        ck_assert_ptr_eq(arena.base, block); /* to be freed */
    }
    p.n[0] = p.n[1] = 4;
    OK(pgrad__arena_plan(&arena, lay_out, &p));
    ck_assert_ptr_eq(arena.base, block);
    pgrad__arena_free(&arena);
    pgrad_context_free(context);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, laid_out_as_measured);
    tcase_add_test(tests, sizes_that_overflow);
}

int main(void)
{
    return run_case("base/arena", NULL, NULL, 60, add);
}
