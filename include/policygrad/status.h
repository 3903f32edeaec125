/* Status codes and the message of the last failure.
 *
 * Every call that can fail returns a `pgrad_status`. On failure a message for people waits in a
 * buffer of the calling thread; it names file, field, what was expected and what was found.
 *
 *     if (pgrad_model_load(context, path, NULL, &model) != PGRAD_OK)
 *         fprintf(stderr, "%s\n", pgrad_error_message());
 *
 * A failed call leaves its handles unchanged and its outputs untouched, unless its own comment says
 * otherwise.
 *
 * Threads: safe. */
#ifndef POLICYGRAD_STATUS_H
#define POLICYGRAD_STATUS_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The bands are fixed: a host may compare with a band's border. New codes are added inside them. */
enum {
    PGRAD_OK = 0,
    /* -1 .. -19: the caller's mistake */
    PGRAD_E_INVALID = -1, /* an argument or option is out of range */
    PGRAD_E_STATE = -2,   /* the call is not possible now: an earlier one is missing, or a fork */
    PGRAD_E_BUSY = -3,    /* another thread's use of the handle, or another run's of the files, excludes this
                             call */
    PGRAD_E_BUFFER = -4,  /* the caller's buffer is too small; the size needed was written */
    /* -20 .. -39: the data */
    PGRAD_E_FORMAT = -20,      /* a file is malformed, truncated or contradicts itself */
    PGRAD_E_UNSUPPORTED = -21, /* well formed, but not something this library reads or does */
    PGRAD_E_MISMATCH = -22,    /* two things that must belong together do not */
    PGRAD_E_NUMERIC = -23,     /* a NaN or an infinity where a number is needed */
    /* -40 .. -59: resources */
    PGRAD_E_NOMEM = -40, /* the allocator returned NULL */
    PGRAD_E_LIMIT = -41, /* more than a limit of the context, the model or the library allows */
    PGRAD_E_IO = -42,    /* the operating system refused; the message carries its words */
    /* -60 .. -79: stopped on request */
    PGRAD_E_CANCELLED = -60, /* pgrad_context_cancel was called */
    PGRAD_E_CALLBACK = -61,  /* a callback of the host asked to stop, or failed */
    PGRAD_E_DEADLINE = -62,  /* the time given was used up */
    /* -80: the library's own mistake; please report it */
    PGRAD_E_INTERNAL = -80
};

/* Names a code, without the prefix: "E_FORMAT". Never NULL; "E_UNKNOWN" for a code this library does
 * not know. */
PGRAD_API const char *pgrad_status_name(pgrad_status code);

/* Tells what failed last on this thread, as one line of UTF-8 without a newline, control bytes
 * escaped. Never NULL; empty before the first failure. Valid until the next call on this thread; says
 * nothing of a call that succeeded. */
PGRAD_API const char *pgrad_error_message(void);

#ifdef __cplusplus
}
#endif
#endif
