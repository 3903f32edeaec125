/* One chance to fail after another is taken: the n-th allocation, the n-th write. */
#ifndef PGRAD_TESTS_SWEEP_H
#define PGRAD_TESTS_SWEEP_H

#include "stage.h"

#include <limits.h>
#include <stdatomic.h>

/* While armed, chances are counted, and those from `first` to `last` are taken. */
static struct {
    atomic_int armed;
    atomic_long seen;
    long first, last;
} chances;

static inline int take_chance(void)
{
    if (!atomic_load_explicit(&chances.armed, memory_order_relaxed))
        return 0;
    const long n = atomic_fetch_add(&chances.seen, 1) + 1;
    return n >= chances.first && n <= chances.last;
}

static inline void arm(long first, long last)
{
    chances.first = first;
    chances.last = last;
    atomic_store(&chances.seen, 0);
    atomic_store(&chances.armed, 1);
}

static inline long disarm(void)
{
    atomic_store(&chances.armed, 0);
    return atomic_load(&chances.seen);
}

typedef struct fault {
    const char *name;
    int for_good;                /* from the n-th chance on */
    long most;                   /* tries at most, unless PGRAD_TEST_LONG asks for all */
    long (*held)(const stage *); /* blocks or bytes that are held */
    /* Whether a call to which it came may end so. */
    int (*may_end)(const scenario *c, pgrad_status status);
} fault;

static inline int count_descriptors(void)
{
    return count_entries("/proc/self/fd");
}

/* What the user had beside a saved model is there, or in the folder that the message tells of. */
static inline void notes_are_kept(const stage *s, const char *where)
{
    char path[800];
    int found = digest_of_file(in_stage(s, "saved/notes.txt")) == fnv(2, "mine", 4);
    DIR *folder = opendir(s->folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL && !found;) {
        snprintf(path, sizeof path, "%s/%s/notes.txt", s->folder, entry->d_name);
        found = strncmp(entry->d_name, "saved.tmp-", 10) == 0 && digest_of_file(path) == fnv(2, "mine", 4);
    }
    closedir(folder);
    ck_assert_msg(found, "%s: the user's file is gone", where);
    write_text(s, "saved/notes.txt", "mine");
}

/* Temporaries in the stage's folder; they are removed. */
static inline int drop_left_overs(const stage *s)
{
    int n = 0;
    char path[800];
    DIR *folder = opendir(s->folder);
    ck_assert_ptr_nonnull(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        if (strstr(entry->d_name, ".tmp-") != NULL) {
            snprintf(path, sizeof path, "%s/%s", s->folder, entry->d_name);
            if (unlink(path) != 0)
                remove_folder(path);
            n++;
        }
    closedir(folder);
    return n;
}

/* The old one, or the new one, whole, and nothing beside it unless the message says so. */
static inline void all_is_whole(const stage *s, const scenario *c, uint64_t old, uint64_t new, const char *where)
{
    if (c->target != NULL) {
        const uint64_t found = digest_of_target(s, c->target);
        ck_assert_msg(found == old || found == new, "%s: neither the old one nor the new one", where);
    }
    if (c->begin == begin_save)
        notes_are_kept(s, where);
    ck_assert_msg(drop_left_overs(s) == 0 || strstr(pgrad_error_message(), "are left in") != NULL,
                  "%s: files are left: %s", where, pgrad_error_message());
}

/* The calls with chances from n on taken; 0 when it did not come to that. */
static inline int try_at(stage *s, const scenario *c, const fault *f, long n, uint64_t result)
{
    char where[128];
    const long held = f->held(s);
    const int descriptors = count_descriptors();
    snprintf(where, sizeof where, "%s, %s %ld", c->name, f->name, n);
    c->begin(s);
    const uint64_t old = c->target == NULL ? 0 : digest_of_target(s, c->target);
    arm(n, f->for_good ? LONG_MAX : n);
    pgrad_status status = c->run(s);
    const int reached = disarm() >= n;
    ck_assert_msg(reached ? f->may_end(c, status) : status == PGRAD_OK, "%s: %s: %s", where,
                  pgrad_status_name(status), status == PGRAD_OK ? "" : pgrad_error_message());
    if (status != PGRAD_OK) {
        ck_assert_msg(pgrad_error_message()[0] != '\0', "%s: no message", where);
        all_is_whole(s, c, old, result, where);
        if (c->restart != NULL)
            c->restart(s);
        status = c->run(s);
        ck_assert_msg(status == PGRAD_OK, "%s, again: %s: %s", where, pgrad_status_name(status),
                      pgrad_error_message());
    }
    ck_assert_msg(c->result(s) == result, "%s: another result", where);
    clear_stage(s);
    ck_assert_msg(drop_left_overs(s) == 0, "%s: files are left", where);
    ck_assert_msg(f->held(s) == held, "%s: %ld held more", where, f->held(s) - held);
    ck_assert_msg(count_descriptors() == descriptors, "%s: %d descriptors more", where,
                  count_descriptors() - descriptors);
    return reached;
}

/* Takes each chance in turn, or an even selection, and says how many of how many there are. */
static inline long sweep(stage *s, const scenario *c, const fault *f)
{
    c->begin(s);
    arm(LONG_MAX, LONG_MAX);
    pgrad_status status = c->run(s);
    const long n_chances = disarm();
    ck_assert_msg(status == PGRAD_OK, "%s: %s: %s", c->name, pgrad_status_name(status), pgrad_error_message());
    const uint64_t result = c->result(s);
    clear_stage(s);
    long most = f->most;
    if (getenv("PGRAD_TEST_SHORT") != NULL && most > 12)
        most = 12;
    if (getenv("PGRAD_TEST_LONG") != NULL && most > 1)
        most = LONG_MAX;
    const long stride = 1 + (n_chances - 1) / most;
    long n_tried = 0;
    for (long n = 1; n <= n_chances; n += stride, n_tried++)
        ck_assert_msg(try_at(s, c, f, n, result) || n > 1, "%s, %s: it does not come to that", c->name, f->name);
    printf("%s, %s: tried %ld of %ld\n", c->name, f->name, n_tried, n_chances);
    return n_chances;
}

#endif
