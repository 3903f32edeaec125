/* The public calls of checkpoints that are opened. */
#include "rl/checkpoint.h"

#include <string.h>

#include "base/fail.h"
#include "base/params_check.h"

/* ---- reading ---- */

pgrad_status pgrad_checkpoint_open(pgrad_context *context, const char *path, pgrad_checkpoint **out)
{
    pgrad__scope scope;
    pgrad_checkpoint *made = NULL;
    if (path == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_open: path or out is NULL");
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status = pgrad__checkpoint_create(context, &made);
    if (status == PGRAD_OK) {
        made->opened = 1;
        status = pgrad__checkpoint_file_open(context, path, &made->file);
        if (status == PGRAD_OK)
            *out = made;
        else
            pgrad_checkpoint_free(made);
    }
    pgrad__leave(&scope);
    return status;
}

uint32_t pgrad_checkpoint_count(const pgrad_checkpoint *checkpoint)
{
    if (checkpoint == NULL)
        return 0;
    return checkpoint->opened ? checkpoint->file.n_parts : (uint32_t)checkpoint->n_entries;
}

static pgrad_status check_opened(const pgrad_checkpoint *checkpoint, const char *what)
{
    if (checkpoint == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "%s: checkpoint is NULL", what);
    if (!checkpoint->opened)
        return pgrad__fail(PGRAD_E_STATE, "%s: it was not opened", what);
    return PGRAD_OK;
}

pgrad_status pgrad_checkpoint_get_part(const pgrad_checkpoint *checkpoint, uint32_t index,
                                       pgrad_checkpoint_part *out)
{
    PGRAD__TRY(check_opened(checkpoint, "checkpoint_get_part"));
    if (out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_get_part: out is NULL");
    if (index >= checkpoint->file.n_parts)
        return pgrad__fail(PGRAD_E_INVALID,
                           "checkpoint_get_part: index: expected below %u, found %u",
                           checkpoint->file.n_parts, index);
    const pgrad__checkpoint_part *part = &checkpoint->file.parts[index];
    pgrad_checkpoint_part info = {
        .kind = part->kind, .size = part->size, .stored_bytes = part->stored};
    memcpy(info.name, part->name, sizeof info.name);
    return pgrad__struct_write("checkpoint_part", &info, sizeof info, out);
}

static pgrad_status find_part(const pgrad_checkpoint *checkpoint, const char *name,
                              const pgrad__kind *kind, const pgrad__checkpoint_part **out)
{
    char path[PGRAD__PATH_MAX];
    pgrad__path_text(path, checkpoint->file.file.path);
    for (uint32_t i = 0; i < checkpoint->file.n_parts; i++) {
        const pgrad__checkpoint_part *part = &checkpoint->file.parts[i];
        if (strcmp(part->name, name) != 0)
            continue;
        if (part->kind != kind->number)
            return pgrad__fail(PGRAD_E_MISMATCH, "%s: part '%s' is of kind %u, not a %s", path,
                               name, part->kind, kind->name);
        *out = part;
        return PGRAD_OK;
    }
    return pgrad__fail(PGRAD_E_MISMATCH, "%s has no part '%.64s' (%s)", path, name, kind->name);
}

static pgrad_status get_text(pgrad_checkpoint *checkpoint, const char *name, char *text,
                             size_t capacity, size_t *length)
{
    const pgrad__checkpoint_part *part;
    pgrad__text nothing = {.context = checkpoint->context};
    pgrad__state state;
    PGRAD__TRY(find_part(checkpoint, name, &pgrad__kind_text, &part));
    pgrad__state_init(&state, checkpoint->context);
    pgrad_status status = pgrad__kind_text.describe(&nothing, &state);
    if (status == PGRAD_OK)
        status = pgrad__state_stage(&state, &checkpoint->file, part);
    if (status == PGRAD_OK) {
        const pgrad__array *found = pgrad__state_find(&state, "text");
        *length = found->n_staged;
        if (capacity <= found->n_staged) {
            status = pgrad__fail(PGRAD_E_BUFFER,
                                 "checkpoint_get_text: %zu bytes are needed, capacity is %zu",
                                 found->n_staged + 1, capacity);
        } else {
            memcpy(text, found->staged, found->n_staged);
            text[found->n_staged] = '\0';
        }
    }
    pgrad__state_free(&state);
    return status;
}

pgrad_status pgrad_checkpoint_get_text(pgrad_checkpoint *checkpoint, const char *name, char *text,
                                       size_t capacity, size_t *length)
{
    pgrad__scope scope;
    PGRAD__TRY(check_opened(checkpoint, "checkpoint_get_text"));
    if (name == NULL || length == NULL || (text == NULL && capacity > 0))
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_get_text: an argument is NULL");
    PGRAD__TRY(pgrad__enter(checkpoint->context, &scope));
    pgrad_status status = get_text(checkpoint, name, text, capacity, length);
    pgrad__leave(&scope);
    return status;
}

/* ---- restoring ---- */

static pgrad_status stage(pgrad_checkpoint *checkpoint, pgrad__restoring *r)
{
    const pgrad__checkpoint_part *part;
    pgrad__state_init(&r->state, checkpoint->context);
    PGRAD__TRY(find_part(checkpoint, r->name, r->kind, &part));
    PGRAD__TRY(r->kind->describe(r->handle, &r->state));
    PGRAD__TRY(pgrad__state_stage(&r->state, &checkpoint->file, part));
    return r->kind->accept == NULL ? PGRAD_OK : r->kind->accept(r->handle, &r->state);
}

/* One model may guard several parts: its lock is taken once. */
static int locked_before(const pgrad__restoring *parts, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (parts[k].kind->model != NULL &&
            parts[k].kind->model(parts[k].handle) == parts[i].kind->model(parts[i].handle))
            return 1;
    return 0;
}

static pgrad_status restore_locked(pgrad_checkpoint *checkpoint, pgrad__restoring *parts, size_t n)
{
    pgrad_status status = PGRAD_OK;
    for (size_t i = 0; status == PGRAD_OK && i < n; i++)
        status = stage(checkpoint, &parts[i]);
    for (size_t i = 0; status == PGRAD_OK && i < n; i++) {
        pgrad__state_commit(&parts[i].state);
        if (parts[i].kind->restored != NULL)
            parts[i].kind->restored(parts[i].handle, &parts[i].state);
    }
    for (size_t i = 0; i < n; i++)
        pgrad__state_free(&parts[i].state);
    return status;
}

pgrad_status pgrad__checkpoint_restore(pgrad_checkpoint *checkpoint, pgrad__restoring *parts,
                                       size_t n)
{
    size_t n_locked = 0;
    pgrad_status status = PGRAD_OK;
    for (; status == PGRAD_OK && n_locked < n; n_locked++)
        if (parts[n_locked].kind->model != NULL && !locked_before(parts, n_locked))
            status = pgrad__lock_write(&parts[n_locked].kind->model(parts[n_locked].handle)->lock,
                                       "checkpoint_restore: the model");
    if (status != PGRAD_OK)
        n_locked--;
    else
        status = restore_locked(checkpoint, parts, n);
    while (n_locked-- > 0)
        if (parts[n_locked].kind->model != NULL && !locked_before(parts, n_locked))
            pgrad__unlock_write(&parts[n_locked].kind->model(parts[n_locked].handle)->lock);
    return status;
}

pgrad_status pgrad_checkpoint_restore(pgrad_checkpoint *checkpoint, const char *name, int32_t kind,
                                      void *handle)
{
    pgrad__scope scope;
    PGRAD__TRY(check_opened(checkpoint, "checkpoint_restore"));
    pgrad__restoring part = {.name = name, .kind = pgrad__kind_find(kind), .handle = handle};
    if (name == NULL || handle == NULL || part.kind == NULL)
        return pgrad__fail(PGRAD_E_INVALID,
                           "checkpoint_restore: name or handle is NULL, or %d is no "
                           "kind of handle",
                           kind);
    if (part.kind->context(handle) != checkpoint->context)
        return pgrad__fail(PGRAD_E_MISMATCH, "checkpoint_restore: '%.64s' is of another context",
                           name);
    PGRAD__TRY(pgrad__enter(checkpoint->context, &scope));
    pgrad_status status = pgrad__checkpoint_restore(checkpoint, &part, 1);
    pgrad__leave(&scope);
    return status;
}
