/* Text to token ids and back: byte-level BPE from a tokenizer.json or from GGUF metadata.
 *
 *     pgrad_tokenizer_load(context, "SmolLM2-135M-Instruct", &tokenizer);
 *     pgrad_tokenizer_encode(tokenizer, text, strlen(text), 0, ids, capacity, &n);
 *
 * and, as ids come one by one, text for a screen:
 *
 *     pgrad_decoder_create(tokenizer, PGRAD_DECODE_SKIP_SPECIAL, &decoder);
 *     for each id: pgrad_decoder_push(decoder, id, &piece, &length); ... write piece ...
 *     pgrad_decoder_finish(decoder, &piece, &length);
 *
 * Built are normalizers NFC or none, the pre-tokenizers ByteLevel, Split, Digits and sequences of
 * them, and ids are those of the Rust library `tokenizers`, which wrote the file. A tokenizer of
 * another kind (SentencePiece, WordPiece, Unigram) is refused with the place in the file, rather than
 * read as something near to it.
 *
 * Special tokens written in a text ("<|im_end|>") are text, unless PGRAD_ENCODE_SPECIAL says
 * otherwise: what a user types never becomes a control token by accident.
 *
 * Threads: immutable after load, safe to share. A decoder belongs to one thread at a time. */
#ifndef POLICYGRAD_TOKENIZER_H
#define POLICYGRAD_TOKENIZER_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Flags of encode. */
enum {
    PGRAD_ENCODE_SPECIAL = 1, /* special tokens written in the text become their ids */
    PGRAD_ENCODE_ADD = 2      /* add what the tokenizer's template adds (BOS, EOS) */
};

/* Flags of decode. */
enum { PGRAD_DECODE_SKIP_SPECIAL = 1 /* leave special tokens out of the text */ };

/* Tokens with a role, for pgrad_tokenizer_special. */
enum {
    PGRAD_TOKEN_BOS = 0, /* begins a text */
    PGRAD_TOKEN_EOS = 1, /* ends one */
    PGRAD_TOKEN_PAD = 2, /* fills up batches elsewhere; nothing here is padded */
    PGRAD_TOKEN_UNK = 3, /* for what has no token; bytes always have one */
    PGRAD_TOKEN_END_OF_TURN = 4 /* ends an assistant's turn in a chat, e.g. <|im_end|>, <|eot_id|> */
};

/* Turns ids into text piece by piece; see pgrad_decoder_push. */
typedef struct pgrad_decoder pgrad_decoder;

/* Loads a tokenizer. path is a folder with tokenizer.json (or vocab.json and merges.txt), that file,
 * or a GGUF file, known by its first bytes. Beside vocab.json and merges.txt, tokens of an
 * added_tokens.json are read with their ids. Reports progress as "tokenizer", in tokens and merges.
 * Errors: E_IO, E_FORMAT, E_UNSUPPORTED (a kind of normalizer, pre-tokenizer, model or decoder that
 * is not built, by its JSON path), E_LIMIT, E_NOMEM, E_CALLBACK, E_CANCELLED. */
PGRAD_API pgrad_status pgrad_tokenizer_load(pgrad_context *context, const char *path,
                                            pgrad_tokenizer **out);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_tokenizer_free(pgrad_tokenizer *tokenizer);

/* Encodes `length` bytes of UTF-8. *n is the number of ids.
 * Errors: E_BUFFER when capacity is smaller than *n, which then is the number needed, nothing
 * written (ids may be NULL when capacity is 0); E_FORMAT (invalid UTF-8, with its offset);
 * E_LIMIT; E_NOMEM. */
PGRAD_API pgrad_status pgrad_tokenizer_encode(pgrad_tokenizer *tokenizer, const char *text,
                                              size_t length, uint32_t flags, pgrad_token *ids,
                                              size_t capacity, size_t *n);

/* Decodes n ids. *length is the text's length in bytes; a NUL is put behind it when there is room.
 * The text is always valid UTF-8: bytes that are not become U+FFFD. An id without a token decodes
 * to nothing.
 * Errors: E_BUFFER as in encode; E_INVALID for a negative id, with its index. */
PGRAD_API pgrad_status pgrad_tokenizer_decode(pgrad_tokenizer *tokenizer, const pgrad_token *ids,
                                              size_t n, uint32_t flags, char *text, size_t capacity,
                                              size_t *length);

/* Gives the id of a token with a role (PGRAD_TOKEN_*), -1 when the tokenizer has none. */
PGRAD_API pgrad_token pgrad_tokenizer_special(pgrad_tokenizer *tokenizer, int32_t which);

/* Gives the number of ids: one more than the highest. */
PGRAD_API uint32_t pgrad_tokenizer_count(pgrad_tokenizer *tokenizer);

/* Finds a token by its exact content ("<|im_end|>"), -1 when there is none. */
PGRAD_API pgrad_token pgrad_tokenizer_find(pgrad_tokenizer *tokenizer, const char *content,
                                           size_t length);

/* Tells whether an id has a token: 1 or 0. Ids without one are never sampled. */
PGRAD_API uint32_t pgrad_tokenizer_has(pgrad_tokenizer *tokenizer, pgrad_token id);

/* Starts a streaming decode; flags as in decode. Errors: E_INVALID, E_NOMEM. */
PGRAD_API pgrad_status pgrad_decoder_create(pgrad_tokenizer *tokenizer, uint32_t flags,
                                            pgrad_decoder **out);

/* Takes one id and gives the text that is complete now: whole characters only, possibly none. The
 * pieces together are what pgrad_tokenizer_decode gives. *text is valid until the next call on the
 * decoder and closed by a NUL. Errors: E_INVALID, E_NOMEM. */
PGRAD_API pgrad_status pgrad_decoder_push(pgrad_decoder *decoder, pgrad_token id, const char **text,
                                          size_t *length);

/* Gives what was held back, a cut character as U+FFFD, and makes the decoder ready for a new text. */
PGRAD_API pgrad_status pgrad_decoder_finish(pgrad_decoder *decoder, const char **text,
                                            size_t *length);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_decoder_free(pgrad_decoder *decoder);

#ifdef __cplusplus
}
#endif
#endif
