/* What the tests of lib/io share: a context that must end without a leak, a folder of its own,
 * bytes put together by hand. */
#ifndef PGRAD_TESTS_IO_TEST_H
#define PGRAD_TESTS_IO_TEST_H

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <policygrad/context.h>
#include <policygrad/status.h>

#include "../suite.h"
#include "base/context.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        pgrad_status ok_ = (call);                                                                 \
        if (ok_ != PGRAD_OK)                                                                       \
            ck_abort_msg("%s: %s: %s", #call, pgrad_status_name(ok_),                              \
                         pgrad_error_message());                                                   \
    } while (0)

/* The call fails with this code, and its message holds this text. */
#define FAILS(code, text, call)                                                                    \
    do {                                                                                           \
        pgrad_status fails_ = (call);                                                              \
        ck_assert_msg(fails_ == (code), "%s: %s instead of %s: %s", #call,                         \
                      pgrad_status_name(fails_), pgrad_status_name(code),                          \
                      fails_ == PGRAD_OK ? "" : pgrad_error_message());                            \
        ck_assert_msg(strstr(pgrad_error_message(), text) != NULL, "'%s' is not in '%s'", text,    \
                      pgrad_error_message());                                                      \
    } while (0)

static pgrad_context *context;
static uint64_t memory_before;
static char test_folder[256];

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *place)
{
    (void)about, (void)type, (void)place;
    return remove(path);
}

static inline void setup(void)
{
    pgrad_context_params params;
    const char *base = getenv("TMPDIR");
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 1;
    OK(pgrad_context_create(&params, &context));
    memory_before = context->memory_now;
    snprintf(test_folder, sizeof test_folder, "%s/pgrad-io-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(test_folder));
}

/* Every test ends here: what it opened is closed and freed, also on the paths of failure. */
static inline void teardown(void)
{
    ck_assert_uint_eq(context->memory_now, memory_before);
    pgrad_context_free(context);
    ck_assert_int_eq(nftw(test_folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* A path inside the test's folder; a few of them live at once. */
static inline const char *in_folder(const char *name)
{
    static char paths[8][4096];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", test_folder, name);
    return path;
}

static inline const char *put_file(const char *name, const void *data, size_t size)
{
    const char *path = in_folder(name);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
    return path;
}

static inline const char *put_text_file(const char *name, const char *text)
{
    return put_file(name, text, strlen(text));
}

/* The file's bytes, a NUL behind them; free them. */
static inline char *get_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    char *data = calloc(1, 1 << 20);
    *size = fread(data, 1, (1 << 20) - 1, file);
    fclose(file);
    return data;
}

static inline void file_is(const char *path, const char *text)
{
    size_t size;
    char *data = get_file(path, &size);
    ck_assert_uint_eq(size, strlen(text));
    ck_assert_mem_eq(data, text, size);
    free(data);
}

/* ---- bytes put together by hand, little-endian ---- */

typedef struct bytes {
    unsigned char *data;
    size_t size, capacity;
} bytes;

static inline void put(bytes *to, const void *data, size_t size)
{
    if (size > to->capacity - to->size) {
        to->capacity = 2 * (to->size + size);
        to->data = realloc(to->data, to->capacity);
        ck_assert_ptr_nonnull(to->data);
    }
    if (size > 0)
        memcpy(to->data + to->size, data, size);
    to->size += size;
}

static inline void put_number(bytes *to, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = (unsigned char)(value >> 8 * i);
        put(to, &byte, 1);
    }
}

static inline void put_text(bytes *to, const char *text)
{
    put(to, text, strlen(text));
}

static inline void drop(bytes *b)
{
    free(b->data);
    memset(b, 0, sizeof *b);
}

#endif
