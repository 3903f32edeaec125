/* What the tests of lib/text share: a small byte-level BPE tokenizer.json that each test changes in one
 * place. Ids 0 to 255 are the bytes, then come a few merges and three special tokens. */
#ifndef PGRAD_TESTS_TEXT_TEST_H
#define PGRAD_TESTS_TEXT_TEST_H

#include "../io/io_test.h"

#include <policygrad/chat.h>
#include <policygrad/tokenizer.h>

enum { ID_HE = 256, ID_LL, ID_HELL, ID_HELLO, ID_SPACE_HELLO, ID_END, ID_IM_START, ID_IM_END, N_IDS };

/* Each NULL stands for what a plain tokenizer has there. */
typedef struct parts {
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder;
    const char *model;        /* more members of the model: "\"dropout\":0.1," */
    const char *vocabulary;   /* more tokens: ",\"x\":300" */
    const char *merges;       /* all of them */
    const char *added_tokens; /* more of them: ",{...}" */
} parts;

/* The character that stands for a byte: itself when it can be printed, else U+0100 and up in order. */
static inline void put_stand_in(bytes *to, unsigned byte)
{
    unsigned code = byte, others = 0;
    for (unsigned b = 0; b <= byte; b++) {
        int printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        code = printable ? b : 256 + others;
        others += !printable;
    }
    if (code == '"' || code == '\\')
        put_text(to, "\\");
    if (code < 0x80) {
        put_number(to, code, 1);
    } else {
        put_number(to, 0xc0 | code >> 6, 1);
        put_number(to, 0x80 | (code & 63), 1);
    }
}

static inline const char *or_else(const char *text, const char *plain)
{
    return text != NULL ? text : plain;
}

static inline void put_parts(bytes *to, const parts *p)
{
    put_text(to, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":["
                 "{\"id\":261,\"content\":\"<|endoftext|>\",\"special\":true,\"normalized\":false},"
                 "{\"id\":262,\"content\":\"<|im_start|>\",\"special\":true,\"normalized\":false},"
                 "{\"id\":263,\"content\":\"<|im_end|>\",\"special\":true,\"normalized\":false}");
    put_text(to, or_else(p->added_tokens, ""));
    put_text(to, "],\"normalizer\":");
    put_text(to, or_else(p->normalizer, "null"));
    put_text(to, ",\"pre_tokenizer\":");
    put_text(to, or_else(p->pre_tokenizer, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"));
    put_text(to, ",\"post_processor\":");
    put_text(to, or_else(p->post_processor, "null"));
    put_text(to, ",\"decoder\":");
    put_text(to, or_else(p->decoder, "{\"type\":\"ByteLevel\"}"));
    put_text(to, ",\"model\":{\"type\":\"BPE\",");
    put_text(to, or_else(p->model, ""));
    put_text(to, "\"vocab\":{");
    for (unsigned byte = 0; byte < 256; byte++) {
        char id[16];
        snprintf(id, sizeof id, "\":%u,", byte);
        put_text(to, "\"");
        put_stand_in(to, byte);
        put_text(to, id);
    }
    put_text(to, "\"he\":256,\"ll\":257,\"hell\":258,\"hello\":259,\"\xc4\xa0hello\":260");
    put_text(to, or_else(p->vocabulary, ""));
    put_text(to, "},\"merges\":[");
    put_text(to, or_else(p->merges, "\"h e\",\"l l\",\"he ll\",[\"hell\",\"o\"],[\"\xc4\xa0\",\"hello\"]"));
    put_text(to, "]}}");
}

static inline const char *put_tokenizer(const parts *p)
{
    bytes json = {0};
    put_parts(&json, p);
    const char *path = put_file("tokenizer.json", json.data, json.size);
    drop(&json);
    return path;
}

static inline pgrad_tokenizer *load_parts(parts p)
{
    pgrad_tokenizer *tokenizer = NULL;
    OK(pgrad_tokenizer_load(context, put_tokenizer(&p), &tokenizer));
    return tokenizer;
}

/* Loading fails with this code and text, and leaves the output alone. */
#define PARTS_FAIL(code, text, ...)                                                                \
    do {                                                                                           \
        pgrad_tokenizer *none_ = NULL;                                                             \
        const parts parts_ = {__VA_ARGS__};                                                        \
        FAILS(code, text, pgrad_tokenizer_load(context, put_tokenizer(&parts_), &none_));          \
        ck_assert_ptr_null(none_);                                                                 \
    } while (0)

/* The text has these ids, and decodes to itself. */
static inline void check_ids(pgrad_tokenizer *tokenizer, const char *text, uint32_t flags,
                             const pgrad_token *wanted, size_t n_wanted)
{
    pgrad_token ids[512];
    size_t n;
    OK(pgrad_tokenizer_encode(tokenizer, text, strlen(text), flags, ids, 512, &n));
    for (size_t i = 0; i < n && i < n_wanted; i++)
        ck_assert_msg(ids[i] == wanted[i], "\"%s\": id %zu is %d, not %d", text, i, ids[i], wanted[i]);
    ck_assert_msg(n == n_wanted, "\"%s\": %zu ids, not %zu", text, n, n_wanted);
}

#define IDS(tokenizer, text, flags, ...)                                                           \
    do {                                                                                           \
        const pgrad_token wanted_[] = {__VA_ARGS__};                                               \
        check_ids(tokenizer, text, flags, wanted_, sizeof wanted_ / sizeof wanted_[0]);            \
    } while (0)

#endif
