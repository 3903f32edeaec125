/* The state of a handle as records and arrays, bound to the handle's own memory: one list serves
 * writing, comparing and restoring, so that no field is written and then forgotten. */
#ifndef PGRAD_RL_STATE_H
#define PGRAD_RL_STATE_H

#include "io/checkpoint_file.h"
#include "kernel/kernel.h"

/* How a record is taken. */
enum {
    PGRAD__MATCH = 1,      /* an option: it must be the same on both sides */
    PGRAD__COUNTER = 2,    /* a number of things: at most 2^53 */
    PGRAD__NOT_FINITE = 4, /* NaN and infinity are values of it */
};

/* A number with a name: a uint64_t, uint32_t or double. */
typedef struct pgrad__record {
    const char *name;
    int is_real;
    uint32_t flags;
    uint64_t bits;     /* the number's, or the double's */
    void *target;      /* where it lives; NULL: it is only compared */
    size_t width;      /* of the target */
    int found;         /* in the file */
    uint64_t restored; /* what the file has */
} pgrad__record;

/* What is refused in an array, on both ways. */
enum {
    PGRAD__ANY_VALUES,
    PGRAD__FINITE,
    PGRAD__NOT_NEGATIVE, /* and finite */
    PGRAD__EXPONENTS     /* of 8-bit moments: a finite power of two */
};

/* An array with a name: panels, or values one after another. */
typedef struct pgrad__array {
    const char *prefix, *name; /* together the name in the file */
    pgrad__canonical element;
    uint64_t dims[2];
    uint32_t n_out; /* outputs in panels; 0: flat */
    size_t n_in;    /* inputs, or values */
    int check;
    int variable; /* flat: the file may have fewer than n_in values, or more up to `most` */
    size_t most;
    void *data;      /* NULL with no values */
    size_t bytes;    /* in memory, padding and slack included */
    void *slots[2];  /* pointers of the handle to data: restoring changes them */
    int keeps;       /* restored data stays in the state: the kind's own function takes it */
    void *staged;    /* restored, not yet in place */
    size_t n_staged; /* values */
} pgrad__array;

typedef struct pgrad__state {
    pgrad_context *context;
    const pgrad__kernels *kernels;
    pgrad__record *records;
    size_t n_records, record_capacity;
    pgrad__array *arrays;
    size_t n_arrays, array_capacity;
    void **owned; /* blocks that were packed for it */
    size_t n_owned, owned_capacity;
} pgrad__state;

void pgrad__state_init(pgrad__state *state, pgrad_context *context);
void pgrad__state_free(pgrad__state *state); /* staged arrays too; a zeroed one too */

pgrad_status pgrad__state_u64(pgrad__state *state, const char *name, uint64_t *at, uint32_t flags);
pgrad_status pgrad__state_u32(pgrad__state *state, const char *name, uint32_t *at, uint32_t flags);
pgrad_status pgrad__state_f64(pgrad__state *state, const char *name, double *at, uint32_t flags);
/* Numbers that are compared and have no place. */
pgrad_status pgrad__state_match(pgrad__state *state, const char *name, uint64_t value);
pgrad_status pgrad__state_match_real(pgrad__state *state, const char *name, double value);
/* All numbers of an option struct, to be compared; but for one of them (NULL: none), which is
 * state. */
pgrad_status pgrad__state_params(pgrad__state *state, const char *params_name, void *params,
                                 const char *but);
pgrad_status pgrad__state_array(pgrad__state *state, const pgrad__array *array);
/* A block that is freed with the state. */
pgrad_status pgrad__state_own(pgrad__state *state, size_t count, size_t size, void *out);
/* The number of this name; NULL when it has none. */
pgrad__record *pgrad__state_record(const pgrad__state *state, const char *name);
/* The array's values after staging; NULL for a name it does not have. */
const pgrad__array *pgrad__state_find(const pgrad__state *state, const char *name);

/* ---- writing ---- */

/* Bytes of memory that encoding needs beside the state. */
size_t pgrad__state_scratch(const pgrad__state *state);
/* Bytes that a copy of all arrays takes, and the copy: the state then speaks of it. */
size_t pgrad__state_copy_bytes(const pgrad__state *state);
void pgrad__state_copy(pgrad__state *state, unsigned char *block);
/* Writes the state as a part. May run on a thread of ours when `tell` is 0, else it reports
 * progress as "save". E_NUMERIC for a value that may not be. */
pgrad_status pgrad__state_write(const pgrad__state *state, uint32_t kind, const char *name,
                                pgrad__checkpoint_writer *writer, unsigned char *scratch, int tell);

/* ---- restoring ---- */

/* Reads a part beside the state and compares: E_MISMATCH names the field or array. Nothing of the
 * handle changes. */
pgrad_status pgrad__state_stage(pgrad__state *state, pgrad__checkpoint_file *file,
                                const pgrad__checkpoint_part *part);
/* Puts what was staged in place. It cannot fail. */
void pgrad__state_commit(pgrad__state *state);

#endif
