/* A tokenizer.json, or a GGUF file's tokenizer, and a text to encode behind the first NUL (of a GGUF
 * file: its last 256 bytes). What is encoded decodes, and decodes to the same text piece by piece. */
#include "fuzz.h"

static void decode(pgrad_tokenizer *tokenizer, const pgrad_token *ids, size_t n, uint32_t flags)
{
    enum { MOST = 1 << 20 };
    static char whole[MOST], pieces[MOST];
    pgrad_decoder *decoder = NULL;
    size_t length, n_pieces = 0, piece;
    const char *text;
    if (pgrad_tokenizer_decode(tokenizer, ids, n, flags, whole, MOST, &length) == PGRAD_E_BUFFER)
        return;
    PROMISE(pgrad_decoder_create(tokenizer, flags, &decoder) == PGRAD_OK);
    for (size_t i = 0; i <= n; i++) {
        PROMISE((i < n ? pgrad_decoder_push(decoder, ids[i], &text, &piece)
                       : pgrad_decoder_finish(decoder, &text, &piece)) == PGRAD_OK);
        PROMISE(piece <= MOST - n_pieces);
        memcpy(pieces + n_pieces, text, piece);
        n_pieces += piece;
    }
    PROMISE(n_pieces == length && memcmp(whole, pieces, length) == 0);
    pgrad_decoder_free(decoder);
}

static void use(pgrad_tokenizer *tokenizer, const char *text, size_t length)
{
    enum { MOST = 1 << 16 };
    static pgrad_token ids[MOST];
    size_t n;
    for (uint32_t flags = 0; flags < 4; flags++) {
        pgrad_status status = pgrad_tokenizer_encode(tokenizer, text, length, flags, ids, MOST, &n);
        if (status == PGRAD_OK) {
            PROMISE(n <= MOST);
            for (size_t i = 0; i < n; i++)
                PROMISE(ids[i] >= 0 && (uint32_t)ids[i] < pgrad_tokenizer_count(tokenizer));
            decode(tokenizer, ids, n, flags & PGRAD_DECODE_SKIP_SPECIAL);
        } else {
            PROMISE(is_refusal(status) || status == PGRAD_E_BUFFER);
        }
    }
}

static const char TEXT[] = "<|im_start|>Hello, wor\xcc\x81ld 42\n\n\xf0\x9f\x98\x80<|endoftext|>";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const int is_gguf = size >= 4 && memcmp(data, "GGUF", 4) == 0;
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    const size_t file_size = is_gguf || nul == NULL ? size : (size_t)(nul - data);
    const size_t text_at = !is_gguf ? (nul == NULL ? size : file_size + 1) : size > 256 ? size - 256 : 0;
    input in = input_begin(data, file_size);
    pgrad_tokenizer *tokenizer = NULL;
    pgrad_status status = pgrad_tokenizer_load(in.context, in.path, &tokenizer);
    if (status == PGRAD_OK) {
        use(tokenizer, (const char *)data + text_at, size - text_at);
        use(tokenizer, TEXT, sizeof TEXT - 1);
        pgrad_tokenizer_free(tokenizer);
    } else {
        PROMISE(is_refusal(status));
    }
    input_end(&in);
    return 0;
}
