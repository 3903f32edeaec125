#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"
#include "io/system_call.h"

static int kind_of(mode_t mode)
{
    return S_ISREG(mode)   ? PGRAD__PATH_FILE
           : S_ISDIR(mode) ? PGRAD__PATH_FOLDER
                           : PGRAD__PATH_OTHER;
}

int pgrad__path_kind(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 ? kind_of(about.st_mode) : PGRAD__PATH_NONE;
}

const char *pgrad__path_kind_name(int kind)
{
    static const char *const NAMES[] = {"nothing", "a file", "a folder",
                                        "a device, pipe or socket"};
    return NAMES[kind];
}

pgrad_status pgrad__file_open(pgrad_context *context, const char *path, pgrad__file *file)
{
    pgrad_status status = PGRAD_OK;
    pgrad__file opened = {.context = context, .descriptor = -1};
    char text[PGRAD__PATH_MAX];
    struct stat about;

    PGRAD__GO(pgrad__copy_text(context, path, strlen(path), &opened.path));
    /* Without O_NONBLOCK a FIFO would wait for its writer. */
    opened.descriptor = pgrad__open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (opened.descriptor < 0)
        PGRAD__GO(pgrad__fail_system(path, "open"));
    if (fstat(opened.descriptor, &about) != 0)
        PGRAD__GO(pgrad__fail_system(path, "look at"));
    if (!S_ISREG(about.st_mode))
        PGRAD__GO(pgrad__fail(PGRAD_E_FORMAT, "%s: expected a regular file, found %s",
                              pgrad__path_text(text, path),
                              pgrad__path_kind_name(kind_of(about.st_mode))));
    opened.size = (uint64_t)about.st_size;
    *file = opened;
    return PGRAD_OK;
fail:
    pgrad__file_close(&opened);
    return status;
}

void pgrad__file_close(pgrad__file *file)
{
    if (file->path == NULL) /* zeroed: its descriptor is not ours */
        return;
    if (file->descriptor >= 0)
        (void)pgrad__close(file->descriptor);
    pgrad__free(file->context, file->path);
    file->path = NULL;
    file->descriptor = -1;
}

pgrad_status pgrad__file_read(pgrad__file *file, uint64_t offset, void *out, size_t size)
{
    char text[PGRAD__PATH_MAX];
    unsigned char *to = out;
    size_t done = 0;
    if (offset > file->size || size > file->size - offset)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: truncated: expected %zu bytes at offset %llu, the file has %llu",
                           pgrad__path_text(text, file->path), size, (unsigned long long)offset,
                           (unsigned long long)file->size);
    while (done < size) {
        ssize_t n = pread(file->descriptor, to + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return pgrad__fail_system(file->path, "read");
        if (n == 0)
            return pgrad__fail(
                PGRAD_E_FORMAT,
                "%s: truncated while it was read: expected %zu bytes at offset %llu, "
                "found %zu",
                pgrad__path_text(text, file->path), size, (unsigned long long)offset, done);
        done += (size_t)n;
    }
    return PGRAD_OK;
}

pgrad_status pgrad__file_load(pgrad_context *context, const char *path, size_t limit, char **out,
                              size_t *size)
{
    pgrad_status status = PGRAD_OK;
    pgrad__file file = {.descriptor = -1};
    char text[PGRAD__PATH_MAX], *data = NULL;
    size_t with_nul = 0;

    PGRAD__TRY(pgrad__file_open(context, path, &file));
    if (file.size > limit || !pgrad__add((size_t)file.size, 1, &with_nul))
        PGRAD__GO(pgrad__fail(PGRAD_E_LIMIT, "%s: %llu bytes, at most %zu are read",
                              pgrad__path_text(text, path), (unsigned long long)file.size, limit));
    PGRAD__GO(pgrad__alloc(context, with_nul, 1, &data));
    PGRAD__GO(pgrad__file_read(&file, 0, data, (size_t)file.size));
    data[file.size] = '\0';
    *out = data;
    *size = (size_t)file.size;
    pgrad__file_close(&file);
    return PGRAD_OK;
fail:
    pgrad__free(context, data);
    pgrad__file_close(&file);
    return status;
}

pgrad_status pgrad__path_join(pgrad_context *context, const char *folder, const char *name,
                              char **out)
{
    size_t before = strlen(folder), after = strlen(name);
    size_t slash = before > 0 && folder[before - 1] != '/';
    char *joined;
    PGRAD__TRY(pgrad__alloc(context, before + slash + after + 1, 1, &joined));
    memcpy(joined, folder, before);
    if (slash)
        joined[before] = '/';
    memcpy(joined + before + slash, name, after + 1);
    *out = joined;
    return PGRAD_OK;
}

pgrad_status pgrad__path_target(pgrad_context *context, const char *path, char **out)
{
    char found[PATH_MAX];
    if (realpath(path, found) != NULL)
        return pgrad__copy_text(context, found, strlen(found), out);
    if (errno != ENOENT)
        return pgrad__fail_system(path, "find");
    if (path[0] == '/' || path[0] == '\0')
        return pgrad__copy_text(context, path, strlen(path), out);
    if (getcwd(found, sizeof found) == NULL)
        return pgrad__fail_system(path, "find the current folder for");
    return pgrad__path_join(context, found, path, out);
}

int pgrad__path_is_plain(const char *name, size_t length)
{
    enum { LONGEST_NAME = 255 };
    if (length == 0 || length > LONGEST_NAME || (length == 1 && name[0] == '.'))
        return 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)name[i];
        if (byte < 0x20 || byte == 0x7f || byte == '/' || byte == '\\')
            return 0;
        if (byte == '.' && i + 1 < length && name[i + 1] == '.')
            return 0;
    }
    return 1;
}
