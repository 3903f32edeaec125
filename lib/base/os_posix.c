/* Clock, processors, process, pages: Linux. */
#include "base/os.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double pgrad__os_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int64_t pgrad__os_process(void)
{
    return (int64_t)getpid();
}

/* Reads a small file into text; 0 when it cannot. */
static int read_small(const char *path, char *text, size_t capacity)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return 0;
    ssize_t n = read(descriptor, text, capacity - 1);
    (void)close(descriptor);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    return 1;
}

/* A decimal number at *text; -1 when there is none ("max", "-1"). */
static int64_t read_number(const char **text)
{
    const char *p = *text;
    int64_t value = 0;
    if (*p < '0' || *p > '9')
        return -1;
    for (; *p >= '0' && *p <= '9' && value < INT64_MAX / 16; p++)
        value = value * 10 + (*p - '0');
    *text = p;
    return value;
}

/* CPUs' worth of time the cgroup allows, rounded up; 0 when there is no quota. */
static uint32_t cgroup_quota(void)
{
    char text[128], more[64];
    const char *p = text, *q = more;
    int64_t quota = -1, period = -1;
    if (read_small("/sys/fs/cgroup/cpu.max", text, sizeof text)) { /* version 2: "QUOTA PERIOD" */
        quota = read_number(&p);
        while (*p == ' ')
            p++;
        period = read_number(&p);
    } else if (read_small("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", text, sizeof text) &&
               read_small("/sys/fs/cgroup/cpu/cpu.cfs_period_us", more, sizeof more)) {
        quota = read_number(&p);
        period = read_number(&q);
    }
    if (quota <= 0 || period <= 0)
        return 0;
    int64_t cpus = (quota + period - 1) / period;
    return cpus > 256 ? 256 : (uint32_t)cpus;
}

uint32_t pgrad__os_cpu_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    int allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    uint32_t count = allowed < 1 ? 1 : allowed > 256 ? 256 : (uint32_t)allowed;
    uint32_t quota = cgroup_quota();
    return quota != 0 && quota < count ? quota : count;
}

void pgrad__os_sleep(double seconds)
{
    const struct timespec length = {.tv_sec = (time_t)seconds,
                                    .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    (void)nanosleep(&length, NULL);
}

void pgrad__os_low_priority(void)
{
    enum { NICE = 15 };
    (void)setpriority(PRIO_PROCESS, 0, NICE); /* on Linux: of the calling thread */
}

void pgrad__os_huge_pages(void *memory, size_t size)
{
    const size_t page = (size_t)2 << 20;
    size_t first = ((size_t)memory + page - 1) & ~(page - 1);
    size_t end = ((size_t)memory + size) & ~(page - 1);
    if (end > first)
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
}
