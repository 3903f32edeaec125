/* The registry of a model's tensors: which there are, their memory, and rows in and out of it in
 * the order of a checkpoint. Not their names in each family, which arch.h has as data. */
#ifndef PGRAD_MODEL_WEIGHTS_H
#define PGRAD_MODEL_WEIGHTS_H

#include "io/tensor_file.h"
#include "model/arch.h"

/* Makes model->tensors, layers and stem from the config: names and shapes, no weights yet. */
pgrad_status pgrad__tensors_plan(pgrad_model *model);
/* Their memory, padding zeroed, the weights themselves yet to be filled. */
pgrad_status pgrad__tensors_allocate(pgrad_model *model);
void pgrad__tensors_free(pgrad_model *model);

/* A tensor's name in the model's own checkpoint: without the prefix where that had none. */
const char *pgrad__tensor_file_name(const pgrad_model *model, const pgrad__tensor *tensor);

/* NULL when there is none. */
pgrad__tensor *pgrad__tensor_by_name(const pgrad_model *model, const char *name);
uint64_t pgrad__tensor_elements(const pgrad__tensor *tensor);

/* Rows of a tensor: the outputs of a matrix, the inputs of a transposed one, the rows of a table,
 * the one row of a vector, as the checkpoint has them. */
uint64_t pgrad__tensor_rows(const pgrad__tensor *tensor);
size_t pgrad__tensor_row_floats(const pgrad__tensor *tensor);
/* Copies rows out of the weights, or the gradient. */
void pgrad__tensor_get_rows(const pgrad_model *model, const pgrad__tensor *tensor, int gradient,
                            uint64_t first, uint64_t n, float *out);

/* Copies rows in. by_outputs: a transposed matrix is given as [out, in] all the same (GGUF). */
void pgrad__tensor_set_rows(const pgrad_model *model, pgrad__tensor *tensor, int by_outputs,
                            uint64_t first, uint64_t n, const float *rows);

/* Gives rows [first, first + n) of tensor `index`; called by several threads at once. */
typedef pgrad_status (*pgrad__rows_fn)(void *user, uint32_t index, uint64_t first, uint64_t n,
                                       float *out);
/* Fills all tensors by chunks spread over the threads; tells progress as "load". */
pgrad_status pgrad__tensors_fill(pgrad_model *model, int by_outputs, pgrad__rows_fn rows,
                                 void *user);

/* Matches the file's tensors against the plan: shapes exact, the missing listed, the unknown told
 * in the log. Then, in pgrad__weights_load, allocates and reads. */
pgrad_status pgrad__weights_load(pgrad_model *model, const pgrad__tensor_set *set, int is_gguf);
/* Allocates and fills from random numbers. */
pgrad_status pgrad__weights_create(pgrad_model *model, uint64_t seed);

#endif
