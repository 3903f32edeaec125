/* The rate at which two threads read memory in order, GB/s: the limit of decoding at batch 1. Prints
 * one number. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { THREADS = 2, WORDS = 1 << 26, ROUNDS = 8 }; /* 512 MB */

typedef struct part {
    const uint64_t *words;
    uint64_t sum;
} part;

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static void *read_part(void *user)
{
    part *p = user;
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < WORDS / THREADS; i += 8)
        for (size_t lane = 0; lane < 8; lane++)
            sums[lane] += p->words[i + lane];
    for (size_t lane = 0; lane < 8; lane++)
        p->sum += sums[lane];
    return NULL;
}

int main(void)
{
    uint64_t *words = malloc(WORDS * sizeof *words), sum = 0;
    double best = 0.0;
    if (words == NULL)
        return 1;
    memset(words, 1, WORDS * sizeof *words);
    for (int round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        part parts[THREADS];
        double started = now();
        for (size_t i = 0; i < THREADS; i++) {
            parts[i] = (part){words + i * (WORDS / THREADS), 0};
            if (pthread_create(&threads[i], NULL, read_part, &parts[i]) != 0)
                return 1;
        }
        for (size_t i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            sum += parts[i].sum;
        }
        double rate = (double)WORDS * sizeof *words / (now() - started) * 1e-9;
        best = rate > best ? rate : best;
    }
    free(words);
    printf("%.2f\n", best);
    return sum == 0;
}
