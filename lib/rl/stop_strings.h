/* Finds the first of many strings in a text that comes byte by byte: an Aho-Corasick automaton
 * (1975). Not for what to do about it. */
#ifndef PGRAD_RL_STOP_STRINGS_H
#define PGRAD_RL_STOP_STRINGS_H

#include <stddef.h>
#include <stdint.h>

#include <policygrad/types.h>

typedef struct pgrad__stop_node {
    uint32_t child, sibling; /* first child, next child of the parent; 0: none */
    uint32_t fail;           /* the longest proper suffix that is a node */
    uint32_t match;          /* length of the longest string that ends here; 0: none */
    uint32_t depth;
    unsigned char byte;
} pgrad__stop_node;

typedef struct pgrad__stop_strings {
    pgrad__stop_node *nodes; /* NULL: no strings; node 0 is the root */
    uint32_t n_nodes;
    uint32_t from_root[256];
} pgrad__stop_strings;

/* The strings are not empty. The automaton is empty after a failure. */
pgrad_status pgrad__stop_strings_build(pgrad__stop_strings *stops, pgrad_context *context,
                                       const char *const *strings, size_t n);
void pgrad__stop_strings_free(pgrad__stop_strings *stops, pgrad_context *context);

/* Goes on with n bytes from *state (0 at first). Returns the length of the first string that is
 * complete, the longest of those that end there, and the number of bytes up to its end in *end; 0
 * when there is none. Linear in n. */
size_t pgrad__stop_strings_scan(const pgrad__stop_strings *stops, uint32_t *state, const char *text,
                                size_t n, size_t *end);

#endif
