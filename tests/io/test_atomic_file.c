#include "io/atomic_file.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "io_test.h"

/* ---- faults: these stand in for the C library's, and fail on demand ---- */

static int fail_fsync_at, fail_close_at,
    no_exchange; /* count down to the call that fails; 0: none */
static size_t disk_room = SIZE_MAX; /* bytes until the disk is full */

ssize_t write(int descriptor, const void *data, size_t size)
{
    if (size > 0 && disk_room == 0) {
        errno = ENOSPC;
        return -1;
    }
    const size_t some = size < disk_room ? size : disk_room;
    ssize_t n = syscall(SYS_write, descriptor, data, some);
    if (n > 0 && disk_room != SIZE_MAX)
        disk_room -= (size_t)n;
    return n;
}

int fsync(int descriptor)
{
    if (fail_fsync_at > 0 && --fail_fsync_at == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, descriptor);
}

int close(int descriptor)
{
    int result = (int)syscall(SYS_close, descriptor);
    if (fail_close_at > 0 && --fail_close_at == 0) {
        errno = EDQUOT;
        return -1;
    }
    return result;
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    if (no_exchange != 0 && flags != 0) {
        errno = no_exchange;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

static void reset_faults(void)
{
    fail_fsync_at = fail_close_at = no_exchange = 0;
    disk_room = SIZE_MAX;
}

/* Entries of a folder, "." and ".." not counted. */
static int count_entries(const char *path)
{
    int n = -2;
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

static pgrad_status write_file(const char *path, const char *text)
{
    pgrad__writer writer = {.descriptor = -1};
    pgrad_status status = pgrad__writer_open(context, path, &writer);
    if (status == PGRAD_OK)
        status = pgrad__writer_write(&writer, text, strlen(text));
    if (status == PGRAD_OK)
        status = pgrad__writer_commit(&writer);
    pgrad__writer_abort(&writer);
    return status;
}

/* ---- files ---- */

START_TEST(writes_and_replaces)
{
    const char *path = in_folder("f");
    OK(write_file(path, "first"));
    file_is(path, "first");
    OK(write_file(path, "2"));
    file_is(path, "2");
    ck_assert_int_eq(count_entries(test_folder), 1);
}
END_TEST

START_TEST(many_sizes_of_writes)
{
    static const size_t SIZES[] = {0, 1, 1000, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3, 500000};
    pgrad__writer writer = {.descriptor = -1};
    bytes expected = {0};
    OK(pgrad__writer_open(context, in_folder("f"), &writer));
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        char *data = malloc(SIZES[i] + 1);
        for (size_t k = 0; k < SIZES[i]; k++)
            data[k] = (char)(expected.size + k * 31 + i);
        OK(pgrad__writer_write(&writer, data, SIZES[i]));
        put(&expected, data, SIZES[i]);
        ck_assert_uint_eq(writer.size, expected.size);
        free(data);
    }
    OK(pgrad__writer_commit(&writer));
    FILE *file = fopen(in_folder("f"), "rb");
    char *found = malloc(expected.size + 1);
    ck_assert_uint_eq(fread(found, 1, expected.size + 1, file), expected.size);
    fclose(file);
    ck_assert_mem_eq(found, expected.data, expected.size);
    free(found);
    drop(&expected);
}
END_TEST

START_TEST(until_commit_the_old_one_stands)
{
    const char *path = put_text_file("f", "old");
    pgrad__writer writer = {.descriptor = -1};
    OK(pgrad__writer_open(context, path, &writer));
    OK(pgrad__writer_write(&writer, "new", 3));
    file_is(path, "old");
    pgrad__writer_abort(&writer);
    pgrad__writer_abort(&writer);
    file_is(path, "old");
    ck_assert_int_eq(count_entries(test_folder), 1);
    pgrad__writer zeroed = {0};
    pgrad__writer_abort(&zeroed);
    ck_assert_int_ne(fcntl(0, F_GETFD), -1);
}
END_TEST

/* Each failure of sync and close: an error in the system's words, the old file whole, no temporary.
 */
START_TEST(failing_sync_or_close)
{
    const char *path = put_text_file("f", "old");
    fail_fsync_at = 1;
    FAILS(PGRAD_E_IO, strerror(EIO), write_file(path, "new"));
    file_is(path, "old");
    ck_assert_int_eq(count_entries(test_folder), 1);
    fail_close_at = 1;
    FAILS(PGRAD_E_IO, strerror(EDQUOT), write_file(path, "new"));
    fail_close_at = 0;
    file_is(path, "old");
    ck_assert_int_eq(count_entries(test_folder), 1);
    fail_fsync_at = 2; /* the folder's: the new one is in place, but its name may not be durable */
    FAILS(PGRAD_E_IO, strerror(EIO), write_file(path, "new"));
    file_is(path, "new");
    ck_assert_int_eq(count_entries(test_folder), 1);
}
END_TEST

/* Writes 1 MB over `path` in pieces; where the disk is full, some call fails. */
static pgrad_status write_much(const char *path, size_t piece)
{
    static char data[1 << 20];
    pgrad__writer writer = {.descriptor = -1};
    pgrad_status status = pgrad__writer_open(context, path, &writer);
    for (size_t done = 0; status == PGRAD_OK && done < sizeof data; done += piece)
        status = pgrad__writer_write(&writer, data, piece);
    if (status == PGRAD_OK)
        status = pgrad__writer_commit(&writer);
    pgrad__writer_abort(&writer);
    return status;
}

static const size_t PIECES[] = {64, 4096, 1 << 19, 1 << 20};

START_TEST(file_too_large)
{
    const char *path = put_text_file("f", "old");
    struct rlimit before, small;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 500000;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    pgrad_status status = write_much(path, PIECES[_i]);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    ck_assert_int_eq(status, PGRAD_E_IO);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), strerror(EFBIG)));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "/f: "));
    file_is(path, "old");
    ck_assert_int_eq(count_entries(test_folder), 1);
}
END_TEST

/* CK04: the disk takes a part of a piece, and then no more. */
START_TEST(disk_full)
{
    const char *path = put_text_file("f", "old");
    disk_room = 500000;
    pgrad_status status = write_much(path, PIECES[_i]);
    const size_t left = disk_room;
    disk_room = SIZE_MAX;
    ck_assert_uint_eq(left, 0);
    ck_assert_int_eq(status, PGRAD_E_IO);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), strerror(ENOSPC)));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "/f: "));
    file_is(path, "old");
    ck_assert_int_eq(count_entries(test_folder), 1);
}
END_TEST

START_TEST(refuses_what_is_no_file)
{
    pgrad__writer writer = {.descriptor = -7};
    FAILS(PGRAD_E_IO, "found a folder", pgrad__writer_open(context, test_folder, &writer));
    FAILS(PGRAD_E_IO, "found a device", pgrad__writer_open(context, "/dev/null", &writer));
    FAILS(PGRAD_E_IO, strerror(ENOENT), pgrad__writer_open(context, in_folder("no/f"), &writer));
    ck_assert_int_eq(writer.descriptor, -7);
    ck_assert_int_eq(count_entries(test_folder), 0);
}
END_TEST

/* CK16: the folder goes in the middle; a path that is too long; a name that is no UTF-8. */
START_TEST(ck16_paths)
{
    char path[5000], name[300];
    pgrad__writer writer = {.descriptor = -1};
    ck_assert_int_eq(mkdir(in_folder("sub"), 0777), 0);
    OK(pgrad__writer_open(context, in_folder("sub/file"), &writer));
    OK(pgrad__writer_write(&writer, "text", 4));
    ck_assert_int_eq(rename(in_folder("sub"), in_folder("away")), 0);
    FAILS(PGRAD_E_IO, strerror(ENOENT), pgrad__writer_commit(&writer));
    pgrad__writer_abort(&writer);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    FAILS(PGRAD_E_IO, strerror(ENAMETOOLONG), write_file(path, "text"));
    snprintf(name, sizeof name, "%s", in_folder("\xff\xfe"));
    OK(write_file(name, "text"));
    file_is(name, "text");
}
END_TEST

/* CK16: a relative path is what it was when writing began: of a file and a folder, that are there and that are not. */
START_TEST(ck16_the_process_goes_elsewhere)
{
    char before[4096];
    pgrad__writer writer = {.descriptor = -1};
    pgrad__folder folder = {0};
    ck_assert_ptr_nonnull(getcwd(before, sizeof before));
    ck_assert_int_eq(mkdir(in_folder("here"), 0777), 0);
    ck_assert_int_eq(mkdir(in_folder("there"), 0777), 0);
    for (int round = 0; round < 2; round++) {
        const char *text = round == 0 ? "first" : "second";
        ck_assert_int_eq(chdir(in_folder("here")), 0);
        OK(pgrad__writer_open(context, "f", &writer));
        OK(pgrad__folder_open(context, "m/", &folder));
        ck_assert_int_eq(chdir(in_folder("there")), 0);
        OK(pgrad__writer_write(&writer, text, strlen(text)));
        OK(pgrad__folder_put(&folder, "config", text, strlen(text)));
        OK(pgrad__writer_commit(&writer));
        OK(pgrad__folder_commit(&folder));
        file_is(in_folder("here/f"), text);
        file_is(in_folder("here/m/config"), text);
    }
    ck_assert_int_eq(count_entries(in_folder("here")), 2);
    ck_assert_int_eq(count_entries(in_folder("there")), 0);
    ck_assert_int_eq(rmdir(in_folder("there")), 0); /* where the process stands */
    FAILS(PGRAD_E_IO, "f: cannot find the current folder for: ", pgrad__writer_open(context, "f", &writer));
    ck_assert_int_eq(chdir(before), 0);
}
END_TEST

START_TEST(keeps_links_and_permissions)
{
    struct stat about;
    const char *path = put_text_file("f", "old");
    ck_assert_int_eq(chmod(path, 0640), 0);
    ck_assert_int_eq(symlink("f", in_folder("link")), 0);
    OK(write_file(in_folder("link"), "new"));
    file_is(path, "new");
    ck_assert_int_eq(lstat(in_folder("link"), &about), 0);
    ck_assert(S_ISLNK(about.st_mode));
    ck_assert_int_eq(stat(path, &about), 0);
    ck_assert_int_eq(about.st_mode & 0777, 0640);
}
END_TEST

/* A temporary that a crash left is no obstacle. */
START_TEST(steps_around_left_overs)
{
    char name[64];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "f.tmp-%ld-%d", (long)getpid(), i);
        put_text_file(name, "left");
    }
    OK(write_file(in_folder("f"), "new"));
    file_is(in_folder("f"), "new");
    ck_assert_int_eq(count_entries(test_folder), 4);
}
END_TEST

/* ---- folders ---- */

static pgrad_status save(const char *path, const char *text)
{
    pgrad__folder folder = {0};
    pgrad_status status = pgrad__folder_open(context, path, &folder);
    if (status == PGRAD_OK)
        status = pgrad__folder_put(&folder, "config", text, strlen(text));
    if (status == PGRAD_OK)
        status = pgrad__folder_put(&folder, "weights", text, strlen(text));
    if (status == PGRAD_OK)
        status = pgrad__folder_commit(&folder);
    pgrad__folder_abort(&folder);
    return status;
}

/* Nothing but the folder itself, and in it nothing but what was saved. */
static void saved_is(const char *path, const char *text, int entries)
{
    char file[4200];
    snprintf(file, sizeof file, "%s/config", path);
    file_is(file, text);
    snprintf(file, sizeof file, "%s/weights", path);
    file_is(file, text);
    ck_assert_int_eq(count_entries(path), entries);
    ck_assert_int_eq(count_entries(test_folder), 1);
}

static const int EXCHANGES[] = {0, EINVAL, ENOSYS, EOPNOTSUPP};

START_TEST(folder_new_and_replaced)
{
    no_exchange = EXCHANGES[_i];
    OK(save(in_folder("m"), "first"));
    saved_is(in_folder("m"), "first", 2);
    OK(save(in_folder("m"), "second"));
    saved_is(in_folder("m"), "second", 2);
    OK(save(in_folder("m/"), "third"));
    saved_is(in_folder("m"), "third", 2);
}
END_TEST

/* What the user had beside the model stays: files, links, folders, also inside a folder both have.
 */
START_TEST(folder_keeps_what_is_not_ours)
{
    pgrad__folder folder = {0};
    struct stat about;
    no_exchange = EXCHANGES[_i];
    OK(save(in_folder("m"), "first"));
    put_text_file("m/notes.txt", "mine");
    mkdir(in_folder("m/runs"), 0700);
    mkdir(in_folder("m/runs/a"), 0700);
    put_text_file("m/runs/a/log", "deep");
    mkdir(in_folder("m/both"), 0700);
    put_text_file("m/both/mine", "user");
    put_text_file("m/both/ours", "old");
    ck_assert_int_eq(symlink("/nowhere", in_folder("m/link")), 0);
    for (int i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "m/many.%d", i);
        put_text_file(name, "x");
    }
    OK(pgrad__folder_open(context, in_folder("m"), &folder));
    OK(pgrad__folder_put(&folder, "config", "second", 6));
    OK(pgrad__folder_put(&folder, "weights", "second", 6));
    char sub[512];
    snprintf(sub, sizeof sub, "%s/both", folder.temporary);
    ck_assert_int_eq(mkdir(sub, 0700), 0);
    OK(pgrad__folder_put(&folder, "both/ours", "new", 3));
    OK(pgrad__folder_commit(&folder));
    saved_is(in_folder("m"), "second", 2 + 1 + 1 + 1 + 1 + 300);
    file_is(in_folder("m/notes.txt"), "mine");
    file_is(in_folder("m/runs/a/log"), "deep");
    file_is(in_folder("m/both/mine"), "user");
    file_is(in_folder("m/both/ours"), "new");
    ck_assert_int_eq(lstat(in_folder("m/link"), &about), 0);
    file_is(in_folder("m/many.299"), "x");
}
END_TEST

/* A folder of the user's where a new file goes: it is not deleted, and the message tells where it
 * is. */
START_TEST(folder_in_the_way_of_a_file)
{
    mkdir(in_folder("m"), 0700);
    mkdir(in_folder("m/config"), 0700);
    put_text_file("m/config/precious", "mine");
    FAILS(PGRAD_E_IO, "are left in", save(in_folder("m"), "new"));
    file_is(in_folder("m/config"), "new");
    char path[256];
    snprintf(path, sizeof path, "m.tmp-%ld-0/config/precious", (long)getpid());
    file_is(in_folder(path), "mine");
}
END_TEST

/* Every sync and every close of a save fails once: the old folder is whole, or the new one is. */
START_TEST(folder_faults)
{
    int failures = 0;
    for (int at = 1; at < 100; at++) {
        OK(save(in_folder("m"), "old"));
        if (_i == 0)
            fail_fsync_at = at;
        else
            fail_close_at = at;
        pgrad_status status = save(in_folder("m"), "new");
        const int reached = _i == 0 ? fail_fsync_at == 0 : fail_close_at == 0;
        fail_fsync_at = fail_close_at = 0;
        if (!reached)
            break;
        failures += status != PGRAD_OK;
        size_t size;
        char *found = get_file(in_folder("m/config"), &size);
        if (status == PGRAD_OK)
            ck_assert_str_eq(found, "new");
        saved_is(in_folder("m"), found, 2);
        free(found);
    }
    ck_assert_int_ge(failures, 2);
}
END_TEST

START_TEST(folder_disk_full)
{
    struct rlimit before, small;
    static char data[4096];
    pgrad__folder folder = {0};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    OK(save(in_folder("m"), "old"));
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1000;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    OK(pgrad__folder_open(context, in_folder("m"), &folder));
    OK(pgrad__folder_put(&folder, "config", "new", 3));
    pgrad_status status = pgrad__folder_put(&folder, "weights", data, sizeof data);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    ck_assert_int_eq(status, PGRAD_E_IO);
    pgrad__folder_abort(&folder);
    pgrad__folder_abort(&folder);
    saved_is(in_folder("m"), "old", 2);
}
END_TEST

/* ST23: the folder that is being read from is replaced; the open file is read on. */
START_TEST(st23_folder_being_read)
{
    no_exchange = EXCHANGES[_i];
    OK(save(in_folder("m"), "old"));
    FILE *reading = fopen(in_folder("m/weights"), "rb");
    char found[8] = "";
    OK(save(in_folder("m"), "new"));
    ck_assert_uint_eq(fread(found, 1, 7, reading), 3);
    ck_assert_str_eq(found, "old");
    fclose(reading);
    saved_is(in_folder("m"), "new", 2);
}
END_TEST

START_TEST(folder_through_a_link)
{
    struct stat about;
    mkdir(in_folder("disk"), 0750);
    ck_assert_int_eq(chmod(in_folder("disk"), 0750), 0);
    ck_assert_int_eq(symlink("disk", in_folder("m")), 0);
    OK(save(in_folder("m"), "new"));
    ck_assert_int_eq(lstat(in_folder("m"), &about), 0);
    ck_assert(S_ISLNK(about.st_mode));
    file_is(in_folder("disk/config"), "new");
    ck_assert_int_eq(stat(in_folder("disk"), &about), 0);
    ck_assert_int_eq(about.st_mode & 0777, 0750);
    ck_assert_int_eq(count_entries(test_folder), 2);
}
END_TEST

/* "." is a folder too, and the process stays inside one. */
START_TEST(folder_is_the_current_one)
{
    char before[4096];
    ck_assert_ptr_nonnull(getcwd(before, sizeof before));
    OK(save(in_folder("m"), "old"));
    ck_assert_int_eq(chdir(in_folder("m")), 0);
    pgrad_status status = save(".", "new");
    ck_assert_int_eq(chdir(before), 0);
    OK(status);
    saved_is(in_folder("m"), "new", 2);
}
END_TEST

START_TEST(folder_refuses)
{
    pgrad__folder folder = {0};
    put_text_file("f", "x");
    FAILS(PGRAD_E_IO, "found a file", pgrad__folder_open(context, in_folder("f"), &folder));
    FAILS(PGRAD_E_IO, "found a device", pgrad__folder_open(context, "/dev/null", &folder));
    FAILS(PGRAD_E_IO, strerror(ENOENT), pgrad__folder_open(context, in_folder("no/m"), &folder));
    ck_assert_ptr_null(folder.path);
    ck_assert_int_eq(count_entries(test_folder), 1);
}
END_TEST

static void add(TCase *tests)
{
    const int n_pieces = sizeof PIECES / sizeof PIECES[0],
              n_exchanges = sizeof EXCHANGES / sizeof EXCHANGES[0];
    tcase_add_checked_fixture(tests, reset_faults, NULL);
    tcase_add_test(tests, writes_and_replaces);
    tcase_add_test(tests, many_sizes_of_writes);
    tcase_add_test(tests, until_commit_the_old_one_stands);
    tcase_add_test(tests, failing_sync_or_close);
    tcase_add_loop_test(tests, file_too_large, 0, n_pieces);
    tcase_add_loop_test(tests, disk_full, 0, n_pieces);
    tcase_add_test(tests, refuses_what_is_no_file);
    tcase_add_test(tests, ck16_paths);
    tcase_add_test(tests, ck16_the_process_goes_elsewhere);
    tcase_add_test(tests, keeps_links_and_permissions);
    tcase_add_test(tests, steps_around_left_overs);
    tcase_add_loop_test(tests, folder_new_and_replaced, 0, n_exchanges);
    tcase_add_loop_test(tests, folder_keeps_what_is_not_ours, 0, n_exchanges);
    tcase_add_test(tests, folder_in_the_way_of_a_file);
    tcase_add_loop_test(tests, folder_faults, 0, 2);
    tcase_add_test(tests, folder_disk_full);
    tcase_add_loop_test(tests, st23_folder_being_read, 0, n_exchanges);
    tcase_add_test(tests, folder_through_a_link);
    tcase_add_test(tests, folder_is_the_current_one);
    tcase_add_test(tests, folder_refuses);
}

int main(void)
{
    return run_case("io/atomic_file", setup, teardown, 60, add);
}
