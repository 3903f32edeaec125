/* Reading and writing: the n-th open, read, write, sync, rename, close fails, is interrupted or comes short, in
 * every call of stage.h. What fails is told with the file's name; what was there is whole, old or new; what is
 * interrupted or short changes nothing. */
#include "sweep.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>

/* ---- these stand in for the C library's ---- */

enum { OPEN = 1, READ = 2, WRITE = 4, SYNC = 8, RENAME = 16, FOLDER = 32, CLOSE = 64, CREATE = 128 };

/* What the calls of a kind do when their chance is taken: fail with an error, or, where that is 0, transfer at
 * most some bytes. */
static struct {
    unsigned calls;
    int error;
    size_t most;
} way;
static char faulted[600]; /* the last path it came to */

/* Takes the chance of a call on this path, if it is one of the stage's or of the test data. */
static int fails_at(unsigned call, const char *path)
{
    static const char *const OURS[] = {"pgrad-model-", PGRAD_TEST_DATA};
    if (!atomic_load(&chances.armed) || !(way.calls & call) ||
        (strstr(path, OURS[0]) == NULL && strstr(path, OURS[1]) == NULL) || !take_chance())
        return 0;
    snprintf(faulted, sizeof faulted, "%s", path);
    errno = way.error;
    return 1;
}

static int fails_on(unsigned call, int descriptor)
{
    char link[64], path[600];
    if (!atomic_load(&chances.armed) || !(way.calls & call))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return 0;
    path[n] = '\0';
    return fails_at(call, path);
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;
    va_end(arguments);
    if (fails_at(flags & O_CREAT ? CREATE : OPEN, path))
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t pread(int descriptor, void *out, size_t size, off_t offset)
{
    if (fails_on(READ, descriptor)) {
        if (way.error != 0)
            return -1;
        size = size < way.most ? size : way.most;
    }
    return syscall(SYS_pread64, descriptor, out, size, offset);
}

ssize_t write(int descriptor, const void *data, size_t size)
{
    if (fails_on(WRITE, descriptor)) {
        if (way.error != 0)
            return -1;
        size = size < way.most ? size : way.most;
        if (size == 0)
            return 0;
    }
    return syscall(SYS_write, descriptor, data, size);
}

/* Nothing here looks at what a disk has: a call that counts, and takes no time. */
int fsync(int descriptor)
{
    return fails_on(SYNC, descriptor) ? -1 : 0;
}

int close(int descriptor)
{
    const int fails = fails_on(CLOSE, descriptor);
    const int result = (int)syscall(SYS_close, descriptor);
    errno = fails ? way.error : errno;
    return fails ? -1 : result;
}

int rename(const char *from, const char *to)
{
    return fails_at(RENAME, to) ? -1 : (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    return fails_at(RENAME, to) ? -1 : (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

int mkdir(const char *path, mode_t mode)
{
    return fails_at(FOLDER, path) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

/* ---- what may come of it ---- */

/* The path's last part, without what makes a temporary of it, or a kept one's number. */
static const char *base_of_faulted(void)
{
    static char base[600];
    const char *slash = strrchr(faulted, '/');
    snprintf(base, sizeof base, "%s", slash == NULL ? faulted : slash + 1);
    char *suffix = strstr(base, ".tmp-");
    if (suffix != NULL)
        *suffix = '\0';
    if (strcmp(base, "run.pgrad.1") == 0 || strcmp(base, "train.pgrad.1") == 0)
        base[strlen(base) - 2] = '\0';
    return base;
}

/* E_IO with the system's words and the file's name; a run says of its checkpoints that none is good. */
static int is_told(const scenario *c, pgrad_status status)
{
    const char *message = pgrad_error_message();
    (void)c;
    return (status == PGRAD_E_IO || (status == PGRAD_E_FORMAT && strstr(message, "no checkpoint is good") != NULL)) &&
           strstr(message, strerror(way.error != 0 ? way.error : ENOSPC)) != NULL &&
           strstr(message, base_of_faulted()) != NULL;
}

/* Where a result does not hang on it, such as the end of what is only read, it may pass: the result tells. */
static int is_told_or_passes(const scenario *c, pgrad_status status)
{
    return status == PGRAD_OK || is_told(c, status);
}

static int is_cut(const scenario *c, pgrad_status status)
{
    (void)c;
    return status == PGRAD_OK || (status == PGRAD_E_FORMAT && strstr(pgrad_error_message(), base_of_faulted()) != NULL);
}

static int passes(const scenario *c, pgrad_status status)
{
    (void)c;
    return status == PGRAD_OK;
}

static long held_bytes(const stage *s)
{
    return (long)memory_now(s->w.context);
}

static const struct {
    fault f;
    unsigned calls;
    int error;
    size_t most;
} WAYS[] = {
    {{"open", 0, 200, held_bytes, is_told_or_passes}, OPEN, EMFILE, 0}, /* AL04 */
    {{"read", 0, 200, held_bytes, is_told_or_passes}, READ, EIO, 0},
    {{"create", 0, 200, held_bytes, is_told}, CREATE, EACCES, 0},
    {{"write", 0, 200, held_bytes, is_told}, WRITE, ENOSPC, 0},
    {{"sync", 0, 200, held_bytes, is_told}, SYNC, EIO, 0},
    {{"rename", 0, 200, held_bytes, is_told}, RENAME, EIO, 0},
    {{"make a folder", 0, 200, held_bytes, is_told}, FOLDER, EROFS, 0},
    {{"close", 0, 200, held_bytes, is_told_or_passes}, CLOSE, EDQUOT, 0},
    {{"read of nothing", 0, 200, held_bytes, is_cut}, READ, 0, 0},
    {{"write of nothing", 0, 200, held_bytes, is_told}, WRITE, 0, 0},
    {{"read of a byte", 0, 200, held_bytes, passes}, READ, 0, 1},
    {{"write of a byte", 0, 200, held_bytes, passes}, WRITE, 0, 1},
    {{"short transfers from", 1, 1, held_bytes, passes}, READ | WRITE, 0, 777},
    {{"interrupt", 0, 200, held_bytes, passes}, OPEN | CREATE | READ | WRITE | SYNC | CLOSE, EINTR, 0},
};
enum { N_WAYS = sizeof WAYS / sizeof WAYS[0] };

START_TEST(every_call_of_the_system)
{
    static stage s;
    long n_chances = 0;
    open_stage(&s, NULL, 1);
    way.calls = WAYS[_i].calls;
    way.error = WAYS[_i].error;
    way.most = WAYS[_i].most;
    for (int row = 0; row < N_SCENARIOS; row++)
        n_chances += sweep(&s, &SCENARIOS[row], &WAYS[_i].f);
    ck_assert_int_ge(n_chances, 3);
    close_stage(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fault_files");
    TCase *tests = tcase_create("fault_files");
    tcase_set_timeout(tests, 240);
    tcase_add_loop_test(tests, every_call_of_the_system, 0, N_WAYS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
