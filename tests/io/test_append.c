#include "io/append.h"

#include "io_test.h"

#include <signal.h>
#include <sys/resource.h>

/* What is there stays, whoever else writes to its end. */
START_TEST(lines_come_behind_what_is_there)
{
    const char *path = put_file("f", "old\n", 4);
    int first = -1, second = -1;
    OK(pgrad__append_open(path, &first));
    OK(pgrad__append_open(path, &second));
    file_is(path, "old\n");
    OK(pgrad__append_write(first, path, "one\n", 4));
    OK(pgrad__append_write(second, path, "two\n", 4));
    OK(pgrad__append_write(first, path, "three\n", 6));
    OK(pgrad__append_write(first, path, "", 0));
    pgrad__append_close(first);
    pgrad__append_close(second);
    file_is(path, "old\none\ntwo\nthree\n");
}
END_TEST

START_TEST(a_new_file_is_made)
{
    const char *path = in_folder("new");
    int descriptor = -1;
    OK(pgrad__append_open(path, &descriptor));
    ck_assert_int_ge(descriptor, 0);
    ck_assert_int_eq(fcntl(descriptor, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    file_is(path, "");
    pgrad__append_close(descriptor);
    pgrad__append_close(-1);
}
END_TEST

START_TEST(failures_are_told)
{
    int descriptor = -1;
    FAILS(PGRAD_E_IO, strerror(ENOENT), pgrad__append_open(in_folder("no/f"), &descriptor));
    FAILS(PGRAD_E_IO, strerror(EISDIR), pgrad__append_open(test_folder, &descriptor));
    ck_assert_int_eq(descriptor, -1);
    OK(pgrad__append_open("/dev/full", &descriptor));
    FAILS(PGRAD_E_IO, strerror(ENOSPC), pgrad__append_write(descriptor, "full", "x", 1));
    pgrad__append_close(descriptor);
}
END_TEST

/* A disk that is full in the middle of a line: the limit on a file's size is one that everybody may set. */
START_TEST(no_half_line_stays)
{
    const char *path = put_file("f", "first line\n", 11);
    const struct rlimit small = {16, 16};
    int descriptor = -1;
    OK(pgrad__append_open(path, &descriptor));
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0); /* of this test's own process */
    FAILS(PGRAD_E_IO, strerror(EFBIG), pgrad__append_write(descriptor, path, "second line\n", 12));
    file_is(path, "first line\n");
    OK(pgrad__append_write(descriptor, path, "3rd\n", 4));
    file_is(path, "first line\n3rd\n");
    pgrad__append_close(descriptor);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, lines_come_behind_what_is_there);
    tcase_add_test(tests, a_new_file_is_made);
    tcase_add_test(tests, failures_are_told);
    if (getenv("CK_FORK") == NULL) /* the limit would stay for all that follows */
        tcase_add_test(tests, no_half_line_stays);
}

int main(void)
{
    return run_case("io/append", setup, teardown, 60, add);
}
