/* A context of two threads around each test. */
#ifndef PGRAD_TESTS_MODEL_FIXTURE_H
#define PGRAD_TESTS_MODEL_FIXTURE_H

#include "model_test.h"

static pgrad_context *context;

static inline void setup(void)
{
    context = test_context(PGRAD_KERNELS_AUTO, 2);
    ck_assert_ptr_nonnull(context);
}

static inline void teardown(void)
{
    pgrad_context_free(context);
}

#endif
