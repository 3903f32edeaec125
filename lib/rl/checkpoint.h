/* The inside of a checkpoint handle, and the kinds of its parts. */
#ifndef PGRAD_RL_CHECKPOINT_H
#define PGRAD_RL_CHECKPOINT_H

#include <policygrad/checkpoint.h>

#include "model/model.h"
#include "rl/state.h"

/* What a part is of. `describe` binds the state to the handle's memory; `accept`, which may be
 * NULL, looks at what was staged before anything changes, and may refuse; `restored`, which may be
 * NULL, is told when it is in place. */
typedef struct pgrad__kind {
    uint32_t number; /* PGRAD_KIND_* */
    const char *name;
    pgrad_context *(*context)(const void *handle);
    void (*retain)(void *handle);
    void (*release)(void *handle);
    pgrad_model *(*model)(void *handle); /* whose lock guards it; NULL: none */
    pgrad_status (*describe)(void *handle, pgrad__state *state);
    pgrad_status (*accept)(void *handle, const pgrad__state *state);
    void (*restored)(void *handle, pgrad__state *state);
} pgrad__kind;

/* checkpoint_kinds.c: by PGRAD_KIND_*, those a host may add; NULL for others. */
const pgrad__kind *pgrad__kind_find(int32_t number);
extern const pgrad__kind pgrad__kind_rollout; /* checkpoint_rollout.c */
extern const pgrad__kind pgrad__kind_text;

/* A text is a handle too, inside. */
typedef struct pgrad__text {
    pgrad_context *context;
    char *data;
    size_t length;
} pgrad__text;

typedef struct pgrad__entry {
    char name[PGRAD__CHECKPOINT_NAME];
    const pgrad__kind *kind;
    void *handle;
    pgrad__state state;  /* while it is written */
    unsigned char *copy; /* of its arrays, for the background: kept from one write to the next */
    size_t copy_capacity;
} pgrad__entry;

/* A file being written, perhaps by a thread. */
typedef struct pgrad__writing {
    pgrad__checkpoint_writer writer;
    unsigned char *scratch;
    uint32_t keep;
    int active;
    struct pgrad__thread *thread; /* NULL: none */
    atomic_int hurry;             /* somebody waits for it */
    double rested;                /* when the thread last began to work */
    pgrad_status status;          /* of the thread */
    char message[512];
} pgrad__writing;

struct pgrad_checkpoint {
    pgrad_context *context;
    atomic_uint references;
    pgrad__entry *entries;
    size_t n_entries, entry_capacity;
    pgrad__writing writing;
    int opened;
    pgrad__checkpoint_file file;
};

/* An empty one. */
pgrad_status pgrad__checkpoint_create(pgrad_context *context, pgrad_checkpoint **out);

/* Adds a handle of any kind. */
pgrad_status pgrad__checkpoint_add(pgrad_checkpoint *checkpoint, const char *name,
                                   const pgrad__kind *kind, void *handle);

/* What a part is to be restored into. */
typedef struct pgrad__restoring {
    const char *name;
    const pgrad__kind *kind;
    void *handle;
    pgrad__state state;
} pgrad__restoring;

/* Restores all of them or none. */
pgrad_status pgrad__checkpoint_restore(pgrad_checkpoint *checkpoint, pgrad__restoring *parts,
                                       size_t n);

/* CRC-32 of a model's weights, in the order of files. */
pgrad_status pgrad__weights_crc(pgrad_model *model, uint32_t *crc);

#endif
