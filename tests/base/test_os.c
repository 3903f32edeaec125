#include "base_test.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"

/* A made-up /proc and /sys. */
static char root[64];

static void begin(void)
{
    strcpy(root, "/tmp/pgrad-os-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
}

static void end(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    ck_assert_int_eq(system(command), 0);
}

/* Writes root/path, making its folders. */
static void put(const char *path, const char *text)
{
    char whole[512];
    snprintf(whole, sizeof whole, "%s/%s", root, path);
    for (char *p = whole + strlen(root) + 1; (p = strchr(p, '/')) != NULL; *p++ = '/') {
        *p = '\0';
        (void)mkdir(whole, 0700);
    }
    FILE *file = fopen(whole, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(fputs(text, file), 0);
    ck_assert_int_eq(fclose(file), 0);
}

#define V2 "sys/fs/cgroup/"
#define V1 "sys/fs/cgroup/cpu/"

/* What is put, in order, and the quota after each. */
static const struct {
    const char *path, *text;
    uint32_t quota;
} STEPS[] = {
    {"proc/self/cgroup", "0::/user.slice/job/worker\n", 0},
    {V2 "user.slice/job/worker/cpu.max", "max 100000\n", 0},
    {V2 "user.slice/job/cpu.max", "700000 100000\n", 7},       /* a group above binds too */
    {V2 "user.slice/cpu.max", "250000 100000\n", 3},           /* the smallest, rounded up */
    {V2 "user.slice/job/worker/cpu.max", "500000 100000\n", 3},
    {V2 "user.slice/other/cpu.max", "10000 100000\n", 3},      /* not on the way up */
    {V2 "user/cpu.max", "10000 100000\n", 3},
    {V2 "cpu.max", "20000 10000\n", 2},                        /* the root's, in a container */
    {"proc/self/cgroup", "0::/gone/since (deleted)\n", 2},
    {"proc/self/cgroup", "", 2},
    {V2 "user.slice/job/worker/cpu.max", "1 100000\n", 2},
    {"proc/self/cgroup", "0::/user.slice/job/worker", 1},      /* without a newline */
    {"proc/self/cgroup", "0::/\n", 2},
    {V2 "cpu.max", "none of it", 0},
    {V2 "cpu.max", "100000 0\n", 0},
    {V2 "cpu.max", "99999999999999999999 100000\n", 256},
    {V2 "cpu.max", "max 100000\n", 0},
    /* Version 1, its controllers in lists; version 2 beside it has none for the CPU. */
    {"proc/self/cgroup", "9:cpuset:/s\n4:cpu,cpuacct:/a/b\n0::/\n", 0},
    {V1 "s/cpu.cfs_quota_us", "100000\n", 0},
    {V1 "s/cpu.cfs_period_us", "100000\n", 0},
    {V1 "a/b/cpu.cfs_quota_us", "-1\n", 0},
    {V1 "a/b/cpu.cfs_period_us", "100000\n", 0},
    {V1 "a/cpu.cfs_quota_us", "400000\n", 0},
    {V1 "a/cpu.cfs_period_us", "100000\n", 4},
    {V1 "cpu.cfs_quota_us", "150000\n", 4},
    {V1 "cpu.cfs_period_us", "50000\n", 3},
    {"proc/self/cgroup", "nothing known\n:\n::\n", 3},
};

START_TEST(quotas_of_control_groups)
{
    begin();
    ck_assert_uint_eq(pgrad__os_cgroup_quota(root), 0); /* neither folder is there */
    for (size_t i = 0; i < sizeof STEPS / sizeof STEPS[0]; i++) {
        put(STEPS[i].path, STEPS[i].text);
        const uint32_t quota = pgrad__os_cgroup_quota(root);
        ck_assert_msg(quota == STEPS[i].quota, "%zu: %s: %u, expected %u", i, STEPS[i].path, quota,
                      STEPS[i].quota);
    }
    end();
}
END_TEST

/* A path that no file can have, and a file longer than is read, are passed over. */
START_TEST(long_paths_of_control_groups)
{
    static char text[20000];
    begin();
    memcpy(text, "0::/", 4);
    memset(text + 4, 'x', sizeof text - 5);
    put(V2 "cpu.max", "200000 100000\n");
    for (size_t length = 3900; length < sizeof text; length += 50) {
        text[length] = '\0';
        put("proc/self/cgroup", text);
        ck_assert_uint_eq(pgrad__os_cgroup_quota(root), 2);
        text[length] = 'x';
    }
    end();
}
END_TEST

START_TEST(processors_of_this_process)
{
    const uint32_t count = pgrad__os_cpu_count(), quota = pgrad__os_cgroup_quota("");
    ck_assert_uint_ge(count, 1);
    ck_assert_uint_le(count, 256);
    ck_assert_int_le(count, sysconf(_SC_NPROCESSORS_CONF));
    if (quota != 0)
        ck_assert_uint_le(count, quota);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, quotas_of_control_groups);
    tcase_add_test(tests, long_paths_of_control_groups);
    tcase_add_test(tests, processors_of_this_process);
}

int main(void)
{
    return run_case("base/os", NULL, NULL, 60, add);
}
