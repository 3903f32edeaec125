/* A model as a Hugging Face folder. */
#include "model/weights.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/strbuf.h"
#include "io/safetensors.h"

static pgrad_status check_finite(const pgrad_model *model)
{
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__tensor *tensor = &model->tensors[i];
        int finite = pgrad__tensor_is_matrix(tensor)
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

/* ---- weights: one file, or shards under a size ---- */

typedef struct weight_writer {
    const pgrad_model *model;
    pgrad__folder *folder;
    pgrad__safetensors_entry *entries; /* of all tensors */
    int as_bf16;
    uint64_t most;        /* bytes of tensors in a file */
    uint32_t first;       /* tensor of the file being written */
    uint64_t done, total; /* elements */
} weight_writer;

static uint64_t tensor_bytes(const weight_writer *w, uint32_t i)
{
    return pgrad__tensor_elements(&w->model->tensors[i]) * (w->as_bf16 ? 2 : 4);
}

/* The tensor behind the last one of the file that begins with `first`: as many as fit, one at
 * least. */
static uint32_t file_end(const weight_writer *w, uint32_t first)
{
    uint64_t bytes = tensor_bytes(w, first);
    uint32_t end = first + 1;
    while (end < w->model->n_tensors && bytes <= w->most && tensor_bytes(w, end) <= w->most - bytes)
        bytes += tensor_bytes(w, end++);
    return end;
}

static uint32_t count_files(const weight_writer *w)
{
    uint32_t n = 0;
    for (uint32_t first = 0; first < w->model->n_tensors; first = file_end(w, first))
        n++;
    return n;
}

static void file_name(char name[64], uint32_t number, uint32_t n_files)
{
    if (n_files == 1)
        (void)snprintf(name, 64, "model.safetensors");
    else
        (void)snprintf(name, 64, "model-%05u-of-%05u.safetensors", number, n_files);
}

/* The names above and the index: files of an old folder that a reader might take for the new
 * weights. */
static int is_weight_file(const char *name)
{
    static const char SHARD[] = "model-#####-of-#####.safetensors";
    if (strcmp(name, "model.safetensors") == 0 || strcmp(name, "model.safetensors.index.json") == 0)
        return 1;
    for (size_t i = 0; i < sizeof SHARD; i++)
        if (SHARD[i] == '#' ? name[i] < '0' || name[i] > '9' : name[i] != SHARD[i])
            return 0;
    return 1;
}

static pgrad_status weight_rows(void *user, size_t i, uint64_t first, uint64_t count, float *out)
{
    weight_writer *w = user;
    const pgrad__tensor *tensor = &w->model->tensors[w->first + i];
    pgrad__tensor_get_rows(w->model, tensor, 0, first, count, out);
    w->done += count * pgrad__tensor_row_floats(tensor);
    return pgrad__progress(w->model->context, "save", w->done, w->total);
}

/* Tensors [w->first, end). */
static pgrad_status write_file(weight_writer *w, uint32_t end, const char *name)
{
    pgrad_context *context = w->model->context;
    pgrad__writer writer = {.descriptor = -1};
    char *path = NULL;
    pgrad_status status;
    PGRAD__GO(pgrad__path_join(context, w->folder->temporary, name, &path));
    PGRAD__GO(pgrad__writer_open(context, path, &writer));
    PGRAD__GO(pgrad__safetensors_write(&writer, w->entries + w->first, end - w->first, w->as_bf16,
                                       weight_rows, w));
    PGRAD__GO(pgrad__writer_commit(&writer));
fail:
    pgrad__writer_abort(&writer);
    pgrad__free(context, path);
    return status;
}

/* model.safetensors.index.json: which file each tensor is in. */
static pgrad_status write_index(const weight_writer *w, uint32_t n_files)
{
    pgrad__strbuf text = {.context = w->model->context};
    char name[64];
    uint32_t number = 0;
    pgrad__strbuf_format(&text, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n",
                         (unsigned long long)w->total * (w->as_bf16 ? 2 : 4));
    pgrad__strbuf_text(&text, "  \"weight_map\": {");
    for (uint32_t first = 0, end; first < w->model->n_tensors; first = end) {
        end = file_end(w, first);
        file_name(name, ++number, n_files);
        for (uint32_t i = first; i < end; i++) {
            pgrad__strbuf_text(&text, i > 0 ? ",\n    " : "\n    ");
            pgrad__json_quote(&text, w->entries[i].name, strlen(w->entries[i].name));
            pgrad__strbuf_format(&text, ": \"%s\"", name);
        }
    }
    pgrad__strbuf_text(&text, "\n  }\n}\n");
    pgrad_status status = text.status;
    if (status == PGRAD_OK)
        status =
            pgrad__folder_put(w->folder, "model.safetensors.index.json", text.data, text.length);
    pgrad__strbuf_free(&text);
    return status;
}

static pgrad_status write_files(weight_writer *w)
{
    char name[64];
    const uint32_t n_files = count_files(w);
    uint32_t number = 0;
    if (n_files > PGRAD__MAX_SHARDS)
        return pgrad__fail(PGRAD_E_INVALID,
                           "save.max_shard_bytes: %llu makes %u files, at most %d are read",
                           (unsigned long long)w->most, n_files, PGRAD__MAX_SHARDS);
    for (uint32_t end; w->first < w->model->n_tensors; w->first = end) {
        end = file_end(w, w->first);
        file_name(name, ++number, n_files);
        PGRAD__TRY(write_file(w, end, name));
    }
    return n_files > 1 ? write_index(w, n_files) : PGRAD_OK;
}

static pgrad_status write_weights(const pgrad_model *model, const pgrad_save_params *params,
                                  pgrad__folder *folder)
{
    weight_writer w = {.model = model,
                       .folder = folder,
                       .as_bf16 = params->dtype == PGRAD_DTYPE_BF16,
                       .most = params->max_shard_bytes > 0 ? params->max_shard_bytes : UINT64_MAX};
    PGRAD__TRY(pgrad__calloc(model->context, model->n_tensors, sizeof *w.entries, &w.entries));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__tensor *tensor = &model->tensors[i];
        w.entries[i] = (pgrad__safetensors_entry){.name = pgrad__tensor_file_name(model, tensor),
                                                  .n_dims = tensor->n_dims,
                                                  .dims = {tensor->dims[0], tensor->dims[1]}};
        w.total += pgrad__tensor_elements(tensor);
    }
    folder->replaces = is_weight_file;
    pgrad_status status = write_files(&w);
    pgrad__free(model->context, w.entries);
    return status;
}

pgrad_status pgrad__model_write(pgrad_model *model, const pgrad_save_params *params,
                                pgrad__folder *folder)
{
    const char *dtype = params->dtype == PGRAD_DTYPE_BF16 ? "bfloat16" : "float32";
    PGRAD__TRY(check_finite(model));
    PGRAD__TRY(write_config(model, dtype, folder));
    if (model->generation_config_text != NULL)
        PGRAD__TRY(pgrad__folder_put(folder, "generation_config.json",
                                     model->generation_config_text,
                                     model->generation_config_length));
    return write_weights(model, params, folder);
}
