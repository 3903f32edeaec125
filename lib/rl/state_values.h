/* What the writing and the reading half of state.h share: sizes of an array in a file, and which of
 * its values are refused. */
#ifndef PGRAD_RL_STATE_VALUES_H
#define PGRAD_RL_STATE_VALUES_H

#include "rl/state.h"

enum {
    PGRAD__STATE_NAME = 512, /* bytes of a name in a file, at most, with a NUL */
    PGRAD__RECORD_BYTES = 9, /* behind the name: 1 for a real, and the number */
    PGRAD__ARRAY_BYTES = 17  /* behind the name: element, two dimensions */
};

/* Rows go in and out by panels; a flat array by pieces. */
enum { PGRAD__FLAT_PIECE = 1 << 16 };

/* Rows at once, values of each, and how many rows there are. */
typedef struct pgrad__rows {
    size_t at_once, n_in, n_rows;
} pgrad__rows;
pgrad__rows pgrad__array_rows(const pgrad__state *state, const pgrad__array *array, size_t n_in);

/* NULL when all of n outputs of n_in values are good, else what is wrong. */
const char *pgrad__values_refused(const pgrad__array *array, const void *rows, size_t n,
                                  size_t n_in);

#endif
