/* The inside of a tokenizer: what the two readers fill and encoding uses. Immutable once it is
 * made. */
#ifndef PGRAD_TEXT_TOKENIZER_INSIDE_H
#define PGRAD_TEXT_TOKENIZER_INSIDE_H

#include <stdatomic.h>

#include "base/hashmap.h"
#include "text/bpe.h"
#include "text/regex.h"
#include "text/special.h"
#include "text/tokenizer.h"

enum { PGRAD__MAX_SPLITS = 16, PGRAD__MAX_ADDED_IDS = 16, PGRAD__N_ROLES = 5 };

/* What a pre-tokenizer does with the matches of its pattern. */
typedef enum pgrad__split_behavior {
    PGRAD__SPLIT_ISOLATED,
    PGRAD__SPLIT_REMOVED,
    PGRAD__SPLIT_MERGED_WITH_PREVIOUS,
    PGRAD__SPLIT_MERGED_WITH_NEXT,
    PGRAD__SPLIT_CONTIGUOUS
} pgrad__split_behavior;

typedef struct pgrad__split {
    pgrad__regex *regex; /* NULL: only the prefix space */
    pgrad__split_behavior behavior;
    int invert;
    int prefix_space; /* before splitting: a space in front of a piece that has none */
} pgrad__split;

/* A token by its id: the bytes it decodes to. */
typedef struct pgrad__token_bytes {
    uint32_t offset, length; /* in `bytes` */
    uint8_t present, special;
    uint8_t model; /* of the model's vocabulary and spelled in bytes: text can become it */
    uint8_t added;
} pgrad__token_bytes;

/* A file as it was read, to be written back byte for byte. */
typedef struct pgrad__kept_file {
    const char *name; /* static */
    char *data;
    size_t size;
} pgrad__kept_file;

struct pgrad_tokenizer {
    pgrad_context *context;
    atomic_uint references;
    pgrad__token_bytes *tokens; /* by id */
    uint32_t n_ids, ids_capacity;
    char *bytes;
    size_t n_bytes, bytes_capacity;
    pgrad__hashmap vocabulary; /* bytes of the model's tokens to ids */
    pgrad_token byte_ids[256]; /* -1: the vocabulary lacks it */
    pgrad__merges merges;
    int ignore_merges;  /* a piece that is a token as a whole is not merged */
    int merges_special; /* a merge ends in a special token */
    int nfc;
    pgrad__split splits[PGRAD__MAX_SPLITS];
    uint32_t n_splits;
    pgrad__special added;
    /* What PGRAD_ENCODE_ADD puts around a text. */
    pgrad_token prefix_ids[PGRAD__MAX_ADDED_IDS], suffix_ids[PGRAD__MAX_ADDED_IDS];
    uint32_t n_prefix, n_suffix;
    pgrad_token roles[PGRAD__N_ROLES]; /* by PGRAD_TOKEN_* */
    pgrad__kept_file files[8];
    uint32_t n_files;
    uint64_t n_read, n_expected; /* tokens and merges, while it is loaded */
};

/* The readers. A tokenizer starts zeroed but for context, references and roles (-1). read takes a
 * folder or a file of any kind; read_json the text of a tokenizer.json, which it takes over, and
 * whose origin stands in front of messages. */
pgrad_status pgrad__tokenizer_read(pgrad_tokenizer *tokenizer, const char *path);
pgrad_status pgrad__tokenizer_read_json(pgrad_tokenizer *tokenizer, char *data, size_t size,
                                        const char *origin);
pgrad_status pgrad__tokenizer_read_gguf(pgrad_tokenizer *tokenizer, const char *path);

/* ---- building blocks of the readers: their messages leave file and field to them ---- */

/* Tells the host's progress function that tokens and merges begin, how many there are, and then
 * each of them (every few thousand): E_CALLBACK or E_CANCELLED. */
pgrad_status pgrad__tokenizer_expect(pgrad_tokenizer *tokenizer, uint64_t n);
pgrad_status pgrad__tokenizer_tick(pgrad_tokenizer *tokenizer);

/* Gives id its bytes. E_FORMAT for an id taken twice with other bytes. */
pgrad_status pgrad__tokenizer_set(pgrad_tokenizer *tokenizer, uint32_t id, const char *bytes,
                                  size_t length, int model);

/* A token of the model as its file spells it: its bytes, or the text itself when a character of it
 * is not in the byte alphabet. */
pgrad_status pgrad__tokenizer_set_spelled(pgrad_tokenizer *tokenizer, uint32_t id,
                                          const char *spelled, size_t length);

/* An added token: its id's bytes and the list of them. Its content may be that of a token of the
 * vocabulary, as text or as the vocabulary spells it. */
pgrad_status pgrad__tokenizer_add(pgrad_tokenizer *tokenizer, const pgrad__added_token *token);

struct pgrad__json;

/* An object of spelled tokens and their ids; path names it in messages. */
pgrad_status pgrad__tokenizer_read_vocabulary(pgrad_tokenizer *tokenizer,
                                              const struct pgrad__json *vocabulary,
                                              const char *path);

/* Makes the map of the model's tokens, once all tokens are there: its keys must not move. No two
 * have the same bytes: readers refuse a text that comes twice. E_FORMAT when there is none. */
pgrad_status pgrad__tokenizer_index(pgrad_tokenizer *tokenizer);

/* A merge of two tokens as spelled; or of the two in "LEFT RIGHT". */
pgrad_status pgrad__tokenizer_merge(pgrad_tokenizer *tokenizer, const char *left,
                                    size_t left_length, const char *right, size_t right_length,
                                    uint32_t rank);
pgrad_status pgrad__tokenizer_merge_line(pgrad_tokenizer *tokenizer, const char *line,
                                         size_t length, uint32_t rank);

/* Appends a split by a pattern. */
pgrad_status pgrad__tokenizer_split(pgrad_tokenizer *tokenizer, const char *pattern, size_t length,
                                    pgrad__split_behavior behavior, int invert, int prefix_space,
                                    const char *origin);

/* The known patterns. */
extern const char pgrad__pattern_gpt2[], pgrad__pattern_llama3[], pgrad__pattern_qwen2[];

/* The end of a turn by its usual names, when the file does not say. */
void pgrad__tokenizer_find_roles(pgrad_tokenizer *tokenizer);

/* Keeps a file to be written back. Takes over data. */
void pgrad__tokenizer_keep(pgrad_tokenizer *tokenizer, const char *name, char *data, size_t size);

/* ---- encoding (encode.c) ---- */

/* Collects the ids of a text, without what PGRAD_ENCODE_ADD puts around it. */
typedef struct pgrad__encoder {
    const pgrad_tokenizer *tokenizer;
    pgrad__regex_match *match;
    pgrad__bpe_scratch scratch;
    pgrad_token *ids;
    size_t n, capacity;
    pgrad_token *piece; /* ids of the piece being merged */
    size_t piece_capacity;
} pgrad__encoder;
pgrad_status pgrad__encoder_init(pgrad__encoder *encoder, const pgrad_tokenizer *tokenizer);
pgrad_status pgrad__encoder_text(pgrad__encoder *encoder, const char *text, size_t length,
                                 int with_special);
/* Two texts as if they were one: merges cross the border. */
pgrad_status pgrad__encoder_joined(pgrad__encoder *encoder, const char *head, size_t head_length,
                                   const char *text, size_t length);
pgrad_status pgrad__encoder_id(pgrad__encoder *encoder, pgrad_token id);
void pgrad__encoder_free(pgrad__encoder *encoder);

/* Hands the ids to the caller's buffer: E_BUFFER with *n when it is too small. */
pgrad_status pgrad__encoder_finish(const pgrad__encoder *encoder, pgrad_token *ids, size_t capacity,
                                   size_t *n);

#endif
