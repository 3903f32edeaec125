/* Which kernel set a context gets, what it is told of that, and that a micro-kernel with another order of
 * summation is found out. The sets differ with the CPU and, under -Dblis=shared, with BLIS's own choice:
 * tests/install/check_blis_shared.sh runs this under several. */
#include "kernel_test.h"

#include "base/os.h"
#include "kernel/tile_order.h"

enum { NARROW = 4, WIDE = 16 };

/* Micro-kernels of a rounding or a sum other than the contract's. */
static void by_halves(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc, int accumulate)
{
    for (size_t i = 0; i < NARROW; i++)
        for (size_t j = 0; j < WIDE; j++) {
            float sum[2] = {0.0f, 0.0f};
            for (size_t k = 0; k < depth; k++)
                sum[k % 2] = fmaf(narrow[k * NARROW + i], wide[k * WIDE + j], sum[k % 2]);
            c[i * ldc + j] = (accumulate ? c[i * ldc + j] : 0.0f) + (sum[0] + sum[1]);
        }
}

static void rounded_twice(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc,
                          int accumulate)
{
    for (size_t i = 0; i < NARROW; i++)
        for (size_t j = 0; j < WIDE; j++) {
            float sum = 0.0f;
            for (size_t k = 0; k < depth; k++)
                sum += narrow[k * NARROW + i] * wide[k * WIDE + j];
            c[i * ldc + j] = accumulate ? c[i * ldc + j] + sum : sum;
        }
}

static void from_c_on(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc, int accumulate)
{
    for (size_t i = 0; i < NARROW; i++)
        for (size_t j = 0; j < WIDE; j++) {
            float sum = accumulate ? c[i * ldc + j] : 0.0f;
            for (size_t k = 0; k < depth; k++)
                sum = fmaf(narrow[k * NARROW + i], wide[k * WIDE + j], sum);
            c[i * ldc + j] = sum;
        }
}

START_TEST(another_order_is_found_out)
{
    ck_assert(!pgrad__keeps_order(by_halves, NARROW, WIDE));
    ck_assert(!pgrad__keeps_order(rounded_twice, NARROW, WIDE));
    ck_assert(!pgrad__keeps_order(from_c_on, NARROW, WIDE));
}
END_TEST

START_TEST(every_set_keeps_the_order)
{
    if (!begin(_i, 1))
        return;
    ck_assert(pgrad__keeps_order(kernels->micro, kernels->narrow, kernels->wide));
    end();
}
END_TEST

static char logged[512];
static unsigned n_logged;

static void keep_line(void *user, int32_t level, const char *line)
{
    (void)user;
    ck_assert_int_eq(level, PGRAD_LOG_WARNING);
    snprintf(logged, sizeof logged, "%s", line);
    n_logged++;
}

static void first_use(uint32_t asked)
{
    pgrad_context *asking = make_context(1, asked);
    n_logged = 0;
    OK(pgrad_context_set_log(asking, keep_line, NULL, PGRAD_LOG_DEBUG));
    const pgrad__kernels *first = pgrad__kernels_of(asking);
    ck_assert_uint_eq(first->set, asked == PGRAD_KERNELS_AUTO ? pgrad__best_kernel_set() : asked);
    ck_assert_ptr_eq(pgrad__kernels_of(asking), first); /* told once */
    pgrad_context_free(asking);
}

/* A host that named a set knows what it has. */
START_TEST(a_poor_choice_is_told)
{
    const uint32_t best = pgrad__best_kernel_set(), could = pgrad__os_best_kernel_set();
    ck_assert_uint_le(best, could);
    first_use(PGRAD_KERNELS_AUTO);
    ck_assert_uint_eq(n_logged, best < could || best == PGRAD_KERNELS_GENERIC);
    if (best < could)
        ck_assert_msg(strstr(logged, pgrad__kernel_set_names[best]) != NULL &&
                          strstr(logged, pgrad__kernel_set_names[could]) != NULL && strstr(logged, "BLIS") != NULL,
                      "%s", logged);
    first_use(best);
    ck_assert_uint_eq(n_logged, 0);
    first_use(PGRAD_KERNELS_GENERIC);
    ck_assert_uint_eq(n_logged, 0);
    printf("kernel set %s\n", pgrad__kernel_set_names[best]);
}
END_TEST

START_TEST(a_set_that_is_not_here_is_refused)
{
    const uint32_t best = pgrad__best_kernel_set();
    for (uint32_t set = PGRAD_KERNELS_GENERIC; set <= PGRAD_KERNELS_ARMV8A; set++) {
        pgrad_context_params params;
        pgrad_context *asked = NULL;
        pgrad_context_params_init(&params, sizeof params);
        params.kernel_set = set;
        if (set > best)
            FAILS(PGRAD_E_UNSUPPORTED, pgrad__kernel_set_names[best], pgrad_context_create(&params, &asked));
        else if (set == best || set == PGRAD_KERNELS_GENERIC)
            OK(pgrad_context_create(&params, &asked));
        else
            continue; /* a lower one may be here or not */
        pgrad_context_free(asked);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, another_order_is_found_out);
    tcase_add_loop_test(tests, every_set_keeps_the_order, 0, N_SETS);
    tcase_add_test(tests, a_poor_choice_is_told);
    tcase_add_test(tests, a_set_that_is_not_here_is_refused);
}

int main(void)
{
    return run_case("blis", NULL, NULL, 60, add);
}
