/* The state of a run in one file: weights, optimizer, sampler, baselines, rollout, the host's own texts.
 *
 *     pgrad_checkpoint_create(context, &checkpoint);
 *     pgrad_checkpoint_add(checkpoint, "policy", PGRAD_KIND_MODEL, model);
 *     pgrad_checkpoint_add(checkpoint, "optimizer", PGRAD_KIND_OPTIMIZER, optimizer);
 *     pgrad_checkpoint_add(checkpoint, "sampler", PGRAD_KIND_SAMPLER, sampler);
 *     every now and then:
 *         pgrad_checkpoint_write(checkpoint, "run.pgrad", &params);
 *
 * and after a restart, with handles made as before:
 *
 *     pgrad_checkpoint_open(context, "run.pgrad", &checkpoint);
 *     pgrad_checkpoint_restore(checkpoint, "policy", PGRAD_KIND_MODEL, model);
 *     ...
 *
 * A run that goes on from a checkpoint has the bits of one that was never interrupted, with any number
 * of threads and any kernel set. Weights and moments are kept in the bytes of their storage, in an order
 * no kernel set has a part in. Between pgrad_rollout calls and between steps is the time to write:
 * gradients are not kept. pgrad_train writes and resumes by itself (trainer.h).
 *
 * Threads: one at a time; write and restore read and change the handles they are given. */
#ifndef POLICYGRAD_CHECKPOINT_H
#define POLICYGRAD_CHECKPOINT_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a part is of. The numbers stand in files. */
enum {
    PGRAD_KIND_MODEL = 0,     /* weights */
    PGRAD_KIND_OPTIMIZER = 1, /* moments, steps done, learning rate */
    PGRAD_KIND_SAMPLER = 2,   /* number of the next sequence */
    PGRAD_KIND_ADVANTAGE = 3, /* running baseline */
    PGRAD_KIND_ROLLOUT = 4,   /* prompts, completions, arrays, texts, rewards */
    PGRAD_KIND_OBJECTIVE = 5, /* nothing that changes: its options, which must be the same */
    PGRAD_KIND_TEXT = 6,      /* pgrad_checkpoint_add_text */
    PGRAD_KIND_TRAIN = 7      /* pgrad_train's own: position in the data, counters */
};

typedef struct pgrad_checkpoint_params {
    size_t struct_size;
    uint32_t keep;       /* files kept, at most 100, the new one included: the one before at PATH.1, and so
                            on. Default 1; fewer than last time leaves the rest alone */
    uint32_t background; /* 1: the state is copied, which takes as much memory again until free, and
                            written by a thread of the library's own. Default 0 */
} pgrad_checkpoint_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_checkpoint_params_init(pgrad_checkpoint_params *params, size_t size);

/* A part of a checkpoint that was opened. */
typedef struct pgrad_checkpoint_part {
    size_t struct_size;
    char name[64]; /* UTF-8, NUL-terminated */
    uint32_t kind; /* PGRAD_KIND_*, or one of a newer library */
    uint32_t reserved;
    uint64_t size;         /* bytes of the state */
    uint64_t stored_bytes; /* in the file */
} pgrad_checkpoint_part;

/* Creates an empty checkpoint to add to. Errors: E_INVALID, E_NOMEM. */
PGRAD_API pgrad_status pgrad_checkpoint_create(pgrad_context *context, pgrad_checkpoint **out);

/* Waits for what is being written; then drops the caller's reference, and with it those on the
 * handles. NULL is allowed. */
PGRAD_API void pgrad_checkpoint_free(pgrad_checkpoint *checkpoint);

/* Adds a handle of this kind under a name (1 to 63 bytes of UTF-8 without control characters); each
 * write writes its state of that moment. The checkpoint holds a reference on it.
 * Errors: E_INVALID (name, kind, NULL; TEXT and TRAIN are not for this call); E_MISMATCH (a handle of
 * another context); E_STATE (the name is taken; the checkpoint was opened); E_NOMEM. */
PGRAD_API pgrad_status pgrad_checkpoint_add(pgrad_checkpoint *checkpoint, const char *name,
                                            int32_t kind, void *handle);

/* Adds a text, or any bytes, of the host, or replaces the one of this name. It is copied.
 * Errors: E_INVALID; E_STATE (the name is another part's; the checkpoint was opened); E_NOMEM. */
PGRAD_API pgrad_status pgrad_checkpoint_add_text(pgrad_checkpoint *checkpoint, const char *name,
                                                 const char *text, size_t length);

/* Writes all parts. The file is built beside the old one and put in its place when it is complete and
 * durable: after a crash at any moment there is the old file or the new one, never half. Reports
 * progress as "save" where it does not write in the background; there, a failure is reported by the
 * next add, write or wait, and a write begins by waiting for the one before. A relative path is what it
 * is at the call, wherever the process goes while the file is written. Where a limit of memory forbids
 * the copy, it writes before it returns.
 * Errors: E_INVALID; E_STATE (opened); E_IO, E_NUMERIC (a value is not finite), E_NOMEM, E_LIMIT,
 * E_BUSY, E_CANCELLED, E_CALLBACK: the old file is untouched, unless E_IO says that only the parent
 * folder could not be synced, or an old file not moved on. */
PGRAD_API pgrad_status pgrad_checkpoint_write(pgrad_checkpoint *checkpoint, const char *path,
                                              const pgrad_checkpoint_params *params);

/* Waits until what is being written in the background is in place, and returns what came of it.
 * Errors: those of write. */
PGRAD_API pgrad_status pgrad_checkpoint_wait(pgrad_checkpoint *checkpoint);

/* Opens a file and checks it from end to end; neither a model nor anything else is needed for that.
 * The file stays open, and is the same also when another one takes its place.
 * Errors: E_IO; E_FORMAT (damaged, with part and offset); E_UNSUPPORTED (a newer version, with both
 * numbers); E_NOMEM; E_CANCELLED. */
PGRAD_API pgrad_status pgrad_checkpoint_open(pgrad_context *context, const char *path,
                                             pgrad_checkpoint **out);

/* Gives the number of parts of an opened checkpoint, or of those added so far. */
PGRAD_API uint32_t pgrad_checkpoint_count(const pgrad_checkpoint *checkpoint);

/* Tells about part `index` of an opened checkpoint. Set out->struct_size first; no more than that is
 * written. Errors: E_INVALID, E_STATE (not opened). */
PGRAD_API pgrad_status pgrad_checkpoint_get_part(const pgrad_checkpoint *checkpoint, uint32_t index,
                                                 pgrad_checkpoint_part *out);

/* Copies the text of this name out, a NUL behind it. *length is its length without the NUL.
 * Errors: E_MISMATCH (no such text); E_BUFFER when capacity is at most *length, which then is the
 * length needed, nothing is written (text may be NULL when capacity is 0); E_STATE; E_FORMAT; E_NOMEM. */
PGRAD_API pgrad_status pgrad_checkpoint_get_text(pgrad_checkpoint *checkpoint, const char *name,
                                                 char *text, size_t capacity, size_t *length);

/* Gives a handle the state of the part of this name and kind. The handle must have been made with the
 * same options; an optimizer takes the learning rate over. A failure leaves the handle as it was.
 * Errors: E_MISMATCH (no such part; a field, tensor or shape that differs, with both values);
 * E_FORMAT; E_UNSUPPORTED; E_STATE (not opened); E_BUSY; E_IO; E_NOMEM, E_LIMIT. */
PGRAD_API pgrad_status pgrad_checkpoint_restore(pgrad_checkpoint *checkpoint, const char *name,
                                                int32_t kind, void *handle);

#ifdef __cplusplus
}
#endif
#endif
