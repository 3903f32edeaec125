/* Between reading a tokenizer from GGUF and writing it as the files of a Hugging Face folder. */
#ifndef PGRAD_TEXT_TOKENIZER_GGUF_H
#define PGRAD_TEXT_TOKENIZER_GGUF_H

#include "io/gguf.h"
#include "text/tokenizer_inside.h"

/* How a value of tokenizer.ggml.pre splits text. */
typedef struct pgrad__gguf_pre {
    const char *name;
    const char *pattern;
    int digits; /* every number character by itself, before the pattern */
    int ignore_merges, adds_bos;
} pgrad__gguf_pre;

/* Makes tokenizer.json, tokenizer_config.json and chat_template.jinja and keeps them; no
 * tokenizer.json when pre is NULL, the file brought one. */
pgrad_status pgrad__tokenizer_make_files(pgrad_tokenizer *tokenizer, const pgrad__gguf *gguf,
                                         const pgrad__gguf_pre *pre);

#endif
