/* What the benchmark programs share: a clock, medians, lines of JSON. */
#ifndef PGRAD_TESTS_BENCH_H
#define PGRAD_TESTS_BENCH_H

#include <policygrad.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        pgrad_status check_status_ = (call);                                                       \
        if (check_status_ != PGRAD_OK) {                                                           \
            fprintf(stderr, "%s: %s\n", pgrad_status_name(check_status_), pgrad_error_message());  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static inline double bench_now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static inline int bench_ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static inline double bench_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, bench_ascending);
    return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

static inline void bench_cpu(char name[128])
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    strcpy(name, "unknown");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "model name", 10) == 0) {
            snprintf(name, 128, "%s", strchr(line, ':') + 2);
            name[strcspn(name, "\n")] = '\0';
            break;
        }
    if (file != NULL)
        fclose(file);
}

/* limit 0: there is none. */
static inline void bench_print(pgrad_context *context, const char *name, double value,
                               const char *unit, double limit)
{
    char cpu[128];
    pgrad_context_info info = {.struct_size = sizeof info};
    CHECK(pgrad_context_get_info(context, &info));
    bench_cpu(cpu);
    printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\"", name, value, unit);
    if (limit > 0.0)
        printf(",\"limit\":%.4g,\"share\":%.3f", limit, value / limit);
    printf(",\"cpu\":\"%s\",\"kernel_set\":\"%s\",\"threads\":%u}\n", cpu, info.kernel_set_name,
           info.n_threads);
    fflush(stdout);
}

static inline double bench_peak(void)
{
    const char *text = getenv("PGRAD_BENCH_PEAK");
    return text == NULL ? 0.0 : strtod(text, NULL);
}

#endif
