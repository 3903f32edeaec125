/* The decoder block both families share, and what stands around it: which tensor plays which part.
 * Not the tensors themselves, which the model's registry owns. */
#ifndef PGRAD_MODEL_BLOCK_H
#define PGRAD_MODEL_BLOCK_H

#include "model/model.h"

/* y = W x (+ b). */
typedef struct pgrad__linear {
    pgrad__tensor *weight;
    pgrad__tensor *bias; /* NULL: none */
} pgrad__linear;

typedef struct pgrad__norm {
    pgrad__tensor *weight;
    pgrad__tensor *bias; /* NULL: none */
} pgrad__norm;

#define PGRAD__MAX_QKV 3
#define PGRAD__MAX_EXPAND 2

/* x += output(attention(qkv(attention_norm(x)))); x += contract(mlp(expand(mlp_norm(x)))). */
typedef struct pgrad__layer {
    pgrad__norm attention_norm;
    pgrad__linear qkv[PGRAD__MAX_QKV]; /* query, key, value; or all three in the first */
    pgrad__linear output;
    pgrad__norm mlp_norm;
    pgrad__linear expand[PGRAD__MAX_EXPAND]; /* gate and up; or the first alone */
    pgrad__linear contract;
} pgrad__layer;

typedef struct pgrad__stem {
    pgrad__tensor *embedding;
    pgrad__tensor *positions; /* NULL with rope */
    pgrad__norm norm;
    pgrad__tensor *head; /* the embedding itself when tied */
} pgrad__stem;

#endif
