/* What a family of models is: the names of its hyper-parameters and tensors, as data. Not its
 * mathematics: the one decoder block (block_pass.c) is driven by the flags of pgrad__config.
 *
 * A new family is a file arch_NAME.c with one pgrad__arch and one line in the list of arch.c. */
#ifndef PGRAD_MODEL_ARCH_H
#define PGRAD_MODEL_ARCH_H

#include "base/strbuf.h"
#include "model/block.h"

/* Limits of sizes from files: products of three stay far inside 64 bits. */
#define PGRAD__MAX_LAYERS 1024u
#define PGRAD__MAX_EMBD (1u << 20)
#define PGRAD__MAX_FF (1u << 22)
#define PGRAD__MAX_VOCAB (1u << 22)
#define PGRAD__MAX_CONTEXT (1u << 24)
#define PGRAD__MAX_HEADS (1u << 16)
#define PGRAD__MAX_HEAD_DIM 1024u

/* A whole number of the config. In GGUF the key is "ARCH." + gguf. */
typedef struct pgrad__size_key {
    const char *json;
    const char *alias; /* another spelling read from JSON; NULL: none */
    const char *gguf;
    size_t field; /* offset of the uint32_t in pgrad__config */
    uint32_t max;
    int optional; /* absent: what `initial` has; 0 there is filled in later */
} pgrad__size_key;

typedef struct pgrad__real_key {
    const char *json;
    const char *gguf; /* NULL: only in JSON */
    size_t field;     /* of a float, or a double with `is_double` */
    int is_double;
    double min, max;
} pgrad__real_key;

typedef struct pgrad__flag_key {
    const char *json;
    const char *gguf_tensor; /* in GGUF the flag is the presence of this tensor; NULL: unset */
    size_t field;            /* of an int */
} pgrad__flag_key;

/* The fields that keys tell of. */
static inline uint32_t *pgrad__size_field(pgrad__config *config, const pgrad__size_key *key)
{
    return (uint32_t *)(void *)((char *)config + key->field);
}

static inline int *pgrad__flag_field(pgrad__config *config, const pgrad__flag_key *key)
{
    return (int *)(void *)((char *)config + key->field);
}

static inline double pgrad__real_get(const pgrad__config *config, const pgrad__real_key *key)
{
    const void *field = (const char *)config + key->field;
    return key->is_double ? *(const double *)field : (double)*(const float *)field;
}

static inline void pgrad__real_set(pgrad__config *config, const pgrad__real_key *key, double value)
{
    void *field = (char *)config + key->field;
    if (key->is_double)
        *(double *)field = value;
    else
        *(float *)field = (float)value;
}

/* Extents of a tensor's dimensions. */
typedef enum pgrad__extent {
    PGRAD__EXTENT_NONE,
    PGRAD__EXTENT_VOCAB,
    PGRAD__EXTENT_CONTEXT,
    PGRAD__EXTENT_EMBD,
    PGRAD__EXTENT_QUERY, /* n_heads head_dim */
    PGRAD__EXTENT_KEY,   /* n_kv_heads head_dim */
    PGRAD__EXTENT_QKV,   /* QUERY + 2 KEY */
    PGRAD__EXTENT_FF
} pgrad__extent;

typedef enum pgrad__condition {
    PGRAD__ALWAYS,
    PGRAD__IF_QKV_BIAS,
    PGRAD__IF_OUTPUT_BIAS,
    PGRAD__IF_MLP_BIAS,
    PGRAD__IF_UNTIED
} pgrad__condition;

/* First values of a created model. */
typedef enum pgrad__initial {
    PGRAD__INITIAL_NORMAL,
    PGRAD__INITIAL_RESIDUAL, /* normal, scaled by 1 / sqrt(2 n_layers) */
    PGRAD__INITIAL_ONE,
    PGRAD__INITIAL_ZERO
} pgrad__initial;

/* Order of output rows in GGUF files. */
typedef enum pgrad__row_order {
    PGRAD__ROWS_PLAIN,
    PGRAD__ROWS_INTERLEAVED /* in each head: 0, hd/2, 1, hd/2 + 1, .. */
} pgrad__row_order;

/* One tensor, or one of every layer. '#' in a name is the layer's number. */
typedef struct pgrad__tensor_rule {
    const char *hf; /* without the family's prefix, but for the head */
    const char *gguf;
    pgrad__tensor_kind kind;
    pgrad__extent dims[2]; /* as in the Hugging Face file */
    int per_layer;
    size_t place; /* offset of the pgrad__tensor * in pgrad__layer, or in pgrad__stem */
    pgrad__condition condition;
    pgrad__initial initial;
    pgrad__row_order gguf_rows;
} pgrad__tensor_rule;

typedef struct pgrad__arch {
    const char *name;       /* model_type, and general.architecture of GGUF */
    const char *class_name; /* in `architectures` */
    const char *prefix;     /* of all names but the head's; files may lack it */
    const char *activation_key;
    pgrad__config initial;        /* what the family fixes, and defaults of optional keys */
    const pgrad__size_key *sizes; /* the number of layers first: GGUF arrays by layer need it */
    size_t n_sizes;
    const pgrad__real_key *reals;
    size_t n_reals;
    const pgrad__flag_key *flags;
    size_t n_flags;
    const pgrad__tensor_rule *rules;
    size_t n_rules;
    const char *const *ignored; /* ends of names that carry no weights; NULL-terminated */
    /* Refuses what the family may ask for and this library does not do; fills what the tables
     * cannot say. */
    pgrad_status (*check_json)(pgrad__config *config, const pgrad__json *json, const char *origin);
    pgrad_status (*check_gguf)(pgrad__config *config, const pgrad__gguf *gguf);
} pgrad__arch;

extern const pgrad__arch pgrad__arch_gpt2, pgrad__arch_llama;

/* By model_type or general.architecture, or by class name; NULL when it is not built. */
const pgrad__arch *pgrad__arch_find(const char *name, size_t length);
const pgrad__arch *pgrad__arch_find_class(const char *name, size_t length);
/* "gpt2, llama" */
const char *pgrad__arch_list(char buffer[256]);

/* Appends a rule's name with the layer put in. */
void pgrad__arch_name(pgrad__strbuf *out, const char *prefix, const char *pattern, uint32_t layer);
/* 1 when a name ends in one of arch->ignored. */
int pgrad__arch_ignores(const pgrad__arch *arch, const char *name);

/* Fills what follows from other fields and checks that all of them fit together. */
pgrad_status pgrad__config_finish(pgrad__config *config, const char *origin, int is_gguf);
/* As in config.json. */
const char *pgrad__activation_name(pgrad__activation kind);

/* "ARCH." + name: a key of GGUF metadata. */
#define PGRAD__KEY_MAX 96
const char *pgrad__arch_key(char buffer[PGRAD__KEY_MAX], const pgrad__arch *arch, const char *name);
/* The fewest digits, as a whole number and a power of ten, that give the same f32 back: no decimal
 * point, so the locale has no say. */
void pgrad__config_append_real(pgrad__strbuf *out, double value);

/* For families with rope (rope.c): reads rope_theta and the scaling, refuses scalings that are not
 * built; the scaling as a member of config.json, when there is one. */
pgrad_status pgrad__config_rope_json(pgrad__config *config, const pgrad__json *json,
                                     const char *origin);
pgrad_status pgrad__config_rope_gguf(pgrad__config *config, const pgrad__gguf *gguf);
void pgrad__config_rope_write(pgrad__strbuf *out, const pgrad__config *config);

#endif
