/* A model as a Hugging Face folder. */
#include "model/weights.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "io/safetensors.h"

static pgrad_status check_finite(const pgrad_model *model)
{
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__tensor *tensor = &model->tensors[i];
        int finite = tensor->matrix.n_out > 0
                         ? pgrad__matrix_all_finite(model->context, &tensor->matrix)
                         : pgrad__all_finite(model->context, tensor->data, tensor->floats);
        if (!finite)
            return pgrad__fail(PGRAD_E_NUMERIC, "tensor '%s': a weight is not finite",
                               tensor->name);
    }
    return PGRAD_OK;
}

/* The config as it was read, all keys in their order, with the element type of the new file under
 * the key the config uses already (transformers 4 and 5 spell it differently). */
static pgrad_status write_config(const pgrad_model *model, const char *dtype, pgrad__folder *folder)
{
    pgrad_context *context = model->context;
    pgrad__json *json = NULL;
    char *text = NULL;
    size_t length;
    pgrad_status status;
    PGRAD__GO(
        pgrad__json_parse(context, model->config_text, model->config_length, "config.json", &json));
    int has_new = pgrad__json_get(json, "dtype") != NULL;
    if (has_new)
        PGRAD__GO(pgrad__json_set_string(json, "dtype", dtype));
    if (!has_new || pgrad__json_get(json, "torch_dtype") != NULL)
        PGRAD__GO(pgrad__json_set_string(json, "torch_dtype", dtype));
    PGRAD__GO(pgrad__json_write(context, json, 2, &text, &length));
    PGRAD__GO(pgrad__folder_put(folder, "config.json", text, length));
fail:
    pgrad__free(context, text);
    pgrad__json_free(json);
    return status;
}

typedef struct row_source {
    const pgrad_model *model;
    uint64_t done, total; /* elements */
} row_source;

static pgrad_status weight_rows(void *user, size_t i, uint64_t first, uint64_t count, float *out)
{
    row_source *from = user;
    const pgrad__tensor *tensor = &from->model->tensors[i];
    pgrad__tensor_get_rows(from->model, tensor, 0, first, count, out);
    from->done += count * pgrad__tensor_row_floats(tensor);
    return pgrad__progress(from->model->context, "save", from->done, from->total);
}

static pgrad_status write_weights(const pgrad_model *model, int as_bf16, pgrad__folder *folder)
{
    pgrad_context *context = model->context;
    pgrad__safetensors_entry *entries = NULL;
    pgrad__writer writer = {.descriptor = -1};
    row_source from = {.model = model};
    char *path = NULL;
    pgrad_status status;
    PGRAD__GO(pgrad__calloc(context, model->n_tensors, sizeof *entries, &entries));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__tensor *tensor = &model->tensors[i];
        entries[i].name = pgrad__tensor_file_name(model, tensor);
        entries[i].n_dims = tensor->n_dims;
        entries[i].dims[0] = tensor->dims[0];
        entries[i].dims[1] = tensor->dims[1];
        from.total += pgrad__tensor_elements(tensor);
    }
    PGRAD__GO(pgrad__path_join(context, folder->temporary, "model.safetensors", &path));
    PGRAD__GO(pgrad__writer_open(context, path, &writer));
    PGRAD__GO(
        pgrad__safetensors_write(&writer, entries, model->n_tensors, as_bf16, weight_rows, &from));
    PGRAD__GO(pgrad__writer_commit(&writer));
fail:
    pgrad__writer_abort(&writer);
    pgrad__free(context, path);
    pgrad__free(context, entries);
    return status;
}

pgrad_status pgrad__model_write(pgrad_model *model, const pgrad_save_params *params,
                                pgrad__folder *folder)
{
    int as_bf16 = params->dtype == PGRAD_DTYPE_BF16;
    PGRAD__TRY(check_finite(model));
    PGRAD__TRY(write_config(model, as_bf16 ? "bfloat16" : "float32", folder));
    if (model->generation_config_text != NULL)
        PGRAD__TRY(pgrad__folder_put(folder, "generation_config.json",
                                     model->generation_config_text,
                                     model->generation_config_length));
    return write_weights(model, as_bf16, folder);
}
