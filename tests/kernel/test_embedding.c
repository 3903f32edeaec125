#include "kernel_test.h"

enum { VOCABULARY = 77, WIDTH = 37, POSITIONS = 20, ROWS = 200 };

START_TEST(gathers_and_scatters)
{
    const int with_positions = _i % 2;
    if (!begin(_i / 2, 3))
        return;
    float *e = random_floats(VOCABULARY * WIDTH), *p = random_floats(POSITIONS * WIDTH);
    float *out = zeros(ROWS * WIDTH), *d_out = random_floats(ROWS * WIDTH);
    float *start = random_floats(VOCABULARY * WIDTH), *d_p = random_floats(POSITIONS * WIDTH);
    float *wanted_e = copy_of(start, VOCABULARY * WIDTH), *wanted_p = copy_of(d_p, POSITIONS * WIDTH);
    pgrad_token *tokens = array(ROWS, sizeof *tokens);
    uint32_t *positions = array(ROWS, sizeof *positions);
    for (size_t t = 0; t < ROWS; t++) {
        tokens[t] = t % 5 == 0 ? 76 : (pgrad_token)(t * 13 % 40); /* some often, some never */
        positions[t] = (uint32_t)(t % POSITIONS);
    }
    pgrad__matrix matrix = make_matrix(VOCABULARY, WIDTH, e), grad = make_matrix(VOCABULARY, WIDTH, start);
    pgrad__embedding_forward(context, &matrix, with_positions ? p : NULL, tokens, positions, ROWS, out);
    for (size_t t = 0; t < ROWS; t++)
        for (size_t i = 0; i < WIDTH; i++) {
            float wanted = e[(size_t)tokens[t] * WIDTH + i];
            if (with_positions)
                wanted += p[positions[t] * WIDTH + i];
            ck_assert(out[t * WIDTH + i] == wanted);
            /* one after another in f32, rows ascending: to the bit */
            wanted_e[(size_t)tokens[t] * WIDTH + i] += d_out[t * WIDTH + i];
            if (with_positions)
                wanted_p[positions[t] * WIDTH + i] += d_out[t * WIDTH + i];
        }
    pgrad__embedding_backward(context, &grad, with_positions ? d_p : NULL, tokens, positions, ROWS, d_out);
    check_same("dE", rows_of(&grad), wanted_e, VOCABULARY * WIDTH);
    check_same("dP", d_p, wanted_p, POSITIONS * WIDTH);
    check_padding(&grad);
    free_matrix(&matrix);
    free_matrix(&grad);
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, gathers_and_scatters, 0, 2 * N_SETS);
}

int main(void)
{
    return run_case("kernel/embedding", NULL, NULL, 60, add);
}
