/* Safetensors files put together by hand. */
#ifndef PGRAD_TESTS_SAFETENSORS_TEST_H
#define PGRAD_TESTS_SAFETENSORS_TEST_H

#include "io/safetensors.h"

#include "io_test.h"

/* Writes length, header and data_size bytes 0, 1, 2 ... */
static inline const char *put_st(const char *name, const char *header, size_t data_size)
{
    bytes b = {0};
    put_number(&b, strlen(header), 8);
    put_text(&b, header);
    for (size_t i = 0; i < data_size; i++)
        put_number(&b, i & 255, 1);
    const char *path = put_file(name, b.data, b.size);
    drop(&b);
    return path;
}

#endif
