/* A text file that grows line by line: metrics. Not for files that must be whole. */
#ifndef PGRAD_IO_APPEND_H
#define PGRAD_IO_APPEND_H

#include <policygrad/types.h>

/* Opens for appending, creating it if need be; descriptor -1 on failure. */
pgrad_status pgrad__append_open(const char *path, int *descriptor);

/* Appends size bytes; lines given whole are seen whole by readers. E_IO. */
pgrad_status pgrad__append_write(int descriptor, const char *path, const char *data, size_t size);

void pgrad__append_close(int descriptor); /* -1 allowed */

#endif
