#include "io/append.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/fail.h"

static pgrad_status fail(const char *path, const char *what)
{
    char text[PGRAD__PATH_MAX], words[128] = "";
    const char *said = strerror_r(errno, words, sizeof words);
    return pgrad__fail(PGRAD_E_IO, "%s: cannot %s: %s", pgrad__path_text(text, path), what, said);
}

pgrad_status pgrad__append_open(const char *path, int *descriptor)
{
    int opened = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (opened < 0)
        return fail(path, "open for appending");
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
            return fail(path, "write");
        written += (size_t)n;
    }
    return PGRAD_OK;
}

void pgrad__append_close(int descriptor)
{
    if (descriptor >= 0)
        (void)close(descriptor);
}
