#include "kernel_test.h"

enum { POSITIONS = 100, HEADS = 3, ROWS = 30 };
static const uint32_t DIMS[] = {2, 6, 16, 64, 80};
enum { N_DIMS = 5 };

START_TEST(rotates_and_turns_back)
{
    const uint32_t dim = DIMS[_i % N_DIMS];
    const size_t half = dim / 2, ldx = HEADS * dim + 4, n = ROWS * ldx;
    if (!begin(_i / N_DIMS, 2))
        return;
    double frequency[64], angle[64];
    float *c = zeros(POSITIONS * half), *s = zeros(POSITIONS * half), *x = random_floats(n), *before = copy_of(x, n);
    uint32_t *positions = array(ROWS, sizeof *positions);
    for (size_t j = 0; j < half; j++)
        frequency[j] = pow(10000.0, -(double)j / (double)half);
    pgrad__rope_table(frequency, POSITIONS, dim, c, s);
    for (size_t p = 0; p < POSITIONS; p++)
        for (size_t j = 0; j < half; j++) { /* angles are rounded to f32: off by u times up to 100 */
            ck_assert_double_eq_tol(c[p * half + j], cos((double)p * frequency[j]), 2e-5);
            ck_assert_double_eq_tol(s[p * half + j], sin((double)p * frequency[j]), 2e-5);
        }
    for (size_t t = 0; t < ROWS; t++)
        positions[t] = (uint32_t)(t * 37 % POSITIONS);
    pgrad__rope_forward(context, x, ldx, ROWS, HEADS, dim, positions, c, s);
    for (size_t t = 0; t < ROWS; t++) {
        for (size_t h = 0; h < HEADS; h++) {
            double *wanted = to_double(before + t * ldx + h * dim, dim);
            for (size_t j = 0; j < half; j++)
                angle[j] = positions[t] * frequency[j];
            ref_rope(wanted, dim, angle, 1.0);
            check_near("x", x + t * ldx + h * dim, wanted, dim, 1e-4, 0);
        }
        check_same("beside", x + t * ldx + HEADS * dim, before + t * ldx + HEADS * dim, 4);
    }
    pgrad__rope_backward(context, x, ldx, ROWS, HEADS, dim, positions, c, s);
    check_near("back", x, to_double(before, n), n, 2e-6, 0);
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, rotates_and_turns_back, 0, N_SETS * N_DIMS);
}

int main(void)
{
    return run_case("kernel/rope", NULL, NULL, 60, add);
}
