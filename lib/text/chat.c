#include <policygrad/chat.h>

#include <string.h>

#include "base/fail.h"
#include "text/tokenizer_inside.h"

static pgrad_status check_role(const pgrad_message *message, size_t i)
{
    static const char *const ROLES[] = {"system", "user", "assistant"};
    if (message->role != NULL && (message->text != NULL || message->length == 0))
        for (size_t r = 0; r < sizeof ROLES / sizeof ROLES[0]; r++)
            if (strcmp(message->role, ROLES[r]) == 0)
                return PGRAD_OK;
    return pgrad__fail(
        PGRAD_E_INVALID,
        "messages[%zu]: expected a text and a role of system, user, assistant, found role %.32s", i,
        message->role == NULL ? "NULL" : message->role);
}

static pgrad_status append(pgrad__encoder *e, const char *text)
{
    return pgrad__encoder_text(e, text, strlen(text), 0);
}

/* <|im_start|>ROLE\nTEXT<|im_end|>\n */
static pgrad_status chatml(pgrad__encoder *e, const pgrad_message *messages, size_t n,
                           pgrad_token start, pgrad_token end, int generate)
{
    for (size_t i = 0; i < n; i++) {
        PGRAD__TRY(pgrad__encoder_id(e, start));
        /* Role and text are one piece of text between the marks: they are encoded as one. */
        char head[32];
        size_t length = strlen(messages[i].role);
        memcpy(head, messages[i].role, length);
        head[length++] = '\n';
        PGRAD__TRY(pgrad__encoder_joined(e, head, length, messages[i].text, messages[i].length));
        PGRAD__TRY(pgrad__encoder_id(e, end));
        PGRAD__TRY(append(e, "\n"));
    }
    if (!generate)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__encoder_id(e, start));
    return append(e, "assistant\n");
}

static pgrad_status format(pgrad__encoder *e, const pgrad_message *messages, size_t n,
                           uint32_t flags)
{
    static const char START[] = "<|im_start|>", END[] = "<|im_end|>";
    const pgrad__special *added = &e->tokenizer->added;
    const pgrad__added_token *start = pgrad__special_content(added, START, sizeof START - 1);
    const pgrad__added_token *end = pgrad__special_content(added, END, sizeof END - 1);
    int has_marks = start != NULL && end != NULL;
    for (size_t i = 0; i < n; i++)
        PGRAD__TRY(check_role(&messages[i], i));
    if ((flags & PGRAD_CHAT_CHATML) && !has_marks)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "chat_format: ChatML needs the tokens %s and %s, this "
                           "tokenizer lacks them",
                           START, END);
    if (has_marks && !(flags & PGRAD_CHAT_PLAIN))
        return chatml(e, messages, n, start->id, end->id, (flags & PGRAD_CHAT_GENERATE) != 0);
    if ((flags & PGRAD_CHAT_GENERATE) && !(flags & PGRAD_CHAT_PLAIN))
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "chat_format: PGRAD_CHAT_GENERATE: expected a tokenizer with %s and %s, "
                           "found one without turns that are built (PGRAD_CHAT_PLAIN joins texts)",
                           START, END);
    for (uint32_t i = 0; i < e->tokenizer->n_prefix; i++)
        PGRAD__TRY(pgrad__encoder_id(e, e->tokenizer->prefix_ids[i]));
    for (size_t i = 0; i < n; i++)
        PGRAD__TRY(pgrad__encoder_text(e, messages[i].text == NULL ? "" : messages[i].text,
                                       messages[i].length, 0));
    return PGRAD_OK;
}

pgrad_status pgrad_chat_format(pgrad_tokenizer *tokenizer, const pgrad_message *messages, size_t n,
                               uint32_t flags, pgrad_token *ids, size_t capacity, size_t *n_ids)
{
    pgrad__encoder encoder;
    const uint32_t known = PGRAD_CHAT_GENERATE | PGRAD_CHAT_CHATML | PGRAD_CHAT_PLAIN;
    if (tokenizer == NULL || n_ids == NULL || (messages == NULL && n > 0) ||
        (ids == NULL && capacity > 0))
        return pgrad__fail(PGRAD_E_INVALID, "chat_format: an argument is NULL");
    if ((flags & ~known) != 0 || ((flags & PGRAD_CHAT_CHATML) && (flags & PGRAD_CHAT_PLAIN)))
        return pgrad__fail(PGRAD_E_INVALID, "chat_format: flags 0x%x are not known, or two styles",
                           flags);
    PGRAD__TRY(pgrad__encoder_init(&encoder, tokenizer));
    pgrad_status status = format(&encoder, messages, n, flags);
    if (status == PGRAD_OK)
        status = pgrad__encoder_finish(&encoder, ids, capacity, n_ids);
    pgrad__encoder_free(&encoder);
    return status;
}
