/* What a checkpoint has in it, to be changed and written again with the checksums that belong to it: files that lie. */
#ifndef PGRAD_TESTS_CHECKPOINT_CONTENTS_H
#define PGRAD_TESTS_CHECKPOINT_CONTENTS_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "base/real.h"
#include "io/checkpoint_file.h"
#include "io/little_endian.h"
#include "kernel/kernel.h"

enum { MOST_PARTS = 12 };

typedef struct contents {
    uint32_t n;
    unsigned char *bytes[MOST_PARTS];
    size_t sizes[MOST_PARTS];
    pgrad__checkpoint_part parts[MOST_PARTS];
} contents;

static inline contents read_contents(pgrad_context *context, const char *path)
{
    contents c = {0};
    pgrad__checkpoint_file from = {0};
    ck_assert_int_eq(pgrad__checkpoint_file_open(context, path, &from), PGRAD_OK);
    ck_assert_uint_le(from.n_parts, MOST_PARTS);
    for (; c.n < from.n_parts; c.n++) {
        pgrad__checkpoint_stream stream;
        c.parts[c.n] = from.parts[c.n];
        c.sizes[c.n] = (size_t)from.parts[c.n].size;
        c.bytes[c.n] = malloc(c.sizes[c.n]);
        pgrad__checkpoint_stream_begin(&stream, &from, &from.parts[c.n]);
        ck_assert_int_eq(pgrad__checkpoint_stream_read(&stream, c.bytes[c.n], c.sizes[c.n]), PGRAD_OK);
    }
    pgrad__checkpoint_file_close(&from);
    return c;
}

/* Parts [first, end) alone. */
static inline void write_contents(pgrad_context *context, const char *path, const contents *c, uint32_t first,
                                  uint32_t end)
{
    pgrad__checkpoint_writer to = {0};
    ck_assert_int_eq(pgrad__checkpoint_writer_open(context, path, end - first, &to), PGRAD_OK);
    for (uint32_t i = first; i < end; i++) {
        ck_assert_int_eq(pgrad__checkpoint_writer_begin(&to, c->parts[i].kind, c->parts[i].name), PGRAD_OK);
        ck_assert_int_eq(pgrad__checkpoint_writer_put(&to, c->bytes[i], c->sizes[i]), PGRAD_OK);
        ck_assert_int_eq(pgrad__checkpoint_writer_end(&to), PGRAD_OK);
    }
    ck_assert_int_eq(pgrad__checkpoint_writer_finish(&to, 1), PGRAD_OK);
    pgrad__checkpoint_writer_close(&to);
}

/* One more part, of any kind. */
static inline void add_part(contents *c, uint32_t kind, const char *name, const void *bytes, size_t size)
{
    ck_assert_uint_lt(c->n, MOST_PARTS);
    pgrad__checkpoint_part *part = &c->parts[c->n];
    *part = (pgrad__checkpoint_part){.kind = kind};
    ck_assert_uint_lt(strlen(name), sizeof part->name);
    memcpy(part->name, name, strlen(name));
    c->sizes[c->n] = size;
    c->bytes[c->n] = malloc(size);
    memcpy(c->bytes[c->n++], bytes, size);
}

static inline void free_contents(contents *c)
{
    while (c->n > 0)
        free(c->bytes[--c->n]);
}

/* Number `index` of a part: its name (not closed by a NUL) and the 8 bytes of its value; NULL behind the last, where
 * *name is what follows. */
static inline unsigned char *number_at(const contents *c, uint32_t part, uint32_t index, const unsigned char **name,
                                       size_t *length)
{
    unsigned char *at = c->bytes[part] + 8;
    const uint32_t n = pgrad__get_u32(c->bytes[part]);
    for (uint32_t i = 0; i < n; i++) {
        *length = pgrad__get_u16(at);
        *name = at + 2;
        at += 2 + *length + 1 + 8;
        if (i == index)
            return at - 8;
    }
    *name = at;
    *length = 0;
    return NULL;
}

/* The values of array `index` of a part, none in q8_0, and their bytes; NULL behind the last. */
static inline unsigned char *array_at(const contents *c, uint32_t part, uint32_t index, size_t *size)
{
    static const size_t WIDTHS[] = {[PGRAD__CANONICAL_F32] = 4, [PGRAD__CANONICAL_BF16] = 2, [PGRAD__CANONICAL_BYTE] = 1};
    const uint32_t n = pgrad__get_u32(c->bytes[part] + 4);
    const unsigned char *head;
    size_t length, before = 0;
    uint32_t i = 0;
    while (number_at(c, part, i, &head, &length) != NULL)
        i++;
    for (i = 0; i < n; i++) {
        head += 2 + pgrad__get_u16(head) + 1 + 8 + 8;
        const size_t bytes = WIDTHS[head[-17]] * (size_t)(pgrad__get_u64(head - 16) * pgrad__get_u64(head - 8));
        before += i < index ? bytes : 0;
        *size = i == index ? bytes : *size;
    }
    return index < n ? c->bytes[part] + (head - c->bytes[part]) + before : NULL;
}

static inline uint32_t part_named(const contents *c, const char *name)
{
    uint32_t i = 0;
    while (i < c->n && strcmp(c->parts[i].name, name) != 0)
        i++;
    ck_assert_msg(i < c->n, "no part '%s'", name);
    return i;
}

static inline unsigned char *number_named(const contents *c, const char *part, const char *number)
{
    const unsigned char *name;
    size_t length;
    unsigned char *found;
    const uint32_t of = part_named(c, part);
    for (uint32_t i = 0; (found = number_at(c, of, i, &name, &length)) != NULL; i++)
        if (length == strlen(number) && memcmp(name, number, length) == 0)
            return found;
    ck_abort_msg("part '%s' has no '%s'", part, number);
}

#endif
