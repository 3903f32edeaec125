/* What the examples share: a failing call prints its message and ends the program. The embedded
 * model is found from the top of the source tree; the build says where it is. */
#ifndef POLICYGRAD_EXAMPLES_COMMON_H
#define POLICYGRAD_EXAMPLES_COMMON_H

#include <policygrad.h>
#include <stdio.h>
#include <stdlib.h>

#ifndef EXAMPLE_MODEL
#define EXAMPLE_MODEL "examples/embedded/model"
#endif

#define CHECK(call)                                                                                \
    do {                                                                                           \
        pgrad_status check_status_ = (call);                                                       \
        if (check_status_ != PGRAD_OK) {                                                           \
            fprintf(stderr, "%s: %s\n", pgrad_status_name(check_status_), pgrad_error_message());  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#endif
