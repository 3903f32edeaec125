#include "io/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/fail.h"
#include "base/os.h"
#include "io/system_call.h"

pgrad_status pgrad__file_lock(pgrad_context *context, int descriptor, const char *path)
{
    char text[PGRAD__PATH_MAX];
    struct stat about;
    if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode) ||
        flock(descriptor, LOCK_EX | LOCK_NB) == 0)
        return PGRAD_OK;
    if (errno == EWOULDBLOCK)
        return pgrad__fail(PGRAD_E_BUSY, "%s: another run is at work there",
                           pgrad__path_text(text, path));
    pgrad__log_line(context, PGRAD_LOG_WARNING,
                    "%s: cannot be locked here: another run at it would not be noticed",
                    pgrad__path_text(text, path));
    return PGRAD_OK;
}

void pgrad__file_unlock(pgrad_context *context, int descriptor)
{
    if (descriptor >= 0 && context->process == pgrad__os_process())
        (void)flock(descriptor, LOCK_UN);
}

/* Between opening and locking, the run before may have ended, and removed it. */
static int is_gone(int descriptor)
{
    struct stat about;
    return fstat(descriptor, &about) == 0 && about.st_nlink == 0;
}

pgrad_status pgrad__lock_file_take(pgrad_context *context, const char *path, pgrad__lock_file *lock)
{
    static const char SUFFIX[] = ".lock";
    pgrad__lock_file made = {.context = context, .descriptor = -1};
    pgrad_status status = PGRAD_OK;
    const size_t length = strlen(path);
    PGRAD__TRY(pgrad__alloc(context, length + sizeof SUFFIX, 1, &made.path));
    memcpy(made.path, path, length);
    memcpy(made.path + length, SUFFIX, sizeof SUFFIX);
    do {
        if (made.descriptor >= 0)
            (void)pgrad__close(made.descriptor);
        made.descriptor = pgrad__open(made.path, O_RDWR | O_CREAT, 0666);
        if (made.descriptor < 0)
            PGRAD__GO(pgrad__fail_system(made.path, "create"));
        PGRAD__GO(pgrad__file_lock(context, made.descriptor, made.path));
    } while (is_gone(made.descriptor));
    *lock = made;
    return PGRAD_OK;
fail:
    if (made.descriptor >= 0)
        (void)pgrad__close(made.descriptor);
    pgrad__free(context, made.path);
    return status;
}

/* Removed while it is held: whoever opens the path then has a lock of its own. */
void pgrad__lock_file_drop(pgrad__lock_file *lock)
{
    if (lock->context == NULL)
        return;
    if (lock->context->process == pgrad__os_process())
        (void)unlink(lock->path);
    pgrad__file_unlock(lock->context, lock->descriptor);
    (void)pgrad__close(lock->descriptor);
    pgrad__free(lock->context, lock->path);
    memset(lock, 0, sizeof *lock);
}
