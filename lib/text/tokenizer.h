/* What other layers see of a tokenizer beside its public calls. */
#ifndef PGRAD_TEXT_TOKENIZER_H
#define PGRAD_TEXT_TOKENIZER_H

#include <policygrad/tokenizer.h>

#include "io/atomic_file.h"

void pgrad__tokenizer_retain(pgrad_tokenizer *tokenizer);

/* Memory of a tokenizer, as it is accounted; and of a decoder before its first token. */
size_t pgrad__tokenizer_held(const pgrad_tokenizer *tokenizer);
size_t pgrad__decoder_bytes(void);

/* Puts the tokenizer's files into a model folder: those it was loaded from, byte for byte, or a
 * tokenizer.json, tokenizer_config.json and chat_template.jinja made from GGUF metadata. */
pgrad_status pgrad__tokenizer_write(pgrad_tokenizer *tokenizer, pgrad__folder *folder);

#endif
