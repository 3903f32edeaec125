/* Panels to rows and back, byte for byte: nothing is computed. */
#include <string.h>

#include "kernel/kernel.h"
#include "kernel/panels.h"

enum { BLOCK = 64 }; /* inputs at once: what is read and written stays in the first-level cache */

static size_t element_bytes(pgrad__canonical element)
{
    static const size_t BYTES[] = {4, 2, 1, 1};
    return BYTES[element];
}

size_t pgrad__canonical_bytes(pgrad__canonical element, size_t n_in)
{
    const size_t scales =
        element == PGRAD__CANONICAL_Q8_0 ? pgrad__panel_count(n_in, PGRAD__Q8_BLOCK) : 0;
    return n_in * element_bytes(element) + scales * sizeof(uint16_t);
}

/* Lanes of one panel, and where their outputs go to or come from. */
typedef struct lanes {
    unsigned char *panel, *rows;
    size_t wide, first, n, row_bytes;
    int out; /* of the panel */
} lanes;

static inline void move(const lanes *l, size_t in_panel, size_t in_row, size_t n, size_t size)
{
    for (size_t lane = 0; lane < l->n; lane++) {
        unsigned char *panel = l->panel + in_panel + (l->first + lane) * size;
        unsigned char *row = l->rows + lane * l->row_bytes + in_row;
        for (size_t k = 0; k < n; k++)
            memcpy(l->out ? row + k * size : panel + k * l->wide * size,
                   l->out ? panel + k * l->wide * size : row + k * size, size);
    }
}

/* n inputs of every lane from a place in the panel and in the row on; with the size of an element
 * known to the compiler. */
static void move_run(const lanes *l, size_t in_panel, size_t in_row, size_t n, size_t size)
{
    for (size_t k = 0; k < n; k += BLOCK) {
        const size_t now = pgrad__min(BLOCK, n - k);
        const size_t from = in_panel + k * l->wide * size, to = in_row + k * size;
        if (size == 4)
            move(l, from, to, now, 4);
        else if (size == 2)
            move(l, from, to, now, 2);
        else
            move(l, from, to, now, 1);
    }
}

static void move_lanes(const lanes *l, pgrad__canonical element, size_t n_in)
{
    enum { Q = PGRAD__Q8_BLOCK, SCALE = sizeof(uint16_t) };
    if (element != PGRAD__CANONICAL_Q8_0) {
        move_run(l, 0, 0, n_in, element_bytes(element));
        return;
    }
    for (size_t k = 0; k < n_in; k += Q) {
        const size_t block = k / Q * (Q + SCALE);
        move_run(l, block * l->wide, block, 1, SCALE);
        move_run(l, (block + SCALE) * l->wide, block + SCALE, pgrad__min(Q, n_in - k), 1);
    }
}

static void move_all(const pgrad__kernels *kernels, pgrad__canonical element, size_t n_in,
                     unsigned char *panels, size_t first, size_t n, unsigned char *rows, int out)
{
    const size_t row_bytes = pgrad__canonical_bytes(element, n_in), wide = kernels->wide;
    for (size_t done = 0; done < n;) {
        const size_t o = first + done, lane = o % wide;
        const lanes l = {.panel = panels + o / wide * row_bytes * wide,
                         .rows = rows + done * row_bytes,
                         .wide = wide,
                         .first = lane,
                         .n = pgrad__min(wide - lane, n - done),
                         .row_bytes = row_bytes,
                         .out = out};
        move_lanes(&l, element, n_in);
        done += l.n;
    }
}

/* One loop serves both ways: what is const stays as it is. */
void pgrad__canonical_get(const pgrad__kernels *kernels, pgrad__canonical element, size_t n_in,
                          const void *panels, size_t first, size_t n, void *rows)
{
    unsigned char *from;
    memcpy(&from, &panels, sizeof from);
    move_all(kernels, element, n_in, from, first, n, rows, 1);
}

void pgrad__canonical_put(const pgrad__kernels *kernels, pgrad__canonical element, size_t n_in,
                          void *panels, size_t first, size_t n, const void *rows)
{
    unsigned char *from;
    memcpy(&from, &rows, sizeof from);
    move_all(kernels, element, n_in, panels, first, n, from, 0);
}
