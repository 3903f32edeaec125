#include "io/system_call.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"

pgrad_status pgrad__fail_system(const char *path, const char *what)
{
    char text[PGRAD__PATH_MAX], words[128] = "";
    const int error = errno;
    const char *said = strerror_r(error, words, sizeof words);
    return pgrad__fail(error == ENOMEM ? PGRAD_E_NOMEM : PGRAD_E_IO, "%s: cannot %s: %s",
                       pgrad__path_text(text, path), what, said);
}

int pgrad__open(const char *path, int flags, unsigned mode)
{
    int descriptor;
    do
        descriptor = open(path, flags | O_CLOEXEC, mode);
    while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

int pgrad__write(int descriptor, const void *data, size_t size, size_t *written)
{
    const unsigned char *from = data;
    *written = 0;
    while (*written < size) {
        const ssize_t n = write(descriptor, from + *written, size - *written);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = ENOSPC;
        if (n <= 0)
            return -1;
        *written += (size_t)n;
    }
    return 0;
}

int pgrad__sync(int descriptor)
{
    int result;
    do
        result = fsync(descriptor);
    while (result != 0 && errno == EINTR);
    return result;
}

int pgrad__close(int descriptor)
{
    return close(descriptor) == 0 || errno == EINTR ? 0 : -1;
}
