/* GGUF files put together by hand. */
#ifndef PGRAD_TESTS_GGUF_TEST_H
#define PGRAD_TESTS_GGUF_TEST_H

#include "io/gguf.h"

#include "io_test.h"

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };
enum { T_F32 = 0, T_Q4_1 = 3, T_Q8_0 = 8, T_IQ4_XS = 23, T_I8 = 24, T_BF16 = 30 };

static inline void put_string(bytes *b, const char *text)
{
    put_number(b, strlen(text), 8);
    put_text(b, text);
}

static inline void put_head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    put_text(b, "GGUF");
    put_number(b, version, 4);
    put_number(b, n_tensors, 8);
    put_number(b, n_keys, 8);
}

static inline void put_key(bytes *b, const char *key, uint32_t type)
{
    put_string(b, key);
    put_number(b, type, 4);
}

static inline void put_integer(bytes *b, const char *key, uint32_t type, uint64_t value)
{
    static const unsigned char SIZES[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    put_key(b, key, type);
    put_number(b, value, SIZES[type]);
}

static inline void put_array(bytes *b, const char *key, uint32_t element, uint64_t count)
{
    put_key(b, key, ARRAY);
    put_number(b, element, 4);
    put_number(b, count, 8);
}

static inline void put_tensor(bytes *b, const char *name, uint32_t n_dims, const uint64_t *dims,
                              uint32_t type, uint64_t offset)
{
    put_string(b, name);
    put_number(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        put_number(b, dims[i], 8);
    put_number(b, type, 4);
    put_number(b, offset, 8);
}

static inline void pad_to(bytes *b, size_t alignment)
{
    while (b->size % alignment != 0)
        put_number(b, 0, 1);
}

/* Opens, and drops the bytes. */
static inline pgrad_status open_bytes(bytes *b, pgrad__gguf **out)
{
    const char *path = put_file("f.gguf", b->data, b->size);
    drop(b);
    return pgrad__gguf_open(context, path, out);
}

static inline void refused(const char *row, bytes *b, pgrad_status code, const char *text)
{
    pgrad__gguf *gguf = NULL;
    pgrad_status status = open_bytes(b, &gguf);
    ck_assert_msg(status == code, "%s: %s instead of %s: %s", row, pgrad_status_name(status),
                  pgrad_status_name(code), pgrad_error_message());
    ck_assert_msg(strstr(pgrad_error_message(), text) != NULL, "%s: '%s' is not in '%s'", row, text,
                  pgrad_error_message());
    ck_assert_ptr_null(gguf);
}

#endif
