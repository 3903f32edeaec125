/* What the tests of lib/base and lib/kernel share. */
#ifndef PGRAD_TESTS_BASE_TEST_H
#define PGRAD_TESTS_BASE_TEST_H

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <policygrad/context.h>
#include <policygrad/status.h>

#include "../suite.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        pgrad_status ok_ = (call);                                                                 \
        if (ok_ != PGRAD_OK)                                                                       \
            ck_abort_msg("%s: %s: %s", #call, pgrad_status_name(ok_),                              \
                         pgrad_error_message());                                                   \
    } while (0)

/* The call fails with this code, and its message holds this text. */
#define FAILS(code, text, call)                                                                    \
    do {                                                                                           \
        pgrad_status fails_ = (call);                                                              \
        ck_assert_msg(fails_ == (code), "%s: %s instead of %s: %s", #call,                         \
                      pgrad_status_name(fails_), pgrad_status_name(code),                          \
                      fails_ == PGRAD_OK ? "" : pgrad_error_message());                            \
        ck_assert_msg(strstr(pgrad_error_message(), text) != NULL, "'%s' is not in '%s'", text,    \
                      pgrad_error_message());                                                      \
    } while (0)

static inline pgrad_context *make_context(uint32_t n_threads, uint32_t kernel_set)
{
    pgrad_context_params params;
    pgrad_context *context = NULL;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = n_threads;
    params.kernel_set = kernel_set;
    OK(pgrad_context_create(&params, &context));
    return context;
}

#endif
