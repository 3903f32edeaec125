/* The public calls of checkpoints that are written; checkpoint_read.c has the others. */
#include "rl/checkpoint.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/utf8.h"
#include "base/os.h"
#include "base/params_check.h"
#include "base/thread.h"
#include "model/model.h"

/* ---- life ---- */

pgrad_status pgrad__checkpoint_create(pgrad_context *context, pgrad_checkpoint **out)
{
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof **out, out));
    (*out)->context = context;
    atomic_init(&(*out)->references, 1);
    pgrad__context_retain(context);
    return PGRAD_OK;
}

pgrad_status pgrad_checkpoint_create(pgrad_context *context, pgrad_checkpoint **out)
{
    pgrad__scope scope;
    pgrad_checkpoint *made;
    if (out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_create: out is NULL");
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status = pgrad__checkpoint_create(context, &made);
    if (status == PGRAD_OK)
        *out = made;
    pgrad__leave(&scope);
    return status;
}

static void end_writing(pgrad_checkpoint *checkpoint)
{
    pgrad__writing *writing = &checkpoint->writing;
    for (size_t i = 0; i < checkpoint->n_entries; i++)
        pgrad__state_free(&checkpoint->entries[i].state);
    pgrad__checkpoint_writer_close(&writing->writer);
    pgrad__free(checkpoint->context, writing->scratch);
    writing->scratch = NULL;
    writing->thread = NULL;
    writing->active = 0;
    atomic_store(&writing->hurry, 0);
}

/* Waits for the thread, and gives what came of it. */
static pgrad_status wait(pgrad_checkpoint *checkpoint)
{
    pgrad__writing *writing = &checkpoint->writing;
    if (!writing->active)
        return PGRAD_OK;
    atomic_store(&writing->hurry, 1);
    const int ended = pgrad__thread_join(checkpoint->context, writing->thread);
    if (!ended) { /* in a child of the process: the file is the parent's */
        writing->writer.file.temporary[0] = '\0';
        writing->status = PGRAD_OK;
    }
    pgrad_status status = writing->status;
    if (status != PGRAD_OK)
        pgrad__message_set(writing->message);
    end_writing(checkpoint);
    return status;
}

static void release(pgrad_checkpoint *checkpoint)
{
    pgrad_context *context = checkpoint->context;
    (void)wait(checkpoint);
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        pgrad__free(context, checkpoint->entries[i].copy);
        checkpoint->entries[i].kind->release(checkpoint->entries[i].handle);
    }
    pgrad__free(context, checkpoint->entries);
    pgrad__checkpoint_file_close(&checkpoint->file);
    pgrad__free(context, checkpoint);
    pgrad_context_free(context);
}

void pgrad_checkpoint_free(pgrad_checkpoint *checkpoint)
{
    if (checkpoint != NULL && atomic_fetch_sub(&checkpoint->references, 1) == 1)
        release(checkpoint);
}

/* ---- adding ---- */

static pgrad__entry *find_entry(const pgrad_checkpoint *checkpoint, const char *name)
{
    for (size_t i = 0; i < checkpoint->n_entries; i++)
        if (strcmp(checkpoint->entries[i].name, name) == 0)
            return &checkpoint->entries[i];
    return NULL;
}

static pgrad_status check_name(const pgrad_checkpoint *checkpoint, const char *name)
{
    const size_t length = strlen(name);
    if (checkpoint->opened)
        return pgrad__fail(PGRAD_E_STATE, "checkpoint_add: it was opened, to be restored from");
    if (length == 0 || length >= PGRAD__CHECKPOINT_NAME)
        return pgrad__fail(PGRAD_E_INVALID,
                           "checkpoint_add: name: expected 1 to %d bytes, found %zu",
                           PGRAD__CHECKPOINT_NAME - 1, length);
    if (!pgrad__utf8_is_name(name, length))
        return pgrad__fail(PGRAD_E_INVALID,
                           "checkpoint_add: name: expected UTF-8 without control characters, "
                           "found '%s'",
                           name);
    return PGRAD_OK;
}

pgrad_status pgrad__checkpoint_add(pgrad_checkpoint *checkpoint, const char *name,
                                   const pgrad__kind *kind, void *handle)
{
    PGRAD__TRY(check_name(checkpoint, name));
    if (find_entry(checkpoint, name) != NULL)
        return pgrad__fail(PGRAD_E_STATE, "checkpoint_add: there is a part '%s' already", name);
    if (checkpoint->n_entries == PGRAD__CHECKPOINT_PARTS)
        return pgrad__fail(PGRAD_E_LIMIT,
                           "checkpoint_add: '%s': there are %d parts already, the most", name,
                           PGRAD__CHECKPOINT_PARTS);
    if (kind->context(handle) != checkpoint->context)
        return pgrad__fail(PGRAD_E_MISMATCH, "checkpoint_add: '%s' is of another context", name);
    PGRAD__TRY(wait(checkpoint)); /* its thread looks at the entries */
    PGRAD__TRY(pgrad__reserve(checkpoint->context, &checkpoint->entries,
                              &checkpoint->entry_capacity, checkpoint->n_entries + 1,
                              sizeof *checkpoint->entries));
    pgrad__entry *entry = &checkpoint->entries[checkpoint->n_entries++];
    *entry = (pgrad__entry){.kind = kind, .handle = handle};
    memcpy(entry->name, name, strlen(name) + 1);
    kind->retain(handle);
    return PGRAD_OK;
}

pgrad_status pgrad_checkpoint_add(pgrad_checkpoint *checkpoint, const char *name, int32_t kind,
                                  void *handle)
{
    pgrad__scope scope;
    if (checkpoint == NULL || name == NULL || handle == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_add: an argument is NULL");
    const pgrad__kind *found = pgrad__kind_find(kind);
    if (found == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_add: kind: %d is none a handle has", kind);
    PGRAD__TRY(pgrad__enter(checkpoint->context, &scope));
    pgrad_status status = pgrad__checkpoint_add(checkpoint, name, found, handle);
    pgrad__leave(&scope);
    return status;
}

static pgrad_status make_text(pgrad_context *context, const char *text, size_t length,
                              pgrad__text **out)
{
    pgrad__text *made;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *made, &made));
    made->context = context;
    made->length = length;
    pgrad_status status = pgrad__copy_text(context, text, length, &made->data);
    if (status == PGRAD_OK)
        *out = made;
    else
        pgrad__kind_text.release(made);
    return status;
}

static pgrad_status add_text(pgrad_checkpoint *checkpoint, const char *name, const char *text,
                             size_t length)
{
    pgrad__entry *entry = find_entry(checkpoint, name);
    pgrad__text *made = NULL;
    if (entry != NULL && entry->kind != &pgrad__kind_text)
        return pgrad__fail(PGRAD_E_STATE, "checkpoint_add_text: '%s' is the name of a %s", name,
                           entry->kind->name);
    PGRAD__TRY(make_text(checkpoint->context, text, length, &made));
    pgrad_status status = PGRAD_OK;
    if (entry == NULL) {
        status = pgrad__checkpoint_add(checkpoint, name, &pgrad__kind_text, made);
    } else { /* a write in the background has its own copy */
        pgrad__kind_text.release(entry->handle);
        entry->handle = made;
    }
    if (status != PGRAD_OK)
        pgrad__kind_text.release(made);
    return status;
}

pgrad_status pgrad_checkpoint_add_text(pgrad_checkpoint *checkpoint, const char *name,
                                       const char *text, size_t length)
{
    pgrad__scope scope;
    if (checkpoint == NULL || name == NULL || (text == NULL && length > 0))
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_add_text: an argument is NULL");
    PGRAD__TRY(pgrad__enter(checkpoint->context, &scope));
    pgrad_status status = add_text(checkpoint, name, text, length);
    pgrad__leave(&scope);
    return status;
}

/* ---- writing ---- */

static pgrad_status describe_all(pgrad_checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        pgrad__entry *entry = &checkpoint->entries[i];
        pgrad__state_init(&entry->state, checkpoint->context);
        PGRAD__TRY(entry->kind->describe(entry->handle, &entry->state));
    }
    return PGRAD_OK;
}

/* Memory for copies; E_NOMEM and E_LIMIT leave what there is. */
static pgrad_status reserve_copies(pgrad_checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        pgrad__entry *entry = &checkpoint->entries[i];
        const size_t bytes = pgrad__state_copy_bytes(&entry->state);
        if (bytes <= entry->copy_capacity)
            continue;
        pgrad__free(checkpoint->context, entry->copy);
        entry->copy = NULL;
        entry->copy_capacity = 0;
        PGRAD__TRY(pgrad__alloc(checkpoint->context, bytes, 1, &entry->copy));
        entry->copy_capacity = bytes;
        pgrad__os_huge_pages(entry->copy, bytes);
    }
    return PGRAD_OK;
}

static void drop_copies(pgrad_checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        pgrad__free(checkpoint->context, checkpoint->entries[i].copy);
        checkpoint->entries[i].copy = NULL;
        checkpoint->entries[i].copy_capacity = 0;
    }
}

static pgrad_status write_parts(pgrad_checkpoint *checkpoint, int tell)
{
    pgrad__writing *writing = &checkpoint->writing;
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        const pgrad__entry *entry = &checkpoint->entries[i];
        PGRAD__TRY(pgrad__state_write(&entry->state, entry->kind->number, entry->name,
                                      &writing->writer, writing->scratch, tell));
    }
    return pgrad__checkpoint_writer_finish(&writing->writer, writing->keep);
}

/* The thread works a tenth of the time while nobody waits for it: steps that run beside it are to
 * be held up by a few hundredths, not to share their cores. */
static void rest(void *user)
{
    static const double SHARE = 9.0, LONGEST = 0.1;
    pgrad__writing *writing = user;
    const double worked = pgrad__os_seconds() - writing->rested;
    if (!atomic_load(&writing->hurry))
        pgrad__os_sleep(SHARE * worked < LONGEST ? SHARE * worked : LONGEST);
    writing->rested = pgrad__os_seconds();
}

static void write_behind(void *argument)
{
    pgrad_checkpoint *checkpoint = argument;
    checkpoint->writing.rested = pgrad__os_seconds();
    checkpoint->writing.writer.pace = rest;
    checkpoint->writing.writer.pace_user = &checkpoint->writing;
    checkpoint->writing.status = write_parts(checkpoint, 0);
    if (checkpoint->writing.status != PGRAD_OK)
        pgrad__message_get(checkpoint->writing.message);
}

static pgrad_status open_writing(pgrad_checkpoint *checkpoint, const char *path, uint32_t keep)
{
    pgrad__writing *writing = &checkpoint->writing;
    size_t scratch = 0;
    for (size_t i = 0; i < checkpoint->n_entries; i++) {
        const size_t needed = pgrad__state_scratch(&checkpoint->entries[i].state);
        scratch = needed > scratch ? needed : scratch;
    }
    writing->keep = keep;
    PGRAD__TRY(pgrad__alloc(checkpoint->context, scratch, 1, &writing->scratch));
    return pgrad__checkpoint_writer_open(checkpoint->context, path, (uint32_t)checkpoint->n_entries,
                                         &writing->writer);
}

/* With the models locked. */
static pgrad_status write_locked(pgrad_checkpoint *checkpoint, const char *path,
                                 const pgrad_checkpoint_params *params)
{
    pgrad__writing *writing = &checkpoint->writing;
    PGRAD__TRY(describe_all(checkpoint));
    PGRAD__TRY(open_writing(checkpoint, path, params->keep));
    if (params->background && reserve_copies(checkpoint) == PGRAD_OK) {
        for (size_t i = 0; i < checkpoint->n_entries; i++)
            pgrad__state_copy(&checkpoint->entries[i].state, checkpoint->entries[i].copy);
        if (pgrad__thread_start(checkpoint->context, write_behind, checkpoint, &writing->thread) ==
            PGRAD_OK) {
            writing->active = 1;
            return PGRAD_OK;
        }
    }
    if (params->background) {
        drop_copies(checkpoint);
        pgrad__log_line(checkpoint->context, PGRAD_LOG_WARNING,
                        "checkpoint_write: not in the background: %s", pgrad_error_message());
        for (size_t i = 0; i < checkpoint->n_entries; i++)
            pgrad__state_free(&checkpoint->entries[i].state);
        PGRAD__TRY(describe_all(checkpoint)); /* they may speak of the copies */
    }
    return write_parts(checkpoint, 1);
}

static pgrad_status write_now(pgrad_checkpoint *checkpoint, const char *path,
                              const pgrad_checkpoint_params *params)
{
    size_t n_locked = 0;
    pgrad_status status = PGRAD_OK;
    for (; status == PGRAD_OK && n_locked < checkpoint->n_entries; n_locked++) {
        const pgrad__entry *entry = &checkpoint->entries[n_locked];
        if (entry->kind->model != NULL)
            status = pgrad__lock_read(&entry->kind->model(entry->handle)->lock,
                                      "checkpoint_write: the model");
    }
    if (status != PGRAD_OK)
        n_locked--;
    else
        status = write_locked(checkpoint, path, params);
    while (n_locked-- > 0) {
        const pgrad__entry *entry = &checkpoint->entries[n_locked];
        if (entry->kind->model != NULL)
            pgrad__unlock_read(&entry->kind->model(entry->handle)->lock);
    }
    if (!checkpoint->writing.active)
        end_writing(checkpoint);
    return status;
}

pgrad_status pgrad_checkpoint_write(pgrad_checkpoint *checkpoint, const char *path,
                                    const pgrad_checkpoint_params *params)
{
    pgrad__scope scope;
    pgrad_checkpoint_params read;
    if (checkpoint == NULL || path == NULL || path[0] == '\0')
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_write: %s",
                           checkpoint == NULL ? "checkpoint is NULL" : "path: expected a file");
    if (checkpoint->opened)
        return pgrad__fail(PGRAD_E_STATE, "checkpoint_write: it was opened, to be restored from");
    PGRAD__TRY(pgrad__enter(checkpoint->context, &scope));
    pgrad_status status = pgrad__params_read("checkpoint", params, &read);
    if (status == PGRAD_OK)
        status = wait(checkpoint);
    if (status == PGRAD_OK)
        status = write_now(checkpoint, path, &read);
    pgrad__leave(&scope);
    return status;
}

pgrad_status pgrad_checkpoint_wait(pgrad_checkpoint *checkpoint)
{
    if (checkpoint == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "checkpoint_wait: checkpoint is NULL");
    return wait(checkpoint);
}
