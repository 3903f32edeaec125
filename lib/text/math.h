/* Mathematical answers as people write them in LaTeX: reading and comparing. Not computer algebra:
 * expressions are compared by their values, with variables at a few fixed places. */
#ifndef PGRAD_TEXT_MATH_H
#define PGRAD_TEXT_MATH_H

#include "base/strbuf.h"

enum { PGRAD__MATH_PROBES = 4, PGRAD__MATH_ITEMS = 24 };

/* An expression's values where every variable has a place of its own; NaN where it has none. */
typedef struct pgrad__math_value {
    double at[PGRAD__MATH_PROBES];
    int whole;   /* made of whole numbers, and one itself: compared without tolerance */
    int decimal; /* a decimal fraction was written: compared to six places */
    int percent; /* % stands behind it */
} pgrad__math_value;

typedef struct pgrad__math_item {
    int relation;      /* 0: an expression, its value in `right`; else '=', '<', 'l' (at most) */
    int is_assignment; /* an equation with one name on the left */
    pgrad__math_value left, right;
    const char *word; /* a name alone, NULL: it is more */
    size_t word_length;
} pgrad__math_item;

typedef struct pgrad__math {
    pgrad__strbuf text; /* without spaces and decoration */
    int is_read;        /* 0: only the text can be compared */
    char open, close;   /* what is around a list, 0: nothing */
    uint32_t n_items;   /* 1: no list */
    pgrad__math_item items[PGRAD__MATH_ITEMS];
} pgrad__math;

/* Reads an answer, any bytes. What is not understood keeps its text. E_NOMEM. */
pgrad_status pgrad__math_read(pgrad_context *context, const char *text, size_t length,
                              pgrad__math *out);
void pgrad__math_free(pgrad__math *math);

/* Whether an answer is the right one; the form that `right` has decides what of an equation counts.
 */
int pgrad__math_equal(const pgrad__math *right, const pgrad__math *answer);

/* Reads one expression without spaces and decoration: 1 when all of it was understood. sign is
 * what +- stands for, 1 or -1; *has_signs tells whether there was one. */
int pgrad__math_expression(const char *text, size_t length, int sign, pgrad__math_value *out,
                           int *has_signs);

#endif
