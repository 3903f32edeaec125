/* pgrad_model_save lives here and not in lib/model: a folder holds a model and a tokenizer. */
#include <policygrad/model.h>

#include "base/fail.h"
#include "base/params_check.h"
#include "model/model.h"
#include "text/tokenizer.h"

static pgrad_status write_folder(pgrad_model *model, const pgrad_save_params *params,
                                 pgrad__folder *folder)
{
    PGRAD__TRY(pgrad__model_write(model, params, folder));
    if (params->tokenizer != NULL)
        PGRAD__TRY(pgrad__tokenizer_write(params->tokenizer, folder));
    return pgrad__folder_commit(folder);
}

static pgrad_status save(pgrad_model *model, const char *path, const pgrad_save_params *params)
{
    pgrad_save_params read;
    pgrad__folder folder = {0};
    PGRAD__TRY(pgrad__params_read("save", params, &read));
    PGRAD__TRY(pgrad__lock_read(&model->lock, "model_save: the model"));
    pgrad_status status = pgrad__folder_open(model->context, path, &folder);
    if (status == PGRAD_OK)
        status = write_folder(model, &read, &folder);
    if (status != PGRAD_OK)
        pgrad__folder_abort(&folder);
    pgrad__unlock_read(&model->lock);
    return status;
}

pgrad_status pgrad_model_save(pgrad_model *model, const char *path, const pgrad_save_params *params)
{
    pgrad__scope scope;
    if (model == NULL || path == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "model_save: %s is NULL",
                           model == NULL ? "model" : "path");
    if (path[0] == '\0')
        return pgrad__fail(PGRAD_E_INVALID, "model_save: path: expected a folder, found \"\"");
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    pgrad_status status = save(model, path, params);
    pgrad__leave(&scope);
    return status;
}
