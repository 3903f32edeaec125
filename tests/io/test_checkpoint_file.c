/* The container of checkpoints: what goes in comes out; every bit and every length that is wrong is
 * found; a save that is killed or fails leaves the old file. */
#include "io/checkpoint_file.h"

#include <dirent.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "../failing_allocator.h"
#include "io/little_endian.h"
#include "io/zstream.h"
#include "io_test.h"

/* ---- faults: the n-th call of the system from here on kills the process, or fails ---- */

static int kill_at, fail_at, no_exchange;

static int fault(void)
{
    if (kill_at > 0 && --kill_at == 0)
        raise(SIGKILL);
    return fail_at > 0 && --fail_at == 0;
}

#define FAULTY(...)                                                                                \
    do {                                                                                           \
        if (fault()) {                                                                             \
            errno = EIO;                                                                           \
            return -1;                                                                             \
        }                                                                                          \
        return syscall(__VA_ARGS__);                                                               \
    } while (0)

ssize_t write(int descriptor, const void *data, size_t size)
{
    FAULTY(SYS_write, descriptor, data, size);
}

/* Nothing here looks at what a disk has: a call that counts, and takes no time. */
int fsync(int descriptor)
{
    (void)descriptor;
    errno = EIO;
    return fault() ? -1 : 0;
}

int rename(const char *from, const char *to)
{
    FAULTY(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    if (no_exchange != 0) {
        errno = no_exchange;
        return -1;
    }
    FAULTY(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

/* ---- files ---- */

enum { N_SIZES = 9 };
static const size_t SIZES[N_SIZES] = {0,     1,       7,       PGRAD__CHECKPOINT_CHUNK - 1,
                                      PGRAD__CHECKPOINT_CHUNK, PGRAD__CHECKPOINT_CHUNK + 1,
                                      1000,  700000,  64};

/* Byte i of part `part`: even parts are noise, odd ones shrink. */
static unsigned char byte_of(size_t part, size_t i)
{
    uint64_t x = (uint64_t)i * 0x9e3779b97f4a7c15u + part;
    x ^= x >> 29;
    x *= 0xbf58476d1ce4e5b9u;
    return part % 2 == 0 ? (unsigned char)(x >> 56) : (unsigned char)(i / 64);
}

static pgrad_status put_part(pgrad__checkpoint_writer *writer, size_t part, size_t size)
{
    char name[32];
    unsigned char *data = malloc(size + 1);
    for (size_t i = 0; i < size; i++)
        data[i] = byte_of(part, i);
    snprintf(name, sizeof name, "part %zu", part);
    pgrad_status status = pgrad__checkpoint_writer_begin(writer, (uint32_t)part % 3, name);
    for (size_t done = 0; status == PGRAD_OK && done < size;) { /* in uneven pieces */
        size_t n = 1 + done * 7 % 100000;
        n = n < size - done ? n : size - done;
        status = pgrad__checkpoint_writer_put(writer, data + done, n);
        done += n;
    }
    free(data);
    return status == PGRAD_OK ? pgrad__checkpoint_writer_end(writer) : status;
}

static pgrad_status write_parts(const char *path, const size_t *sizes, uint32_t n, uint32_t keep)
{
    pgrad__checkpoint_writer writer = {0};
    pgrad_status status = pgrad__checkpoint_writer_open(context, path, n, &writer);
    for (uint32_t i = 0; status == PGRAD_OK && i < n; i++)
        status = put_part(&writer, i, sizes[i]);
    if (status == PGRAD_OK)
        status = pgrad__checkpoint_writer_finish(&writer, keep);
    pgrad__checkpoint_writer_close(&writer);
    return status;
}

static void part_is(pgrad__checkpoint_file *file, uint32_t i, size_t size)
{
    const pgrad__checkpoint_part *part = &file->parts[i];
    pgrad__checkpoint_stream stream;
    unsigned char *data = malloc(size + 1);
    ck_assert_uint_eq(part->size, size);
    ck_assert_uint_eq(part->kind, i % 3);
    pgrad__checkpoint_stream_begin(&stream, file, part);
    for (size_t done = 0; done < size;) {
        size_t n = 1 + done * 3 % 50000;
        n = n < size - done ? n : size - done;
        OK(pgrad__checkpoint_stream_read(&stream, data + done, n));
        done += n;
    }
    size_t same = 0;
    while (same < size && data[same] == byte_of(i, same))
        same++;
    ck_assert_uint_eq(same, size);
    FAILS(PGRAD_E_FORMAT, "ends too early", pgrad__checkpoint_stream_read(&stream, data, 1));
    free(data);
}

static void parts_are(pgrad__checkpoint_file *file, const size_t *sizes, uint32_t n)
{
    ck_assert_uint_eq(file->n_parts, n);
    for (uint32_t i = 0; i < n; i++)
        part_is(file, i, sizes[i]);
}

static void file_has(const char *path, const size_t *sizes, uint32_t n)
{
    pgrad__checkpoint_file file = {0};
    OK(pgrad__checkpoint_file_open(context, path, &file));
    parts_are(&file, sizes, n);
    pgrad__checkpoint_file_close(&file);
    pgrad__checkpoint_file_close(&file);
}

START_TEST(parts_come_back)
{
    struct stat about;
    size_t all = 0;
    OK(write_parts(in_folder("c"), SIZES, N_SIZES, 1));
    file_has(in_folder("c"), SIZES, N_SIZES);
    for (int i = 0; i < N_SIZES; i++)
        all += SIZES[i];
    ck_assert_int_eq(stat(in_folder("c"), &about), 0);
    ck_assert_uint_lt((size_t)about.st_size, all / 10 * 7); /* what shrinks did */
    OK(write_parts(in_folder("c"), SIZES, 0, 1));
    file_has(in_folder("c"), SIZES, 0);
}
END_TEST

static pgrad_status try_bytes(const void *data, size_t size)
{
    pgrad__checkpoint_file file = {0};
    pgrad_status status = pgrad__checkpoint_file_open(context, put_file("x", data, size), &file);
    pgrad__checkpoint_file_close(&file);
    return status;
}

static const size_t SMALL[] = {40, 300, 0};

/* CK08: each bit, each length, and bytes too many. */
START_TEST(every_flip_and_cut_is_found)
{
    size_t size;
    OK(write_parts(in_folder("c"), SMALL, 3, 1));
    char *data = get_file(in_folder("c"), &size);
    ck_assert_uint_lt(size, 1000);
    OK(try_bytes(data, size));
    for (size_t bit = 0; bit < 8 * size; bit++) {
        data[bit / 8] = (char)(data[bit / 8] ^ 1 << bit % 8);
        pgrad_status status = try_bytes(data, size);
        ck_assert_msg(status == PGRAD_E_FORMAT || (bit / 8 < 12 && status == PGRAD_E_UNSUPPORTED),
                      "bit %zu: %s", bit, pgrad_status_name(status));
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "/x: "));
        data[bit / 8] = (char)(data[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t cut = 0; cut < size; cut++)
        ck_assert_int_eq(try_bytes(data, cut), PGRAD_E_FORMAT);
    data[size] = 0;
    ck_assert_int_eq(try_bytes(data, size + 1), PGRAD_E_FORMAT);
    free(data);
}
END_TEST

/* ---- hostile: the checksums are right, the numbers are not ---- */

typedef struct forged {
    unsigned char *data;
    size_t size, table, trailer;
} forged;

static forged forge(void)
{
    forged f;
    OK(write_parts(in_folder("c"), SMALL, 3, 1));
    f.data = (unsigned char *)get_file(in_folder("c"), &f.size);
    f.trailer = f.size - 32;
    f.table = (size_t)pgrad__get_u64(f.data + f.trailer);
    return f;
}

static void expect(forged *f, const char *text)
{
    pgrad__put_u32(f->data + f->trailer + 12,
                   pgrad__crc32(0, f->data + f->table, f->trailer - f->table));
    pgrad__put_u32(f->data + f->trailer + 20, pgrad__crc32(0, f->data + f->trailer, 20));
    FAILS(PGRAD_E_FORMAT, text, try_bytes(f->data, f->size));
    free(f->data);
}

START_TEST(hostile_numbers)
{
    static const struct {
        size_t from_table; /* offset of a u64 in the first entry; or, from 100 on, in the trailer */
        uint64_t value;
        const char *text;
    } CASES[] = {
        {8, 0, "follow"},           {8, UINT64_MAX, "follow"},  {16, 0, "follow"},
        {16, UINT64_MAX, "follow"}, {24, 0, "more than"},       {24, UINT64_MAX, "sizes"},
        {24, 41, "sizes"},          {24, 1u << 30, "sizes"},    {4, 0, "empty"},
        {4, 64, "too long"},        {4, 0xffffffff, "too long"}, {100, 0, "place"},
        {100, UINT64_MAX, "place"}, {108, 0, "other sizes"},    {108, 4, "cut short"},
        {108, 0xffffffff, "place"}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        forged f = forge();
        unsigned char *at = f.data + (CASES[i].from_table < 100
                                          ? f.table + CASES[i].from_table
                                          : f.trailer + CASES[i].from_table - 100);
        if (CASES[i].from_table == 4 || CASES[i].from_table == 108)
            pgrad__put_u32(at, (uint32_t)CASES[i].value);
        else
            pgrad__put_u64(at, CASES[i].value);
        if (CASES[i].from_table == 100 && CASES[i].value == 0)
            f.table = 0; /* its checksum is taken there */
        if (CASES[i].from_table == 100 && CASES[i].value != 0)
            f.table = f.trailer;
        expect(&f, CASES[i].text);
    }
    forged same = forge();
    same.data[same.table + 36 + 5] = '1'; /* "part 0" becomes "part 1" */
    expect(&same, "same name");
    forged control = forge();
    control.data[control.table + 36] = '\n';
    expect(&control, "control bytes");
    forged cut = forge();
    cut.data[cut.table + 36 + 5] = '\xc3'; /* the first half of a letter */
    expect(&cut, "not UTF-8");
}
END_TEST

/* The table's last part without its chunks: as many bytes as it has are none. */
START_TEST(a_part_without_chunks)
{
    forged f = forge();
    unsigned char *last = f.data + f.table + 2 * (36 + strlen("part 0"));
    ck_assert_uint_eq(pgrad__get_u64(last + 24), SMALL[2]);
    pgrad__put_u64(last + 24, 9);
    expect(&f, "part 'part 2', chunk at offset");
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), ": the part ends too early"));
}
END_TEST

/* A chunk that zlib cannot make anything of, under a good checksum; and the parts' own checksum. */
START_TEST(chunks_that_are_no_chunks)
{
    static const size_t ONE[] = {0, 70000};
    for (int k = 0; k < 2; k++) {
        forged f;
        OK(write_parts(in_folder("c"), ONE, 2, 1));
        f.data = (unsigned char *)get_file(in_folder("c"), &f.size);
        f.trailer = f.size - 32;
        f.table = (size_t)pgrad__get_u64(f.data + f.trailer);
        unsigned char *chunk = f.data + 16, *entry = f.data + f.table + 36 + strlen("part 0");
        const uint32_t stored = pgrad__get_u32(chunk + 4);
        ck_assert_uint_lt(stored, 70000); /* packed */
        if (k == 0) {
            memset(chunk + 12, 0xff, stored);
            pgrad__put_u32(chunk + 8, pgrad__crc32(pgrad__crc32(0, chunk, 8), chunk + 12, stored));
            pgrad__put_u32(entry + 32, pgrad__crc32(0, chunk, 12));
        } else {
            entry[32] ^= 1;
        }
        expect(&f, k == 0 ? "part 'part 1', chunk at offset 16: it cannot be unpacked"
                          : ": the part's checksum is wrong");
    }
}
END_TEST

/* CK11: a version of tomorrow. */
START_TEST(newer_version)
{
    forged f = forge();
    pgrad__put_u32(f.data + 8, 2);
    FAILS(PGRAD_E_UNSUPPORTED, "version 2, this library reads up to 1", try_bytes(f.data, f.size));
    free(f.data);
    pgrad__checkpoint_file file = {0};
    FAILS(PGRAD_E_FORMAT, "a folder", pgrad__checkpoint_file_open(context, test_folder, &file));
    FAILS(PGRAD_E_IO, "/none: ", pgrad__checkpoint_file_open(context, in_folder("none"), &file));
}
END_TEST

/* ---- killed and failing saves ---- */

static const size_t OLD[] = {1000, 20}, NEW[] = {700000, 400000, 3};

static int count_entries(void)
{
    int n = -2;
    DIR *folder = opendir(test_folder);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

/* The old or the new file, whole; 1 when it is the new one. */
static int which_file(const char *path)
{
    pgrad__checkpoint_file file = {0};
    OK(pgrad__checkpoint_file_open(context, path, &file));
    const int is_new = file.n_parts == 3;
    parts_are(&file, is_new ? NEW : OLD, is_new ? 3 : 2);
    pgrad__checkpoint_file_close(&file);
    return is_new;
}

/* Saves in a child that dies at call n; 0 when it lived to the end. */
static int killed_save(const char *path, int n, uint32_t keep)
{
    int status;
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        pgrad_context *own; /* contexts do not survive a fork */
        pgrad_context_params params;
        pgrad_context_params_init(&params, sizeof params);
        params.n_threads = 1;
        if (pgrad_context_create(&params, &own) != PGRAD_OK)
            _exit(2);
        context = own;
        kill_at = n;
        _exit(write_parts(path, NEW, 3, keep) == PGRAD_OK ? 0 : 2);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    return WIFSIGNALED(status);
}

/* CK01: a kill at each call of a save leaves the old file or the new one; the next save clears what
 * lies about. */
START_TEST(killed_at_every_call)
{
    char path[300];
    snprintf(path, sizeof path, "%s", in_folder("c"));
    const uint32_t keep = _i == 0 ? 1 : 3;
    int n = 1, new_seen = 0;
    no_exchange = _i == 2 ? EINVAL : 0;
    for (;; n++) {
        const int exchange = no_exchange;
        no_exchange = 0;
        for (uint32_t i = 0; i < keep; i++)
            OK(write_parts(path, OLD, 2, keep));
        no_exchange = exchange;
        ck_assert_int_eq(count_entries(), (int)keep);
        if (!killed_save(path, n, keep))
            break;
        if (pgrad__path_kind(path) == PGRAD__PATH_NONE) { /* the two moves of a poor file system */
            ck_assert_int_eq(_i, 2);
            ck_assert_int_eq(which_file(in_folder("c.1")), 0);
        } else {
            new_seen += which_file(path);
        }
    }
    ck_assert_int_ge(n, 6); /* three writes or more, sync, a move, the folder's sync */
    ck_assert_int_ge(new_seen, 1);
    ck_assert_int_eq(which_file(path), 1);
    no_exchange = 0;
}
END_TEST

/* CK02, CK03: a failure of each call is an error; the file that was there stays, and no other. */
START_TEST(failing_at_every_call)
{
    char path[300];
    snprintf(path, sizeof path, "%s", in_folder("c"));
    const uint32_t keep = _i == 0 ? 1 : 3;
    int new_seen = 0;
    no_exchange = _i == 2 ? EINVAL : 0;
    for (int n = 1;; n++) {
        for (uint32_t i = 0; i < keep; i++)
            OK(write_parts(path, OLD, 2, keep));
        fail_at = n;
        pgrad_status status = write_parts(path, NEW, 3, keep);
        const int failed = fail_at == 0;
        fail_at = 0;
        if (!failed) {
            ck_assert_int_eq(status, PGRAD_OK);
            break;
        }
        ck_assert_int_eq(status, PGRAD_E_IO);
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), strerror(EIO)));
        if (pgrad__path_kind(path) == PGRAD__PATH_NONE)
            ck_assert_int_eq(which_file(in_folder("c.1")), 0);
        else
            new_seen += which_file(path);
        ck_assert_int_le(count_entries(), (int)keep);
    }
    ck_assert_int_le(new_seen, 1); /* only where the last call fails, the folder's sync */
    ck_assert_int_eq(which_file(path), 1);
    no_exchange = 0;
}
END_TEST

/* CK10: the last k, the newest first; a smaller k later leaves the rest alone. */
START_TEST(the_last_are_kept)
{
    char path[300];
    snprintf(path, sizeof path, "%s", in_folder("c"));
    no_exchange = _i == 1 ? ENOSYS : 0;
    for (size_t save = 1; save <= 5; save++) {
        const size_t sizes[] = {100 * save};
        OK(write_parts(path, sizes, 1, 3));
        for (size_t back = 0; back < 3; back++) {
            char name[16];
            const size_t old[] = {100 * (save - back)};
            snprintf(name, sizeof name, back == 0 ? "c" : "c.%zu", back);
            if (back < save)
                file_has(in_folder(name), old, 1);
            else
                ck_assert_int_eq(pgrad__path_kind(in_folder(name)), PGRAD__PATH_NONE);
        }
        ck_assert_int_eq(count_entries(), save < 3 ? (int)save : 3);
    }
    OK(write_parts(path, OLD, 2, 1));
    file_has(path, OLD, 2);
    ck_assert_int_eq(count_entries(), 3);
    no_exchange = 0;
}
END_TEST

/* CK07: what dead writers left goes; what a living one holds, and files of other names, stay. */
START_TEST(stale_files_are_cleaned)
{
    (void)put_text_file("c.tmp-999999-0", "stale");
    (void)put_text_file("d.tmp-999999-0", "another's");
    (void)put_text_file("c.temporary", "another's");
    const char *held = put_text_file("c.tmp-999999-1", "held");
    int descriptor = open(held, O_RDONLY);
    ck_assert_int_eq(flock(descriptor, LOCK_EX), 0);
    OK(write_parts(in_folder("c"), OLD, 2, 1));
    ck_assert_int_eq(close(descriptor), 0);
    ck_assert_int_eq(count_entries(), 4);
    file_is(held, "held");
    file_has(in_folder("c"), OLD, 2);
}
END_TEST

/* CK15: two processes save at one path: whoever reads finds a whole file, and the last one stays. */
START_TEST(two_processes)
{
    char path[300];
    pid_t children[2];
    int status, n_left = 2;
    snprintf(path, sizeof path, "%s", in_folder("c"));
    OK(write_parts(path, OLD, 2, 1));
    for (int k = 0; k < 2; k++) {
        children[k] = fork();
        ck_assert_int_ge(children[k], 0);
        if (children[k] > 0)
            continue;
        pgrad_context_params params;
        pgrad_context_params_init(&params, sizeof params);
        params.n_threads = 1;
        if (pgrad_context_create(&params, &context) != PGRAD_OK)
            _exit(2);
        for (int i = 0; i < 20; i++)
            if (write_parts(path, k == 0 ? OLD : NEW, k == 0 ? 2 : 3, 1) != PGRAD_OK) {
                fprintf(stderr, "%s\n", pgrad_error_message());
                _exit(1);
            }
        _exit(0);
    }
    while (n_left > 0) {
        (void)which_file(path);
        const pid_t ended = waitpid(-1, &status, WNOHANG);
        ck_assert_int_ge(ended, 0);
        if (ended == 0)
            continue;
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        n_left--;
    }
    (void)which_file(path);
    ck_assert_int_eq(count_entries(), 1);
}
END_TEST

/* CK17: every allocation fails in turn; nothing is lost, nothing is left. */
START_TEST(out_of_memory)
{
    counted state = {-1, 0};
    pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context_params params;
    pgrad_context *usual = context;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 1;
    params.allocator = &allocator;
    OK(write_parts(in_folder("c"), OLD, 2, 1));
    OK(pgrad_context_create(&params, &context));
    const long alive = state.live;
    for (long n = 1;; n++) {
        pgrad__checkpoint_file file = {0};
        state.left = n;
        pgrad_status status = write_parts(in_folder("c"), NEW, 3, 2);
        if (status == PGRAD_OK)
            status = pgrad__checkpoint_file_open(context, in_folder("c"), &file);
        const int failed = state.left <= 0;
        state.left = -1;
        pgrad__checkpoint_file_close(&file);
        ck_assert_int_eq(state.live, alive);
        ck_assert(failed || status == PGRAD_OK);
        ck_assert(status == PGRAD_OK || status == PGRAD_E_NOMEM);
        if (!failed)
            break;
        ck_assert_int_ge(which_file(in_folder("c")), 0);
    }
    pgrad_context_free(context);
    context = usual;
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, parts_come_back);
    tcase_add_test(tests, every_flip_and_cut_is_found);
    tcase_add_test(tests, hostile_numbers);
    tcase_add_test(tests, a_part_without_chunks);
    tcase_add_test(tests, chunks_that_are_no_chunks);
    tcase_add_test(tests, newer_version);
    tcase_add_loop_test(tests, killed_at_every_call, 0, 3);
    tcase_add_loop_test(tests, failing_at_every_call, 0, 3);
    tcase_add_loop_test(tests, the_last_are_kept, 0, 2);
    tcase_add_test(tests, stale_files_are_cleaned);
    tcase_add_test(tests, two_processes);
    tcase_add_test(tests, out_of_memory);
}

int main(void)
{
    return run_case("io/checkpoint_file", setup, teardown, 60, add);
}
