/* Where gradients live. A model takes memory for them with its first backward pass and keeps it; a
 * pass that updates each tensor as soon as its gradient is complete borrows a block instead, which
 * holds the embedding's and one layer's at a time. */
#ifndef PGRAD_MODEL_GRADIENTS_H
#define PGRAD_MODEL_GRADIENTS_H

#include "model/arch.h"
#include "model/block.h"

void pgrad__gradients_free(pgrad_model *model);

/* The gradients of a backward pass. */
typedef struct pgrad__gradients {
    pgrad_model *model;
    pgrad__update_fn update; /* NULL: they stay */
    void *user;
    float *block; /* of pgrad__gradients_borrowed floats; NULL: the model's own are used */
    int begun;    /* a tensor may have been updated: no way back */
} pgrad__gradients;

size_t pgrad__gradients_borrowed(const pgrad_model *model);

/* Between begin and end the tensors that the pass has reached have gradients; end takes a block
 * away from them. */
void pgrad__gradients_begin(pgrad__gradients *gradients);
void pgrad__gradients_end(pgrad__gradients *gradients);

/* The gradient of this layer is complete: layers come from the last to the first. The last one
 * answers for final norm and head too. */
pgrad_status pgrad__gradients_layer_done(pgrad__gradients *gradients, uint32_t layer);
/* Those of embedding and positions are. */
pgrad_status pgrad__gradients_stem_done(pgrad__gradients *gradients);

#endif
