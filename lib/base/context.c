#include "base/context.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"
#include "base/params_check.h"
#include "base/pool.h"
#include "base/thread.h"

/* The context itself is outside of its own accounting: what the host's allocator is asked for. */
enum {
    ALIGNMENT = 64,
    CONTEXT_BYTES = (sizeof(pgrad_context) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
};

static void *default_alloc(void *user, size_t size, size_t alignment)
{
    (void)user;
    return aligned_alloc(alignment, size);
}

static void default_free(void *user, void *pointer, size_t size)
{
    (void)user;
    (void)size;
    free(pointer);
}

const char *const pgrad__kernel_set_names[] = {"auto", "generic", "haswell", "skx", "armv8a", NULL};

pgrad_status pgrad__context_create(const pgrad_context_params *params, uint32_t kernel_set,
                                   pgrad_context **out)
{
    pgrad_allocator allocator = {NULL, default_alloc, default_free};
    if (params->allocator != NULL)
        allocator = *params->allocator;
    if (allocator.alloc == NULL || allocator.free == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "context.allocator: alloc and free must both be given");

    void *block;
    PGRAD__TRY(pgrad__alloc_block(&allocator, CONTEXT_BYTES, &block));
    pgrad_context *context = memset(block, 0, CONTEXT_BYTES);
    atomic_init(&context->references, 1);
    context->process = pgrad__os_process();
    context->allocator = allocator;
    context->memory_limit = params->memory_limit;
    context->kernel_set = kernel_set;
    context->kernel_set_asked = params->kernel_set;
    uint32_t n_threads = params->n_threads != 0 ? params->n_threads : pgrad__os_cpu_count();
    pgrad_status status = pgrad__mutex_create(context, &context->callbacks);
    if (status == PGRAD_OK)
        status = pgrad__pool_create(context, n_threads, &context->pool);
    if (status != PGRAD_OK) {
        pgrad__mutex_free(context, context->callbacks);
        allocator.free(allocator.user, context, CONTEXT_BYTES);
        return status;
    }
    *out = context;
    return PGRAD_OK;
}

void pgrad__context_retain(pgrad_context *context)
{
    atomic_fetch_add(&context->references, 1);
}

void pgrad_context_free(pgrad_context *context)
{
    if (context == NULL || atomic_fetch_sub(&context->references, 1) != 1)
        return;
    pgrad__pool_free(context, context->pool);
    pgrad__mutex_free(context, context->callbacks);
    pgrad_allocator allocator = context->allocator;
    allocator.free(allocator.user, context, CONTEXT_BYTES);
}

pgrad_status pgrad_context_get_info(pgrad_context *context, pgrad_context_info *out)
{
    if (context == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "context_get_info: %s is NULL",
                           context == NULL ? "context" : "out");
    pgrad_context_info info = {
        .n_threads = pgrad__pool_threads(context->pool),
        .kernel_set = context->kernel_set,
        .kernel_set_name = pgrad__kernel_set_names[context->kernel_set],
        .memory_now = atomic_load(&context->memory_now),
        .memory_peak = atomic_load(&context->memory_peak),
        .memory_limit = context->memory_limit,
        .n_allocations = atomic_load(&context->n_allocations),
    };
    return pgrad__struct_write("context_info", &info, sizeof info, out);
}

/* In the child of a fork a thread that is not there may hold the callbacks' mutex. */
static pgrad_status check_process(const pgrad_context *context)
{
    if (context->process != pgrad__os_process())
        return pgrad__fail(PGRAD_E_STATE,
                           "the context was made before a fork and does not work in the "
                           "child: create a new one there");
    return PGRAD_OK;
}

pgrad_status pgrad_context_set_log(pgrad_context *context, pgrad_log_fn fn, void *user,
                                   int32_t level)
{
    if (context == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "context_set_log: context is NULL");
    if (level < PGRAD_LOG_ERROR || level > PGRAD_LOG_DEBUG)
        return pgrad__fail(PGRAD_E_INVALID, "context_set_log: level: expected 0 to 3, found %d",
                           level);
    PGRAD__TRY(check_process(context));
    pgrad__mutex_lock(context->callbacks);
    context->log = fn;
    context->log_user = user;
    context->log_level = level;
    pgrad__mutex_unlock(context->callbacks);
    return PGRAD_OK;
}

pgrad_status pgrad_context_set_progress(pgrad_context *context, pgrad_progress_fn fn, void *user)
{
    if (context == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "context_set_progress: context is NULL");
    PGRAD__TRY(check_process(context));
    pgrad__mutex_lock(context->callbacks);
    context->progress = fn;
    context->progress_user = user;
    pgrad__mutex_unlock(context->callbacks);
    return PGRAD_OK;
}

void pgrad_context_cancel(pgrad_context *context)
{
    if (context != NULL)
        atomic_store(&context->cancelled, 1);
}

void pgrad_context_clear_cancel(pgrad_context *context)
{
    if (context != NULL)
        atomic_store(&context->cancelled, 0);
}

/* ---- for the other layers ---- */

pgrad_status pgrad__enter(pgrad_context *context, pgrad__scope *scope)
{
    if (context == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "context is NULL");
    PGRAD__TRY(check_process(context));
    scope->float_state = pgrad__os_float_begin();
    return PGRAD_OK;
}

void pgrad__leave(const pgrad__scope *scope)
{
    pgrad__os_float_end(scope->float_state);
}

pgrad_status pgrad__check_cancel(pgrad_context *context)
{
    if (atomic_load_explicit(&context->cancelled, memory_order_relaxed))
        return pgrad__fail(PGRAD_E_CANCELLED, "cancelled by pgrad_context_cancel");
    return PGRAD_OK;
}

/* 1, or what the host's function answered. */
static int32_t ask_progress(pgrad_context *context, const char *what, uint64_t done, uint64_t total)
{
    int32_t answer = 1;
    pgrad__mutex_lock(context->callbacks);
    if (context->progress != NULL) {
        const uint64_t state = pgrad__os_float_begin(); /* the host may leave another one */
        answer = context->progress(context->progress_user, what, done, total);
        pgrad__os_float_end(state);
    }
    pgrad__mutex_unlock(context->callbacks);
    return answer;
}

pgrad_status pgrad__progress(pgrad_context *context, const char *what, uint64_t done,
                             uint64_t total)
{
    if (ask_progress(context, what, done, total) <= 0)
        return pgrad__fail(PGRAD_E_CALLBACK,
                           "the progress function asked to stop (%s, %llu of %llu)", what,
                           (unsigned long long)done, (unsigned long long)total);
    return pgrad__check_cancel(context);
}

void pgrad__log_line(pgrad_context *context, int32_t level, const char *format, ...)
{
    char line[PGRAD__LINE_MAX];
    pgrad__mutex_lock(context->callbacks);
    if (context->log != NULL && level <= context->log_level) {
        va_list arguments;
        va_start(arguments, format);
        pgrad__format_line(line, sizeof line, format, arguments);
        va_end(arguments);
        const uint64_t state = pgrad__os_float_begin(); /* the host may leave another one */
        context->log(context->log_user, level, line);
        pgrad__os_float_end(state);
    }
    pgrad__mutex_unlock(context->callbacks);
}

static pgrad_status busy(const char *what, const char *why)
{
    return pgrad__fail(PGRAD_E_BUSY, "%s is being %s by another thread", what, why);
}

pgrad_status pgrad__lock_read(pgrad__lock *lock, const char *what)
{
    int state = atomic_load(&lock->state);
    do {
        if (state < 0)
            return busy(what, "changed");
    } while (!atomic_compare_exchange_weak(&lock->state, &state, state + 1));
    return PGRAD_OK;
}

pgrad_status pgrad__lock_write(pgrad__lock *lock, const char *what)
{
    int state = 0;
    if (!atomic_compare_exchange_strong(&lock->state, &state, -1))
        return busy(what, state < 0 ? "changed" : "read");
    return PGRAD_OK;
}

void pgrad__unlock_read(pgrad__lock *lock)
{
    atomic_fetch_sub(&lock->state, 1);
}

void pgrad__unlock_write(pgrad__lock *lock)
{
    atomic_store(&lock->state, 0);
}
