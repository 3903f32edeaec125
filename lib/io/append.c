#include "io/append.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <policygrad/status.h>

#include "io/system_error.h"

pgrad_status pgrad__append_open(const char *path, int *descriptor)
{
    int opened = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (opened < 0)
        return pgrad__fail_system(path, "open for appending");
    *descriptor = opened;
    return PGRAD_OK;
}

pgrad_status pgrad__append_write(int descriptor, const char *path, const char *data, size_t size)
{
    size_t written = 0;
    while (written < size) {
        ssize_t n = write(descriptor, data + written, size - written);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return pgrad__fail_system(path, "write");
        written += (size_t)n;
    }
    return PGRAD_OK;
}

void pgrad__append_close(int descriptor)
{
    if (descriptor >= 0)
        (void)close(descriptor);
}
