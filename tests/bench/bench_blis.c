/* The best rate of BLIS's own sgemm, GFLOP/s, at the shapes of GPT-2 124M with M = 512. run.sh sets
 * kernel set and threads in this program's environment. Prints one number. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void sgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k,
            const float *alpha, const float *a, const int *lda, const float *b, const int *ldb,
            const float *beta, float *c, const int *ldc);

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

int main(void)
{
    static const int SHAPES[][2] = {{2304, 768}, {768, 768}, {3072, 768}, {768, 3072}, {8192, 768}};
    const int m = 512;
    const float one = 1.0f, zero = 0.0f;
    double best = 0.0;
    float *a = calloc(512 * 3072, sizeof(float)), *b = calloc(8192 * 3072, sizeof(float));
    float *c = calloc(512 * 8192, sizeof(float));
    for (size_t i = 0; a != NULL && i < 512 * 3072; i++)
        a[i] = (float)(i % 7) - 3.0f;
    for (size_t i = 0; b != NULL && i < 8192 * 3072; i++)
        b[i] = (float)(i % 5) - 2.0f;
    for (size_t s = 0; c != NULL && s < sizeof SHAPES / sizeof SHAPES[0]; s++)
        for (int round = 0; round < 12; round++) {
            const int n = SHAPES[s][0], k = SHAPES[s][1];
            double started = now(); /* column-major: C' [n, m] = B' [n, k] A' [k, m] */
            sgemm_("T", "N", &n, &m, &k, &one, b, &k, a, &k, &zero, c, &n);
            double rate = 2.0 * m * n * k / (now() - started) * 1e-9;
            if (round > 1 && rate > best)
                best = rate;
        }
    printf("%.2f\n", best);
    free(a);
    free(b);
    free(c);
    return 0;
}
