/* Numbers as the bytes of a file: the lowest first, at any address. */
#ifndef PGRAD_IO_LITTLE_ENDIAN_H
#define PGRAD_IO_LITTLE_ENDIAN_H

#include <stddef.h>
#include <stdint.h>

static inline uint16_t pgrad__get_u16(const unsigned char *from)
{
    return (uint16_t)(from[0] | from[1] << 8);
}

static inline uint32_t pgrad__get_u32(const unsigned char *from)
{
    return (uint32_t)from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 |
           (uint32_t)from[3] << 24;
}

static inline uint64_t pgrad__get_u64(const unsigned char *from)
{
    return pgrad__get_u32(from) | (uint64_t)pgrad__get_u32(from + 4) << 32;
}

/* A number of n <= 8 bytes. */
static inline uint64_t pgrad__get_bytes(const unsigned char *from, size_t n)
{
    uint64_t value = 0;
    while (n-- > 0)
        value = value << 8 | from[n];
    return value;
}

static inline void pgrad__put_u32(unsigned char *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (unsigned char)(value >> 8 * i);
}

static inline void pgrad__put_u64(unsigned char *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (unsigned char)(value >> 8 * i);
}

#endif
