#include "io/append.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <policygrad/status.h>

#include "base/fail.h"
#include "io/file.h"
#include "io/system_call.h"
#include "io/zstream.h"

pgrad_status pgrad__append_open(const char *path, int *descriptor)
{
    int opened = pgrad__open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (opened < 0)
        return pgrad__fail_system(path, "open for appending");
    *descriptor = opened;
    return PGRAD_OK;
}

/* A part of a line would spoil the next one: it is taken back, unless another has written behind
 * it. */
static void take_back(int descriptor, const struct stat *before, size_t written)
{
    struct stat now;
    if (written > 0 && S_ISREG(before->st_mode) && fstat(descriptor, &now) == 0 &&
        now.st_size == before->st_size + (off_t)written)
        (void)!ftruncate(descriptor, before->st_size);
}

pgrad_status pgrad__append_write(int descriptor, const char *path, const char *data, size_t size)
{
    size_t written;
    struct stat before = {0};
    (void)fstat(descriptor, &before);
    if (pgrad__write(descriptor, data, size, &written) == 0)
        return PGRAD_OK;
    pgrad_status status = pgrad__fail_system(path, "write");
    take_back(descriptor, &before, written);
    return status;
}

enum { MARKED = 4096 }; /* bytes that are looked at */

/* CRC-32 of the last bytes before `size`. */
static pgrad_status end_crc(pgrad__file *file, uint64_t size, uint32_t *crc)
{
    unsigned char end[MARKED];
    const size_t n = size < MARKED ? (size_t)size : MARKED;
    PGRAD__TRY(pgrad__file_read(file, size - n, end, n));
    *crc = pgrad__crc32(0, end, n);
    return PGRAD_OK;
}

pgrad_status pgrad__append_mark(pgrad_context *context, const char *path, uint64_t *size,
                                uint32_t *crc)
{
    pgrad__file file = {.descriptor = -1};
    *size = *crc = 0;
    if (pgrad__path_kind(path) != PGRAD__PATH_FILE)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__file_open(context, path, &file));
    pgrad_status status = end_crc(&file, file.size, crc);
    *size = file.size;
    pgrad__file_close(&file);
    return status;
}

int pgrad__append_rewind(pgrad_context *context, int descriptor, const char *path, uint64_t size,
                         uint32_t crc)
{
    pgrad__file file = {.descriptor = -1};
    uint32_t found = 0;
    if (pgrad__path_kind(path) != PGRAD__PATH_FILE ||
        pgrad__file_open(context, path, &file) != PGRAD_OK)
        return 0;
    const int same =
        size > 0 && file.size >= size && end_crc(&file, size, &found) == PGRAD_OK && found == crc;
    pgrad__file_close(&file);
    return same && ftruncate(descriptor, (off_t)size) == 0;
}

void pgrad__append_close(int descriptor)
{
    if (descriptor >= 0)
        (void)pgrad__close(descriptor);
}
