/* Ids to text. Bytes that are no whole character yet are held back; those that never become one are
 * U+FFFD, one for each maximal part of a character, as a decoder that is not strict replaces them.
 */
#include <string.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/fail.h"
#include "base/strbuf.h"
#include "text/tokenizer_inside.h"
#include "text/unicode.h"

static const char REPLACEMENT[] = "\xef\xbf\xbd";

struct pgrad_decoder {
    pgrad_context *context;
    pgrad_tokenizer *tokenizer;
    uint32_t flags;
    char held[4]; /* a beginning of a character */
    size_t n_held;
    pgrad__strbuf text;
};

size_t pgrad__decoder_bytes(void)
{
    return sizeof(pgrad_decoder);
}

/* 1 when byte may follow the held ones (the second byte of some leads has a narrower range). */
static int continues(const char *held, size_t n, unsigned char byte)
{
    const unsigned char lead = (unsigned char)held[0];
    if ((byte & 0xc0) != 0x80)
        return 0;
    if (n > 1)
        return 1;
    return lead == 0xe0   ? byte >= 0xa0
           : lead == 0xed ? byte < 0xa0
           : lead == 0xf0 ? byte >= 0x90
           : lead == 0xf4 ? byte < 0x90
                          : 1;
}

static void replace_held(pgrad_decoder *decoder)
{
    if (decoder->n_held > 0)
        pgrad__strbuf_text(&decoder->text, REPLACEMENT);
    decoder->n_held = 0;
}

static void push_byte(pgrad_decoder *decoder, char byte)
{
    if (decoder->n_held > 0 && !continues(decoder->held, decoder->n_held, (unsigned char)byte))
        replace_held(decoder);
    if (decoder->n_held == 0) {
        size_t announced = pgrad__utf8_announced((unsigned char)byte);
        if (announced == 0) {
            pgrad__strbuf_text(&decoder->text, REPLACEMENT);
            return;
        }
    }
    decoder->held[decoder->n_held++] = byte;
    if (decoder->n_held == pgrad__utf8_announced((unsigned char)decoder->held[0])) {
        pgrad__strbuf_append(&decoder->text, decoder->held, decoder->n_held);
        decoder->n_held = 0;
    }
}

static pgrad_status push_id(pgrad_decoder *decoder, pgrad_token id, size_t index)
{
    const pgrad_tokenizer *t = decoder->tokenizer;
    if (id < 0)
        return pgrad__fail(PGRAD_E_INVALID, "token %zu: expected an id >= 0, found %d", index, id);
    if ((uint32_t)id >= t->n_ids || !t->tokens[id].present ||
        (t->tokens[id].special && (decoder->flags & PGRAD_DECODE_SKIP_SPECIAL)))
        return PGRAD_OK;
    const char *bytes = t->bytes + t->tokens[id].offset;
    for (uint32_t i = 0; i < t->tokens[id].length; i++)
        push_byte(decoder, bytes[i]);
    return decoder->text.status;
}

static pgrad_status check_flags(uint32_t flags, const char *call)
{
    if ((flags & ~(uint32_t)PGRAD_DECODE_SKIP_SPECIAL) != 0)
        return pgrad__fail(PGRAD_E_INVALID, "%s: flags 0x%x are not known", call, flags);
    return PGRAD_OK;
}

pgrad_status pgrad_tokenizer_decode(pgrad_tokenizer *tokenizer, const pgrad_token *ids, size_t n,
                                    uint32_t flags, char *text, size_t capacity, size_t *length)
{
    if (tokenizer == NULL || length == NULL || (ids == NULL && n > 0) ||
        (text == NULL && capacity > 0))
        return pgrad__fail(PGRAD_E_INVALID, "tokenizer_decode: an argument is NULL");
    PGRAD__TRY(check_flags(flags, "tokenizer_decode"));
    pgrad_decoder decoder = {.context = tokenizer->context,
                             .tokenizer = tokenizer,
                             .flags = flags,
                             .text = {.context = tokenizer->context}};
    pgrad_status status = PGRAD_OK;
    for (size_t i = 0; i < n && status == PGRAD_OK; i++)
        status = push_id(&decoder, ids[i], i);
    replace_held(&decoder);
    if (status == PGRAD_OK)
        status = decoder.text.status;
    if (status == PGRAD_OK) {
        *length = decoder.text.length;
        if (decoder.text.length > capacity)
            status = pgrad__fail(PGRAD_E_BUFFER, "the text has %zu bytes, the buffer room for %zu",
                                 decoder.text.length, capacity);
        else if (decoder.text.length > 0)
            memcpy(text, decoder.text.data, decoder.text.length);
        if (status == PGRAD_OK && decoder.text.length < capacity)
            text[decoder.text.length] = '\0';
    }
    pgrad__strbuf_free(&decoder.text);
    return status;
}

pgrad_status pgrad_decoder_create(pgrad_tokenizer *tokenizer, uint32_t flags, pgrad_decoder **out)
{
    pgrad_decoder *decoder;
    if (tokenizer == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "decoder_create: an argument is NULL");
    PGRAD__TRY(check_flags(flags, "decoder_create"));
    PGRAD__TRY(pgrad__calloc(tokenizer->context, 1, sizeof *decoder, &decoder));
    pgrad__tokenizer_retain(tokenizer);
    *decoder = (pgrad_decoder){.context = tokenizer->context,
                               .tokenizer = tokenizer,
                               .flags = flags,
                               .text = {.context = tokenizer->context}};
    *out = decoder;
    return PGRAD_OK;
}

static pgrad_status give(const pgrad_decoder *decoder, const char **text, size_t *length)
{
    PGRAD__TRY(decoder->text.status);
    *text = decoder->text.data == NULL ? "" : decoder->text.data;
    if (length != NULL)
        *length = decoder->text.length;
    return PGRAD_OK;
}

pgrad_status pgrad_decoder_push(pgrad_decoder *decoder, pgrad_token id, const char **text,
                                size_t *length)
{
    if (decoder == NULL || text == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "decoder_push: an argument is NULL");
    pgrad__strbuf_clear(&decoder->text);
    PGRAD__TRY(push_id(decoder, id, 0));
    return give(decoder, text, length);
}

pgrad_status pgrad_decoder_finish(pgrad_decoder *decoder, const char **text, size_t *length)
{
    if (decoder == NULL || text == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "decoder_finish: an argument is NULL");
    pgrad__strbuf_clear(&decoder->text);
    replace_held(decoder);
    return give(decoder, text, length);
}

void pgrad_decoder_free(pgrad_decoder *decoder)
{
    if (decoder == NULL)
        return;
    pgrad_tokenizer *tokenizer = decoder->tokenizer;
    pgrad__strbuf_free(&decoder->text);
    pgrad__free(decoder->context, decoder);
    pgrad_tokenizer_free(tokenizer);
}
