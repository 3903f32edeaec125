#include "io/atomic_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"
#include "io/file.h"
#include "io/system_call.h"

enum { BUFFER_SIZE = 1 << 18, MAX_TRIES = 100 };

/* ---- names beside the target ---- */

/* "TARGET.tmp-PROCESS-NUMBER", on the same file system as the target. */
static pgrad_status temporary_name(pgrad_context *context, const char *path, unsigned number,
                                   char **out)
{
    char suffix[64];
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    int more =
        snprintf(suffix, sizeof suffix, ".tmp-%lld-%u", (long long)pgrad__os_process(), number);
    char *name;
    PGRAD__TRY(pgrad__alloc(context, length + (size_t)more + 1, 1, &name));
    memcpy(name, path, length);
    memcpy(name + length, suffix, (size_t)more + 1);
    *out = name;
    return PGRAD_OK;
}

/* Makes what stands in a folder durable: its entries are only after this. */
static pgrad_status sync_folder(const char *path)
{
    int descriptor = pgrad__open(path, O_RDONLY | O_DIRECTORY, 0);
    if (descriptor < 0)
        return pgrad__fail_system(path, "open the folder");
    int failed = pgrad__sync(descriptor) != 0 && errno != EINVAL; /* not every file system can */
    pgrad_status status = failed ? pgrad__fail_system(path, "sync the folder") : PGRAD_OK;
    (void)pgrad__close(descriptor);
    return status;
}

/* The folder something stands in. */
static pgrad_status find_parent(pgrad_context *context, const char *path, char **out)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    return length == 0 ? pgrad__copy_text(context, ".", 1, out)
                       : pgrad__copy_text(context, path, length, out);
}

static pgrad_status sync_parent(pgrad_context *context, const char *path)
{
    char *parent;
    PGRAD__TRY(find_parent(context, path, &parent));
    pgrad_status status = sync_folder(parent);
    pgrad__free(context, parent);
    return status;
}

/* ---- one file ---- */

/* A lock says that the file's writer lives. It goes with the process, however that ends. */
static int lock_temporary(int descriptor)
{
    struct stat about;
    (void)flock(descriptor, LOCK_EX | LOCK_NB);
    return fstat(descriptor, &about) == 0 && about.st_nlink > 0; /* not cleaned away in between */
}

/* Creates the temporary, with the permissions of the file it will replace. */
static pgrad_status create_temporary(pgrad__writer *writer)
{
    struct stat old;
    for (unsigned number = 0; writer->descriptor < 0; number++) {
        char *name;
        PGRAD__TRY(temporary_name(writer->context, writer->path, number, &name));
        writer->descriptor = pgrad__open(name, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (writer->descriptor >= 0 && lock_temporary(writer->descriptor)) {
            writer->temporary = name;
            break;
        }
        const int exists = writer->descriptor >= 0 || errno == EEXIST;
        pgrad_status status = pgrad__fail_system(writer->path, "create a file beside it");
        if (writer->descriptor >= 0)
            (void)pgrad__close(writer->descriptor);
        writer->descriptor = -1;
        pgrad__free(writer->context, name);
        if (!exists || number >= MAX_TRIES)
            return status;
    }
    if (stat(writer->path, &old) == 0)
        (void)fchmod(writer->descriptor, old.st_mode & 0777);
    return PGRAD_OK;
}

pgrad_status pgrad__writer_open(pgrad_context *context, const char *path, pgrad__writer *writer)
{
    char text[PGRAD__PATH_MAX];
    pgrad__writer made = {.context = context, .descriptor = -1, .lock = -1};
    pgrad_status status = PGRAD_OK;
    int kind = pgrad__path_kind(path);
    if (kind == PGRAD__PATH_FOLDER || kind == PGRAD__PATH_OTHER)
        return pgrad__fail(PGRAD_E_IO,
                           "%s: expected a regular file or nothing to write over, found %s",
                           pgrad__path_text(text, path), pgrad__path_kind_name(kind));
    PGRAD__GO(pgrad__path_target(context, path, &made.path));
    PGRAD__GO(find_parent(context, made.path, &made.parent));
    PGRAD__GO(pgrad__alloc(context, BUFFER_SIZE, 1, &made.buffer));
    PGRAD__GO(create_temporary(&made));
    *writer = made;
    return PGRAD_OK;
fail:
    pgrad__free(context, made.buffer);
    pgrad__free(context, made.parent);
    pgrad__free(context, made.path);
    return status;
}

static pgrad_status write_all(pgrad__writer *writer, const void *data, size_t size)
{
    size_t written;
    return pgrad__write(writer->descriptor, data, size, &written) == 0
               ? PGRAD_OK
               : pgrad__fail_system(writer->path, "write");
}

static pgrad_status flush(pgrad__writer *writer)
{
    PGRAD__TRY(write_all(writer, writer->buffer, writer->buffered));
    writer->buffered = 0;
    return PGRAD_OK;
}

pgrad_status pgrad__writer_write(pgrad__writer *writer, const void *data, size_t size)
{
    if (size > BUFFER_SIZE - writer->buffered)
        PGRAD__TRY(flush(writer));
    if (size >= BUFFER_SIZE) {
        PGRAD__TRY(write_all(writer, data, size));
    } else if (size > 0) {
        memcpy(writer->buffer + writer->buffered, data, size);
        writer->buffered += size;
    }
    writer->size += size;
    return PGRAD_OK;
}

/* The lock stays until the temporary is in place: another process would clean it away. */
static pgrad_status close_durably(pgrad__writer *writer)
{
    PGRAD__TRY(flush(writer));
    if (pgrad__sync(writer->descriptor) != 0)
        return pgrad__fail_system(writer->path, "sync");
    writer->lock = fcntl(writer->descriptor, F_DUPFD_CLOEXEC, 0);
    int closed = pgrad__close(writer->descriptor);
    writer->descriptor = -1;
    return closed != 0 ? pgrad__fail_system(writer->path, "close") : PGRAD_OK;
}

static void release(pgrad__writer *writer)
{
    pgrad_context *context = writer->context;
    pgrad__free(context, writer->temporary);
    pgrad__free(context, writer->buffer);
    pgrad__free(context, writer->parent);
    pgrad__free(context, writer->path);
    memset(writer, 0, sizeof *writer);
    writer->descriptor = -1;
}

pgrad_status pgrad__writer_commit(pgrad__writer *writer)
{
    pgrad_status status = pgrad__writer_place(writer, 1);
    pgrad__writer_abort(writer);
    return status;
}

/* Where nothing is to be removed any more, the first byte of `temporary` is NUL. */
void pgrad__writer_abort(pgrad__writer *writer)
{
    if (writer->context == NULL)
        return;
    if (writer->descriptor >= 0)
        (void)pgrad__close(writer->descriptor);
    if (writer->lock >= 0)
        (void)pgrad__close(writer->lock);
    if (writer->temporary[0] != '\0')
        (void)unlink(writer->temporary);
    release(writer);
}

/* ---- older versions of a file ---- */

typedef struct old_name {
    char path[PATH_MAX];
} old_name;

/* "PATH.NUMBER"; PATH itself for 0. It fits: a temporary's name is longer, and could be opened. */
static void name_old(const char *path, uint32_t number, old_name *out)
{
    if (number == 0)
        (void)snprintf(out->path, sizeof out->path, "%s", path);
    else
        (void)snprintf(out->path, sizeof out->path, "%s.%u", path, number);
}

/* Moves PATH.first .. PATH.keep-2 on by one, as far as they exist. */
static pgrad_status shift_old(const char *path, uint32_t first, uint32_t keep)
{
    old_name from, to;
    for (uint32_t i = keep - 1; i-- > first;) {
        name_old(path, i, &from);
        name_old(path, i + 1, &to);
        if (rename(from.path, to.path) != 0 && errno != ENOENT)
            return pgrad__fail_system(from.path, "move on");
    }
    return PGRAD_OK;
}

static int exchange(const char *a, const char *b)
{
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

/* From errno: whether exchanging is what the file system cannot do. */
static int cannot_exchange(void)
{
    return errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP;
}

static pgrad_status put_new_file(pgrad__writer *writer)
{
    return rename(writer->temporary, writer->path) == 0
               ? PGRAD_OK
               : pgrad__fail_system(writer->path, "put the new file in place");
}

/* The old file, which stands at the temporary name now, takes its place in the row. */
static pgrad_status keep_exchanged(pgrad__writer *writer, const char *first, uint32_t keep)
{
    PGRAD__TRY(sync_folder(writer->parent));
    PGRAD__TRY(shift_old(writer->path, 1, keep));
    return rename(writer->temporary, first) == 0 ? PGRAD_OK
                                                 : pgrad__fail_system(first, "keep the old file");
}

/* Exchanges new and old, and once that is durable keeps the old one; where that fails they change
 * back. Where the file system cannot, the row moves first: for a moment nothing stands at the path
 * itself. */
static pgrad_status place_before_old(pgrad__writer *writer, uint32_t keep)
{
    old_name first;
    name_old(writer->path, 1, &first);
    if (exchange(writer->temporary, writer->path) == 0) {
        const pgrad_status status = keep_exchanged(writer, first.path, keep);
        if (status != PGRAD_OK)
            (void)exchange(writer->temporary, writer->path);
        return status;
    }
    if (cannot_exchange())
        PGRAD__TRY(shift_old(writer->path, 0, keep));
    else if (errno != ENOENT)
        return pgrad__fail_system(writer->path, "put the new file in place");
    return put_new_file(writer);
}

pgrad_status pgrad__writer_place(pgrad__writer *writer, uint32_t keep)
{
    PGRAD__TRY(close_durably(writer));
    PGRAD__TRY(keep > 1 ? place_before_old(writer, keep) : put_new_file(writer));
    writer->temporary[0] = '\0';
    return sync_folder(writer->parent);
}

/* Removes an entry named as the temporaries of `name` are, unless its writer holds it. */
static void clean_entry(pgrad_context *context, const char *parent, const char *name,
                        const char *entry)
{
    const size_t length = strlen(name);
    char *path;
    if (strncmp(entry, name, length) != 0 || strncmp(entry + length, ".tmp-", 5) != 0 ||
        pgrad__path_join(context, parent, entry, &path) != PGRAD_OK)
        return;
    const int descriptor = pgrad__open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, 0);
    struct stat about;
    if (descriptor >= 0 && fstat(descriptor, &about) == 0 && S_ISREG(about.st_mode) &&
        flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        (void)unlink(path);
    if (descriptor >= 0)
        (void)pgrad__close(descriptor);
    pgrad__free(context, path);
}

void pgrad__writer_clean(pgrad_context *context, const char *path)
{
    char *target, *parent;
    struct dirent *entry;
    if (pgrad__path_target(context, path, &target) != PGRAD_OK)
        return;
    if (find_parent(context, target, &parent) == PGRAD_OK) {
        const char *slash = strrchr(target, '/');
        DIR *folder = opendir(parent);
        while (folder != NULL && (entry = readdir(folder)) != NULL)
            clean_entry(context, parent, slash == NULL ? target : slash + 1, entry->d_name);
        if (folder != NULL)
            (void)closedir(folder);
        pgrad__free(context, parent);
    }
    pgrad__free(context, target);
}

/* ---- a folder ---- */

static pgrad_status keep_entry(pgrad_context *context, const char *from, const char *to);

static pgrad_status keep_named(pgrad_context *context, const char *old, const char *new,
                               const char *name)
{
    char *from = NULL, *to = NULL;
    pgrad_status status = PGRAD_OK;
    PGRAD__GO(pgrad__path_join(context, old, name, &from));
    PGRAD__GO(pgrad__path_join(context, new, name, &to));
    status = keep_entry(context, from, to);
fail:
    pgrad__free(context, from);
    pgrad__free(context, to);
    return status;
}

/* Moves what the old folder holds and the new one lacks, and removes the rest and the old folder.
 * Goes round again while entries were found: readdir may miss some while others go. */
static pgrad_status keep_entries(pgrad_context *context, const char *old, const char *new)
{
    pgrad_status status = PGRAD_OK;
    struct dirent *entry;
    size_t found;
    DIR *folder = opendir(old);
    if (folder == NULL)
        return pgrad__fail_system(old, "open the folder");
    do {
        found = 0;
        rewinddir(folder);
        while (status == PGRAD_OK && (entry = readdir(folder)) != NULL) {
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            status = keep_named(context, old, new, entry->d_name);
            found++;
        }
    } while (status == PGRAD_OK && found > 0);
    (void)closedir(folder);
    if (status == PGRAD_OK && rmdir(old) != 0)
        status = pgrad__fail_system(old, "remove the folder");
    return status;
}

/* What stands at a path itself, links not followed. */
static int kind_of_entry(const char *path)
{
    struct stat about;
    if (lstat(path, &about) != 0)
        return PGRAD__PATH_NONE;
    return S_ISDIR(about.st_mode) ? PGRAD__PATH_FOLDER : PGRAD__PATH_FILE;
}

/* 1 when it is gone. Takes no memory of the context's, which may be what has run out. */
static int remove_tree(int parent, const char *name)
{
    const int descriptor = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *folder = descriptor < 0 ? NULL : fdopendir(descriptor);
    struct dirent *entry;
    size_t removed = folder != NULL;
    while (removed > 0) { /* readdir may miss some while others go */
        removed = 0;
        rewinddir(folder);
        while ((entry = readdir(folder)) != NULL) {
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            removed += unlinkat(descriptor, entry->d_name, 0) == 0 ||
                       (errno == EISDIR && remove_tree(descriptor, entry->d_name));
        }
    }
    if (folder != NULL)
        (void)closedir(folder);
    else if (descriptor >= 0)
        (void)pgrad__close(descriptor);
    return unlinkat(parent, name, AT_REMOVEDIR) == 0;
}

/* A file that the new one replaces goes. */
static pgrad_status keep_entry(pgrad_context *context, const char *from, const char *to)
{
    char path[PGRAD__PATH_MAX];
    const int old = kind_of_entry(from), new = kind_of_entry(to);
    if (new == PGRAD__PATH_NONE)
        return rename(from, to) == 0 ? PGRAD_OK
                                     : pgrad__fail_system(from, "move to the new folder");
    if (old != PGRAD__PATH_FOLDER)
        return unlink(from) == 0 ? PGRAD_OK : pgrad__fail_system(from, "remove the old file");
    if (new == PGRAD__PATH_FOLDER)
        return keep_entries(context, from, to);
    return pgrad__fail(PGRAD_E_IO, "%s: a folder where the new one has a file",
                       pgrad__path_text(path, from));
}

/* Makes the folder that is built, with the permissions of the one it will replace. */
static pgrad_status create_folder(pgrad__folder *folder)
{
    struct stat old;
    for (unsigned number = 0;; number++) {
        char *name;
        PGRAD__TRY(temporary_name(folder->context, folder->path, number, &name));
        if (mkdir(name, 0777) == 0) {
            folder->temporary = name;
            break;
        }
        const int exists = errno == EEXIST;
        pgrad_status status = pgrad__fail_system(folder->path, "create a folder beside it");
        pgrad__free(folder->context, name);
        if (!exists || number >= MAX_TRIES)
            return status;
    }
    if (stat(folder->path, &old) == 0)
        (void)chmod(folder->temporary, (old.st_mode & 0777) | S_IRWXU);
    return PGRAD_OK;
}

pgrad_status pgrad__folder_open(pgrad_context *context, const char *path, pgrad__folder *folder)
{
    char text[PGRAD__PATH_MAX];
    pgrad__folder made = {.context = context};
    pgrad_status status = PGRAD_OK;
    int kind = pgrad__path_kind(path);
    if (kind == PGRAD__PATH_FILE || kind == PGRAD__PATH_OTHER)
        return pgrad__fail(PGRAD_E_IO, "%s: expected a folder or nothing, found %s",
                           pgrad__path_text(text, path), pgrad__path_kind_name(kind));
    PGRAD__GO(pgrad__path_target(context, path, &made.path));
    PGRAD__GO(create_folder(&made));
    *folder = made;
    return PGRAD_OK;
fail:
    pgrad__free(context, made.path);
    return status;
}

pgrad_status pgrad__folder_put(pgrad__folder *folder, const char *name, const void *data,
                               size_t size)
{
    pgrad__writer writer = {.descriptor = -1};
    char *path;
    PGRAD__TRY(pgrad__path_join(folder->context, folder->temporary, name, &path));
    pgrad_status status = pgrad__writer_open(folder->context, path, &writer);
    pgrad__free(folder->context, path);
    PGRAD__TRY(status);
    status = pgrad__writer_write(&writer, data, size);
    if (status != PGRAD_OK) {
        pgrad__writer_abort(&writer);
        return status;
    }
    return pgrad__writer_commit(&writer);
}

/* No exchange on this file system: for a moment nothing stands at the path, never a half. */
static pgrad_status put_in_two_moves(pgrad__folder *folder)
{
    char *old;
    pgrad_status status = PGRAD_OK;
    PGRAD__TRY(temporary_name(folder->context, folder->path, MAX_TRIES + 1, &old));
    if (rename(folder->path, old) != 0) {
        status = pgrad__fail_system(folder->path, "move the old folder aside");
    } else if (rename(folder->temporary, folder->path) != 0) {
        status = pgrad__fail_system(folder->path, "put the new folder in place");
        (void)rename(old, folder->path);
    } else {
        pgrad__free(folder->context, folder->temporary);
        folder->temporary = old;
        return PGRAD_OK;
    }
    pgrad__free(folder->context, old);
    return status;
}

/* Puts the new folder where the old one is; *swapped: the old one now stands at the temporary name.
 */
static pgrad_status put_in_place(pgrad__folder *folder, int *swapped)
{
    *swapped = pgrad__path_kind(folder->path) != PGRAD__PATH_NONE;
    if (!*swapped) {
        if (rename(folder->temporary, folder->path) == 0)
            return PGRAD_OK;
        return pgrad__fail_system(folder->path, "put the new folder in place");
    }
    if (exchange(folder->temporary, folder->path) == 0)
        return PGRAD_OK;
    if (!cannot_exchange())
        return pgrad__fail_system(folder->path, "put the new folder in place");
    return put_in_two_moves(folder);
}

static void release_folder(pgrad__folder *folder)
{
    pgrad__free(folder->context, folder->temporary);
    pgrad__free(folder->context, folder->path);
    memset(folder, 0, sizeof *folder);
}

/* Removes the old folder's files that the new ones stand for under other names. */
static pgrad_status drop_replaced(const pgrad__folder *folder)
{
    pgrad_status status = PGRAD_OK;
    struct dirent *entry;
    DIR *old = opendir(folder->temporary);
    if (old == NULL)
        return pgrad__fail_system(folder->temporary, "open the folder");
    while (status == PGRAD_OK && (entry = readdir(old)) != NULL)
        if (folder->replaces(entry->d_name) && unlinkat(dirfd(old), entry->d_name, 0) != 0)
            status = pgrad__fail_system(folder->temporary, "remove an old file of it");
    (void)closedir(old);
    return status;
}

/* The new folder is in place: brings over what it lacks. Should that fail, the rest stays where it
 * is and the message tells where. */
static pgrad_status keep_others(pgrad__folder *folder)
{
    char path[PGRAD__PATH_MAX], text[PGRAD__PATH_MAX];
    pgrad_status status = folder->replaces == NULL ? PGRAD_OK : drop_replaced(folder);
    if (status == PGRAD_OK)
        status = keep_entries(folder->context, folder->temporary, folder->path);
    if (status != PGRAD_OK)
        return pgrad__fail_in(
            status, "%s: saved, but other files of the old folder are left in %s: ",
            pgrad__path_text(path, folder->path), pgrad__path_text(text, folder->temporary));
    return sync_folder(folder->path);
}

pgrad_status pgrad__folder_commit(pgrad__folder *folder)
{
    int swapped;
    pgrad_status status = sync_folder(folder->temporary);
    if (status == PGRAD_OK)
        status = put_in_place(folder, &swapped);
    if (status != PGRAD_OK) {
        pgrad__folder_abort(folder);
        return status;
    }
    if (swapped)
        status = keep_others(folder);
    if (status == PGRAD_OK)
        status = sync_parent(folder->context, folder->path);
    release_folder(folder);
    return status;
}

void pgrad__folder_abort(pgrad__folder *folder)
{
    if (folder->context == NULL)
        return;
    (void)remove_tree(AT_FDCWD, folder->temporary);
    release_folder(folder);
}
