/* CK05, CK06: the power goes at any moment of a save. What the system was asked is written down; then every disk is
 * made of it that may be there afterwards: of a file what its last fsync saw, of the folder its entries at the last
 * fsync, and any of the changes since. The old file or the new one must stand there, whole. */
#include "io/atomic_file.h"

#include <sys/syscall.h>

#include "io_test.h"

enum { MAX_EVENTS = 64, MAX_ENTRIES = 16, MAX_TEXT = 64 };

/* ---- what the system was asked ---- */

enum { CREATED, WRITTEN, SYNCED, CLOSED, MOVED, EXCHANGED, REMOVED, FOLDER_SYNCED };

typedef struct event {
    int kind;
    char name[2][MAX_TEXT]; /* in the folder */
    ino_t inode[2];
} event;

typedef struct text {
    ino_t inode;
    char data[MAX_TEXT];
    size_t length;
} text;

static event events[MAX_EVENTS];
static text texts[MAX_ENTRIES]; /* of every file that was written or there before */
static size_t n_events, n_texts;
static int recording, no_exchange;

static ino_t inode_at(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 ? about.st_ino : 0;
}

static text *text_of(ino_t inode)
{
    for (size_t i = 0; i < n_texts; i++)
        if (texts[i].inode == inode)
            return &texts[i];
    ck_assert_uint_lt(n_texts, MAX_ENTRIES);
    texts[n_texts] = (text){.inode = inode};
    return &texts[n_texts++];
}

static event *record(int kind, ino_t inode)
{
    static event unused;
    if (!recording)
        return &unused;
    if (kind == WRITTEN && n_events > 0 && events[n_events - 1].kind == WRITTEN)
        return &events[n_events - 1];
    ck_assert_uint_lt(n_events, MAX_EVENTS);
    events[n_events] = (event){.kind = kind, .inode = {inode, 0}};
    return &events[n_events++];
}

static void set_name(event *of, int i, const char *path)
{
    const char *slash = strrchr(path, '/');
    snprintf(of->name[i], sizeof of->name[i], "%s", slash == NULL ? path : slash + 1);
}

int __real_pgrad__open(const char *path, int flags, unsigned mode);
int __wrap_pgrad__open(const char *path, int flags, unsigned mode);
int __wrap_pgrad__open(const char *path, int flags, unsigned mode)
{
    const int descriptor = __real_pgrad__open(path, flags, mode);
    if (recording && descriptor >= 0 && (flags & O_CREAT) != 0) {
        ck_assert_int_ne(flags & O_EXCL, 0);
        ck_assert_int_ne(fcntl(descriptor, F_GETFD) & FD_CLOEXEC, 0);
        set_name(record(CREATED, inode_at(path)), 0, path);
    }
    return descriptor;
}

/* How writes go: all at once; a byte, and every other time a signal instead; nothing at all. */
enum { WHOLE, BYTES, NOTHING };
static int writes;
static unsigned n_writes;

ssize_t write(int descriptor, const void *data, size_t size)
{
    struct stat about;
    if (recording && writes == BYTES && n_writes++ % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    if (recording && writes == NOTHING)
        return 0;
    const ssize_t n = syscall(SYS_write, descriptor, data, recording && writes == BYTES && size > 1 ? (size_t)1 : size);
    if (recording && n > 0 && fstat(descriptor, &about) == 0 && S_ISREG(about.st_mode)) {
        text *to = text_of(about.st_ino);
        ck_assert_uint_lt(to->length + (size_t)n, MAX_TEXT);
        memcpy(to->data + to->length, data, (size_t)n);
        to->length += (size_t)n;
        (void)record(WRITTEN, about.st_ino);
    }
    return n;
}

int fsync(int descriptor)
{
    struct stat about;
    if (recording && fstat(descriptor, &about) == 0)
        (void)record(S_ISDIR(about.st_mode) ? FOLDER_SYNCED : SYNCED, about.st_ino);
    return 0; /* nothing here is about the disk at hand */
}

/* The first close of a file counts: what is kept of it then is its lock. */
int close(int descriptor)
{
    struct stat about;
    int first = recording && fstat(descriptor, &about) == 0 && S_ISREG(about.st_mode);
    for (size_t i = 0; first && i < n_events; i++)
        first = events[i].kind != CLOSED || events[i].inode[0] != about.st_ino;
    if (first)
        (void)record(CLOSED, about.st_ino);
    return (int)syscall(SYS_close, descriptor);
}

int rename(const char *from, const char *to)
{
    const ino_t inode = inode_at(from);
    const int result = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (result == 0) {
        event *e = record(MOVED, inode);
        set_name(e, 0, from);
        set_name(e, 1, to);
    }
    return result;
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    const ino_t inodes[2] = {inode_at(from), inode_at(to)};
    if (no_exchange) {
        errno = EINVAL;
        return -1;
    }
    const int result = (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (result == 0) {
        event *e = record(EXCHANGED, inodes[0]);
        e->inode[1] = inodes[1];
        set_name(e, 0, from);
        set_name(e, 1, to);
    }
    return result;
}

int unlink(const char *path)
{
    const ino_t inode = inode_at(path);
    const int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (result == 0)
        set_name(record(REMOVED, inode), 0, path);
    return result;
}

/* ---- disks ---- */

typedef struct disk {
    struct {
        char name[MAX_TEXT];
        ino_t inode;
    } entries[MAX_ENTRIES];
    size_t n;
} disk;

static void drop_entry(disk *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->entries[i].name, name) == 0) {
            d->entries[i] = d->entries[--d->n];
            return;
        }
}

static void put_entry(disk *d, const char *name, ino_t inode)
{
    drop_entry(d, name);
    ck_assert_uint_lt(d->n, MAX_ENTRIES);
    snprintf(d->entries[d->n].name, MAX_TEXT, "%s", name);
    d->entries[d->n++].inode = inode;
}

static ino_t entry_of(const disk *d, const char *name)
{
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(d->entries[i].name, name) == 0)
            return d->entries[i].inode;
    return 0;
}

static void change(disk *d, const event *e)
{
    if (e->kind == CREATED)
        put_entry(d, e->name[0], e->inode[0]);
    if (e->kind == MOVED || e->kind == REMOVED)
        drop_entry(d, e->name[0]);
    if (e->kind == MOVED || e->kind == EXCHANGED)
        put_entry(d, e->name[1], e->inode[0]);
    if (e->kind == EXCHANGED)
        put_entry(d, e->name[0], e->inode[1]);
}

static int changes_folder(const event *e)
{
    return e->kind == CREATED || e->kind == MOVED || e->kind == EXCHANGED || e->kind == REMOVED;
}

/* The disk after the first n events, with those of the changes since the folder's last fsync whose bits are in
 * `kept`; *n_open: how many there are. */
static disk disk_after(const disk *before, size_t n, uint32_t kept, uint32_t *n_open)
{
    disk d = *before;
    size_t synced = n;
    while (synced > 0 && events[synced - 1].kind != FOLDER_SYNCED)
        synced--;
    *n_open = 0;
    for (size_t i = 0; i < n; i++)
        if (changes_folder(&events[i]) && (i < synced || (kept >> (*n_open)++ & 1) != 0))
            change(&d, &events[i]);
    return d;
}

/* Its text on the disk after the first n events; NULL where no fsync has seen it. */
static const char *durable_text(const disk *before, size_t n, ino_t inode)
{
    int synced = 0;
    for (size_t i = 0; i < before->n; i++)
        synced |= before->entries[i].inode == inode;
    for (size_t i = 0; i < n; i++)
        synced |= events[i].kind == SYNCED && events[i].inode[0] == inode;
    return synced ? text_of(inode)->data : NULL;
}

/* ---- saves ---- */

typedef struct save {
    uint32_t keep, n_old; /* n_old: saves before */
    int exchange;
} save;

static const save SAVES[] = {{1, 0, 1}, {1, 1, 1}, {3, 0, 1}, {3, 1, 1}, {3, 2, 1},
                             {3, 3, 1}, {3, 1, 0}, {3, 3, 0}, {2, 5, 1}};
enum { N_SAVES = sizeof SAVES / sizeof SAVES[0] };

static pgrad_status save_text(const char *content, uint32_t keep)
{
    pgrad__writer writer = {.descriptor = -1};
    pgrad_status status = pgrad__writer_open(context, in_folder("c"), &writer);
    if (status == PGRAD_OK)
        status = pgrad__writer_write(&writer, content, strlen(content));
    if (status == PGRAD_OK)
        status = pgrad__writer_place(&writer, keep);
    pgrad__writer_abort(&writer);
    return status;
}

/* Makes the old files, then records the save of "new". */
static disk recorded(const save *s)
{
    static const char *const NAMES[] = {"c", "c.1", "c.2"};
    disk before = {.n = 0};
    n_events = n_texts = 0;
    no_exchange = 0;
    for (uint32_t i = 0; i < s->n_old; i++) {
        char content[16];
        snprintf(content, sizeof content, "old %u", i);
        OK(save_text(content, s->keep));
    }
    for (size_t i = 0; i < 3; i++) {
        const ino_t inode = inode_at(in_folder(NAMES[i]));
        size_t size;
        if (inode == 0)
            continue;
        char *data = get_file(in_folder(NAMES[i]), &size);
        put_entry(&before, NAMES[i], inode);
        snprintf(text_of(inode)->data, MAX_TEXT, "%s", data);
        free(data);
    }
    no_exchange = !s->exchange;
    recording = 1;
    OK(save_text("new", s->keep));
    recording = 0;
    return before;
}

/* What is wrong with a disk; NULL: nothing. `done`: the save has returned. */
static const char *wrong(const save *s, const disk *before, const disk *d, size_t n, int done)
{
    char last[16];
    snprintf(last, sizeof last, "old %u", s->n_old - 1);
    const ino_t at = entry_of(d, "c");
    const char *first = at == 0 ? NULL : durable_text(before, n, at);
    if (at == 0 && (done || (s->n_old > 0 && (s->exchange || entry_of(d, "c.1") == 0))))
        return "there is no file";
    if (at != 0 && first == NULL)
        return "torn";
    if (at != 0 && strcmp(first, "new") != 0 && (done || s->n_old == 0 || strcmp(first, last) != 0))
        return "neither the old nor the new one";
    for (size_t i = 0; i < d->n; i++)
        if (strncmp(d->entries[i].name, "c.tmp", 5) != 0 && durable_text(before, n, d->entries[i].inode) == NULL)
            return "an older file is torn";
    return NULL;
}

/* Of all disks after all events the first thing that is wrong; *n_disks: how many were looked at. */
static const char *worst(const save *s, const disk *before, unsigned *n_disks)
{
    *n_disks = 0;
    for (size_t n = 0; n <= n_events; n++) {
        uint32_t n_open = 0;
        (void)disk_after(before, n, 0, &n_open);
        ck_assert_uint_lt(n_open, 16);
        const uint32_t n_sets = (uint32_t)1 << n_open;
        for (uint32_t kept = 0; kept < n_sets; kept++, ++*n_disks) {
            const disk d = disk_after(before, n, kept, &n_open);
            const char *what = wrong(s, before, &d, n, n == n_events);
            if (what != NULL)
                return what;
        }
    }
    return NULL;
}

START_TEST(ck05_power_goes)
{
    unsigned n_disks;
    const disk before = recorded(&SAVES[_i]);
    const char *what = worst(&SAVES[_i], &before, &n_disks);
    ck_assert_msg(what == NULL, "%s", what);
    ck_assert_uint_ge(n_disks, 10);
}
END_TEST

/* The same search finds what is wrong where a kind of fsync is left out. */
START_TEST(the_search_finds_a_missing_fsync)
{
    static const int KINDS[] = {SYNCED, FOLDER_SYNCED};
    unsigned n_disks;
    const save *s = &SAVES[_i / 2];
    const disk before = recorded(s);
    for (size_t i = 0; i < n_events; i++)
        if (events[i].kind == KINDS[_i % 2])
            events[i].kind = CLOSED;
    ck_assert_ptr_nonnull(worst(s, &before, &n_disks));
}
END_TEST

START_TEST(ck06_order_of_calls)
{
    static const int PLAIN[] = {CREATED, WRITTEN, SYNCED, CLOSED, MOVED, FOLDER_SYNCED};
    static const int KEEPING[] = {CREATED, WRITTEN, SYNCED, CLOSED, EXCHANGED, FOLDER_SYNCED, MOVED, MOVED,
                                  FOLDER_SYNCED};
    const int *order = _i == 0 ? PLAIN : KEEPING;
    const size_t n = _i == 0 ? sizeof PLAIN / sizeof *PLAIN : sizeof KEEPING / sizeof *KEEPING;
    const save s = {_i == 0 ? 1 : 3, 3, 1};
    (void)recorded(&s);
    ck_assert_uint_eq(n_events, n);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(events[i].kind == order[i], "call %zu: kind %d, expected %d", i, events[i].kind, order[i]);
}
END_TEST

/* CK04: writes of a byte, between signals; and one that writes nothing and says no error. */
START_TEST(ck04_short_writes)
{
    OK(save_text("old", 1));
    writes = _i == 0 ? BYTES : NOTHING;
    n_writes = 0;
    n_events = n_texts = 0;
    recording = 1;
    const pgrad_status status = save_text("the new text", 1);
    recording = 0;
    writes = WHOLE;
    ck_assert_int_eq(status, _i == 0 ? PGRAD_OK : PGRAD_E_IO);
    if (_i == 0)
        ck_assert_uint_ge(n_writes, 24);
    else
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "No space left on device"));
    file_is(in_folder("c"), _i == 0 ? "the new text" : "old");
    ck_assert_int_eq(events[n_events - 1].kind, _i == 0 ? FOLDER_SYNCED : REMOVED);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, ck05_power_goes, 0, N_SAVES);
    tcase_add_loop_test(tests, the_search_finds_a_missing_fsync, 0, 2 * N_SAVES);
    tcase_add_loop_test(tests, ck06_order_of_calls, 0, 2);
    tcase_add_loop_test(tests, ck04_short_writes, 0, 2);
}

int main(void)
{
    return run_case("io/power_loss", setup, teardown, 60, add);
}
