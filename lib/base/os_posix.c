/* Clock, processors, process, pages: Linux. */
#include "base/os.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/ascii.h"

enum { PATH_ROOM = 4096 };

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

/* Reads FOLDER/NAME, a small file of the system, into text: as much as fits; 0 when it cannot. */
static int read_small(const char *folder, const char *name, char *text, size_t capacity)
{
    char path[PATH_ROOM + 64];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return 0;
    size_t held = 0;
    ssize_t n = 1;
    while (n > 0 && held + 1 < capacity) {
        n = read(descriptor, text + held, capacity - 1 - held);
        held += n > 0 ? (size_t)n : 0;
    }
    (void)close(descriptor);
    text[held] = '\0';
    return held > 0;
}

/* A decimal number at *text; -1 when there is none ("max", "-1"). */
static int64_t read_number(const char **text)
{
    const char *p = *text;
    int64_t value = 0;
    if (!pgrad__is_digit(*p))
        return -1;
    for (; pgrad__is_digit(*p); p++)
        value = value < INT64_MAX / 16 ? value * 10 + (*p - '0') : value;
    *text = p;
    return value;
}

/* CPUs' worth of time that one group allows, rounded up; 0 when it sets no quota. */
static uint32_t quota_of(const char *group)
{
    char text[128], more[64];
    const char *p = text, *q = more;
    int64_t quota = -1, period = -1;
    if (read_small(group, "cpu.max", text, sizeof text)) { /* version 2: "QUOTA PERIOD" */
        quota = read_number(&p);
        while (*p == ' ')
            p++;
        period = read_number(&p);
    } else if (read_small(group, "cpu.cfs_quota_us", text, sizeof text) &&
               read_small(group, "cpu.cfs_period_us", more, sizeof more)) {
        quota = read_number(&p);
        period = read_number(&q);
    }
    if (quota <= 0 || period <= 0)
        return 0;
    const int64_t cpus = (quota - 1) / period + 1;
    return cpus > 256 ? 256 : (uint32_t)cpus;
}

static uint32_t smaller_quota(uint32_t a, uint32_t b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

/* The smallest quota from a group up to the root of its hierarchy: each binds all below it. */
static uint32_t quota_upwards(const char *root, const char *mount, const char *path)
{
    char group[PATH_ROOM];
    const size_t top = strlen(root) + strlen(mount);
    size_t end = top + strlen(path);
    if (end >= sizeof group)
        return 0;
    (void)snprintf(group, sizeof group, "%s%s%s", root, mount, path);
    uint32_t smallest = quota_of(group);
    while (end > top) {
        do
            end--;
        while (end > top && group[end] != '/');
        group[end] = '\0';
        smallest = smaller_quota(smallest, quota_of(group));
    }
    return smallest;
}

static int has_word(const char *list, const char *word)
{
    const size_t size = strlen(word);
    for (;; list++) {
        const size_t length = strcspn(list, ",");
        if (length == size && memcmp(list, word, size) == 0)
            return 1;
        list += length;
        if (*list == '\0')
            return 0;
    }
}

/* The hierarchies that can have quotas: where one is mounted, and the controller by which its line
 * "N:CONTROLLERS:PATH" of /proc/self/cgroup is known. */
static const struct {
    const char *mount, *controller;
} HIERARCHIES[] = {{"/sys/fs/cgroup", ""} /* version 2 */, {"/sys/fs/cgroup/cpu", "cpu"}};
enum { N_HIERARCHIES = sizeof HIERARCHIES / sizeof HIERARCHIES[0] };

uint32_t pgrad__os_cgroup_quota(const char *root)
{
    char lines[8192];
    uint32_t smallest = 0;
    for (size_t i = 0; i < N_HIERARCHIES; i++) /* a container may see no more than its root */
        smallest = smaller_quota(smallest, quota_upwards(root, HIERARCHIES[i].mount, ""));
    if (!read_small(root, "proc/self/cgroup", lines, sizeof lines))
        return smallest;
    for (char *line = lines, *next; line != NULL; line = next) {
        next = strchr(line, '\n');
        if (next != NULL)
            *next++ = '\0';
        const char *controllers = strchr(line, ':');
        char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (path == NULL)
            continue;
        *path++ = '\0';
        for (size_t i = 0; i < N_HIERARCHIES; i++)
            if (has_word(controllers + 1, HIERARCHIES[i].controller))
                smallest = smaller_quota(smallest, quota_upwards(root, HIERARCHIES[i].mount, path));
    }
    return smallest;
}

uint32_t pgrad__os_cpu_count(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    int allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    uint32_t count = allowed < 1 ? 1 : allowed > 256 ? 256 : (uint32_t)allowed;
    uint32_t quota = pgrad__os_cgroup_quota("");
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
