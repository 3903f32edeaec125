/* What the fuzz targets share. Each is one file with LLVMFuzzerTestOneInput: linked with libFuzzer it
 * searches (run.sh), linked with corpus_main.c it runs seeds and simple mutations of them, as a test of
 * any compiler. A violated promise is an abort; so is a byte of memory that does not come back. */
#ifndef PGRAD_TESTS_FUZZ_H
#define PGRAD_TESTS_FUZZ_H

#include <policygrad.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PROMISE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, pgrad_error_message());       \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* The failures a file may lead to: anything else says that the library went wrong. */
static inline int is_refusal(pgrad_status status)
{
    return status == PGRAD_E_FORMAT || status == PGRAD_E_UNSUPPORTED || status == PGRAD_E_LIMIT ||
           status == PGRAD_E_NOMEM || status == PGRAD_E_IO || status == PGRAD_E_MISMATCH ||
           status == PGRAD_E_NUMERIC;
}

typedef struct input {
    pgrad_context *context;
    char path[64]; /* of a file in memory that holds it */
    int descriptor;
    uint64_t memory;
} input;

static inline uint64_t memory_of(pgrad_context *context)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    PROMISE(pgrad_context_get_info(context, &info) == PGRAD_OK);
    return info.memory_now;
}

/* One context for all inputs: 256 MiB are enough for what a few KB may ask for. */
static inline input input_begin(const uint8_t *data, size_t size)
{
    static pgrad_context *context;
    input in = {0};
    if (context == NULL) {
        pgrad_context_params params;
        pgrad_context_params_init(&params, sizeof params);
        params.n_threads = 1;
        params.memory_limit = (uint64_t)256 << 20;
        PROMISE(pgrad_context_create(&params, &context) == PGRAD_OK);
    }
    in.context = context;
    in.memory = memory_of(context);
    in.descriptor = memfd_create("input", MFD_CLOEXEC);
    PROMISE(in.descriptor >= 0 && write(in.descriptor, data, size) == (ssize_t)size);
    snprintf(in.path, sizeof in.path, "/proc/self/fd/%d", in.descriptor);
    return in;
}

static inline void input_end(input *in)
{
    close(in->descriptor);
    PROMISE(memory_of(in->context) == in->memory);
}

#endif
