/* How a test program ends: its suite is run, and the status says whether all passed. */
#ifndef PGRAD_TESTS_SUITE_H
#define PGRAD_TESTS_SUITE_H

#include <check.h>

/* The status of main. The suite is used up. */
static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

/* A suite of one case; setup and teardown (NULL: none) are around each test, which has so many seconds. */
static inline int run_case(const char *name, void (*setup)(void), void (*teardown)(void), double seconds,
                           void (*add)(TCase *))
{
    Suite *suite = suite_create(name);
    TCase *tests = tcase_create(name);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, seconds);
    add(tests);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}

#endif
