/* Conversations to token ids.
 *
 *     pgrad_message messages[] = {{"system", "Be brief.", 9}, {"user", "Why is the sea salt?", 20}};
 *     pgrad_chat_format(tokenizer, messages, 2, PGRAD_CHAT_GENERATE, ids, capacity, &n);
 *     pgrad_rollout_add_prompt(rollout, ids, n, NULL, &group);
 *
 * Two styles are built: ChatML, as SmolLM2 and Qwen have it, and plain texts one after another. What
 * stands in a message is text: a special token's name in it becomes no special token. Templates of
 * tokenizer_config.json are kept and saved, not run.
 *
 * Threads: safe. */
#ifndef POLICYGRAD_CHAT_H
#define POLICYGRAD_CHAT_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pgrad_message {
    const char *role; /* "system", "user", "assistant" */
    const char *text; /* UTF-8; special tokens in it are text */
    size_t length;    /* bytes of text */
} pgrad_message;

/* Flags of pgrad_chat_format. Without a style the tokenizer decides: ChatML when it has
 * <|im_start|> and <|im_end|>, plain otherwise - but PGRAD_CHAT_GENERATE is then E_UNSUPPORTED: the
 * turns of such a tokenizer (Llama 3 has others) are not built, and joined texts open none.
 *
 * ChatML writes the messages given and no other. The template of a model may begin with a system
 * turn of its own when the first message is none; SmolLM2-Instruct was trained with "You are a
 * helpful AI assistant named SmolLM, trained by Hugging Face". Give it as a message to have it. */
enum {
    PGRAD_CHAT_GENERATE = 1, /* end with the opening of an assistant's turn; plain has none to add */
    PGRAD_CHAT_CHATML = 2,   /* <|im_start|>ROLE\nTEXT<|im_end|>\n; E_UNSUPPORTED without the tokens */
    PGRAD_CHAT_PLAIN = 4     /* the texts one after another, no roles */
};

/* Formats n messages and encodes them. Only the style's own marks become special tokens.
 * Errors: E_BUFFER as in pgrad_tokenizer_encode; E_INVALID (an unknown role, by name);
 * E_UNSUPPORTED; E_FORMAT; E_LIMIT (a text of more than INT32_MAX bytes); E_NOMEM. */
PGRAD_API pgrad_status pgrad_chat_format(pgrad_tokenizer *tokenizer, const pgrad_message *messages,
                                         size_t n, uint32_t flags, pgrad_token *ids, size_t capacity,
                                         size_t *n_ids);

#ifdef __cplusplus
}
#endif
#endif
