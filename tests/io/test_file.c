#include "io/file.h"

#include <sys/socket.h>
#include <sys/un.h>

#include "base/alloc.h"
#include "io_test.h"

START_TEST(reads_what_was_asked)
{
    pgrad__file file;
    char out[8] = "";
    OK(pgrad__file_open(context, put_text_file("f", "0123456789"), &file));
    ck_assert_uint_eq(file.size, 10);
    OK(pgrad__file_read(&file, 3, out, 4));
    ck_assert_str_eq(out, "3456");
    OK(pgrad__file_read(&file, 10, out, 0));
    FAILS(PGRAD_E_FORMAT, "expected 4 bytes at offset 7, the file has 10",
          pgrad__file_read(&file, 7, out, 4));
    FAILS(PGRAD_E_FORMAT, "truncated", pgrad__file_read(&file, UINT64_MAX, out, 1));
    FAILS(PGRAD_E_FORMAT, "truncated", pgrad__file_read(&file, 1, out, SIZE_MAX));
    pgrad__file_close(&file);
    pgrad__file_close(&file);
}
END_TEST

/* A zeroed file says descriptor 0, which is not its own. */
START_TEST(closing_a_zeroed_file_spares_standard_input)
{
    pgrad__file file = {0};
    pgrad__file_close(&file);
    ck_assert_int_ne(fcntl(0, F_GETFD), -1);
}
END_TEST

START_TEST(descriptor_is_closed_on_exec)
{
    pgrad__file file;
    OK(pgrad__file_open(context, put_text_file("f", "x"), &file));
    ck_assert_int_eq(fcntl(file.descriptor, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    pgrad__file_close(&file);
}
END_TEST

/* ST20: the file becomes shorter while it is read. */
START_TEST(st20_truncated_while_open)
{
    pgrad__file file;
    char out[10];
    const char *path = put_text_file("f", "0123456789");
    OK(pgrad__file_open(context, path, &file));
    ck_assert_int_eq(truncate(path, 4), 0);
    FAILS(PGRAD_E_FORMAT, "truncated while it was read: expected 10 bytes at offset 0, found 4",
          pgrad__file_read(&file, 0, out, 10));
    ck_assert_int_eq(unlink(path), 0); /* replaced: the open one is read on */
    put_text_file("f", "other");
    OK(pgrad__file_read(&file, 0, out, 4));
    ck_assert_mem_eq(out, "0123", 4);
    pgrad__file_close(&file);
}
END_TEST

/* ST21: what is not a regular file is refused at once, without waiting. */
START_TEST(st21_not_a_regular_file)
{
    pgrad__file file = {.descriptor = -7};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    FAILS(PGRAD_E_FORMAT, "expected a regular file, found a folder",
          pgrad__file_open(context, test_folder, &file));
    FAILS(PGRAD_E_FORMAT, "found a device, pipe or socket",
          pgrad__file_open(context, "/dev/zero", &file));
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    FAILS(PGRAD_E_FORMAT, "found a device, pipe or socket",
          pgrad__file_open(context, in_folder("pipe"), &file));
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%.80s/s", test_folder);
    ck_assert_int_eq(bind(server, (struct sockaddr *)&address, sizeof address), 0);
    FAILS(PGRAD_E_IO, "/s: cannot open: ", pgrad__file_open(context, in_folder("s"), &file));
    close(server);
    ck_assert_int_eq(symlink("loop", in_folder("loop")), 0);
    FAILS(PGRAD_E_IO, strerror(ELOOP), pgrad__file_open(context, in_folder("loop"), &file));
    FAILS(PGRAD_E_IO, strerror(ENOENT), pgrad__file_open(context, in_folder("none"), &file));
    ck_assert_int_eq(file.descriptor, -7); /* left alone on failure */
}
END_TEST

/* ST21: a file that one may not read; root may, so it is nobody for a while. */
START_TEST(st21_not_allowed)
{
    enum { NOBODY = 65534 };
    pgrad__file file = {.descriptor = -7};
    const uid_t user = geteuid();
    ck_assert_int_eq(chmod(put_text_file("secret", "x"), 0), 0);
    ck_assert_int_eq(chmod(test_folder, 0755), 0); /* the folder is everyone's to enter */
    if (user == 0 && seteuid(NOBODY) != 0) {
        fprintf(stderr, "skipped: a root that cannot be nobody reads every file\n");
        return;
    }
    pgrad_status status = pgrad__file_open(context, in_folder("secret"), &file);
    ck_assert_int_eq(seteuid(user), 0);
    FAILS(PGRAD_E_IO, strerror(EACCES), status);
    ck_assert_int_eq(file.descriptor, -7);
}
END_TEST

/* ST22: offsets beyond 2^32. */
START_TEST(st22_sparse_file_beyond_4_gib)
{
    pgrad__file file;
    char out[4];
    const char *path = in_folder("big");
    const uint64_t at = ((uint64_t)5 << 30) + 1;
    int descriptor = open(path, O_WRONLY | O_CREAT, 0600);
    if (pwrite(descriptor, "far", 3, (off_t)at) != 3) {
        close(descriptor);
        fprintf(stderr, "skipped: a file system without large files\n");
        return;
    }
    close(descriptor);
    OK(pgrad__file_open(context, path, &file));
    ck_assert_uint_eq(file.size, at + 3);
    OK(pgrad__file_read(&file, at, out, 3));
    ck_assert_mem_eq(out, "far", 3);
    OK(pgrad__file_read(&file, at & UINT32_MAX, out, 3));
    ck_assert_mem_eq(out, "\0\0\0", 3);
    pgrad__file_close(&file);
}
END_TEST

START_TEST(loads_whole_files_up_to_a_limit)
{
    char *text = NULL;
    size_t size = 99;
    OK(pgrad__file_load(context, put_text_file("f", "abc"), 3, &text, &size));
    ck_assert_uint_eq(size, 3);
    ck_assert_str_eq(text, "abc");
    pgrad__free(context, text);
    text = NULL;
    FAILS(PGRAD_E_LIMIT, "4 bytes, at most 3 are read",
          pgrad__file_load(context, put_text_file("g", "abcd"), 3, &text, &size));
    ck_assert_ptr_null(text);
    ck_assert_uint_eq(size, 3);
    OK(pgrad__file_load(context, put_text_file("empty", ""), 3, &text, &size));
    ck_assert_uint_eq(size, 0);
    ck_assert_str_eq(text, "");
    pgrad__free(context, text);
}
END_TEST

START_TEST(tells_what_stands_at_a_path)
{
    put_text_file("f", "x");
    ck_assert_int_eq(mkfifo(in_folder("pipe"), 0600), 0);
    ck_assert_int_eq(symlink("f", in_folder("link")), 0);
    ck_assert_int_eq(pgrad__path_kind(in_folder("f")), PGRAD__PATH_FILE);
    ck_assert_int_eq(pgrad__path_kind(in_folder("link")), PGRAD__PATH_FILE);
    ck_assert_int_eq(pgrad__path_kind(test_folder), PGRAD__PATH_FOLDER);
    ck_assert_int_eq(pgrad__path_kind(in_folder("pipe")), PGRAD__PATH_OTHER);
    ck_assert_int_eq(pgrad__path_kind(in_folder("none")), PGRAD__PATH_NONE);
}
END_TEST

START_TEST(joins_paths)
{
    static const char *const CASES[][3] = {
        {"a", "b", "a/b"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}, {"a", "", "a/"}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        char *path;
        OK(pgrad__path_join(context, CASES[i][0], CASES[i][1], &path));
        ck_assert_str_eq(path, CASES[i][2]);
        pgrad__free(context, path);
    }
}
END_TEST

/* SH02: names from an index that would leave their folder. */
START_TEST(sh02_plain_names)
{
    static const char *const GOOD[] = {"model-00001-of-00002.safetensors", "a", ".hidden",
                                       "\xc3\xa9.bin"};
    static const char *const BAD[] = {"",    ".",    "..",   "../x", "/abs",
                                      "a/b", "a\\b", "a..b", "a\nb", "a\x7f"};
    for (size_t i = 0; i < sizeof GOOD / sizeof GOOD[0]; i++)
        ck_assert_msg(pgrad__path_is_plain(GOOD[i], strlen(GOOD[i])), "%s", GOOD[i]);
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++)
        ck_assert_msg(!pgrad__path_is_plain(BAD[i], strlen(BAD[i])), "%s", BAD[i]);
    ck_assert(!pgrad__path_is_plain("a\0b", 3));
    char longest[256];
    memset(longest, 'x', sizeof longest);
    ck_assert(pgrad__path_is_plain(longest, 255));
    ck_assert(!pgrad__path_is_plain(longest, 256));
}
END_TEST

START_TEST(long_paths_keep_the_message_readable)
{
    char path[3000];
    pgrad__file file;
    memset(path, 'p', sizeof path);
    strcpy(path + sizeof path - 8, "/weight");
    FAILS(PGRAD_E_IO, "/weight: cannot open: ", pgrad__file_open(context, path, &file));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, reads_what_was_asked);
    tcase_add_test(tests, closing_a_zeroed_file_spares_standard_input);
    tcase_add_test(tests, descriptor_is_closed_on_exec);
    tcase_add_test(tests, st20_truncated_while_open);
    tcase_add_test(tests, st21_not_a_regular_file);
    tcase_add_test(tests, st21_not_allowed);
    tcase_add_test(tests, st22_sparse_file_beyond_4_gib);
    tcase_add_test(tests, loads_whole_files_up_to_a_limit);
    tcase_add_test(tests, tells_what_stands_at_a_path);
    tcase_add_test(tests, joins_paths);
    tcase_add_test(tests, sh02_plain_names);
    tcase_add_test(tests, long_paths_keep_the_message_readable);
}

int main(void)
{
    return run_case("io/file", setup, teardown, 60, add);
}
