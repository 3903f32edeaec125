/* The strings of the tokenizer comparison: string i is a pure function of i (Philox), so that the
 * script that asks the reference and the test see the same bytes. Changing anything here needs
 * tests/golden/make_tokenizer_ids.py run again. Only characters assigned long ago occur: libraries
 * differ in their version of Unicode. */
#ifndef PGRAD_TESTS_TEXT_STRINGS_H
#define PGRAD_TESTS_TEXT_STRINGS_H

#include <stdint.h>
#include <string.h>

#include "base/rng.h"

enum { N_STRINGS = 10000, STRINGS_A_BLOCK = 100, STRING_MAX = 16384, STRINGS_SEED = 20 };

typedef struct string_maker {
    uint64_t stream, position;
    char *text;
    size_t length;
} string_maker;

static inline uint32_t strings_below(string_maker *maker, uint32_t n)
{
    return (uint32_t)pgrad__uniform_below(STRINGS_SEED, maker->stream, maker->position++, n);
}

static inline void strings_put(string_maker *maker, const char *text)
{
    size_t n = strlen(text);
    if (maker->length + n > STRING_MAX)
        return;
    memcpy(maker->text + maker->length, text, n);
    maker->length += n;
}

static inline void strings_put_code(string_maker *maker, uint32_t code)
{
    char utf8[5] = {0};
    if (code < 0x80) {
        utf8[0] = (char)code;
    } else if (code < 0x800) {
        utf8[0] = (char)(0xc0 | code >> 6);
        utf8[1] = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        utf8[0] = (char)(0xe0 | code >> 12);
        utf8[1] = (char)(0x80 | (code >> 6 & 63));
        utf8[2] = (char)(0x80 | (code & 63));
    } else {
        utf8[0] = (char)(0xf0 | code >> 18);
        utf8[1] = (char)(0x80 | (code >> 12 & 63));
        utf8[2] = (char)(0x80 | (code >> 6 & 63));
        utf8[3] = (char)(0x80 | (code & 63));
    }
    if (code != 0)
        strings_put(maker, utf8);
    else if (maker->length < STRING_MAX)
        maker->text[maker->length++] = '\0';
}

/* Runs of letters of one script; the ranges hold no unassigned code point. */
static const uint32_t strings_ranges[][2] = {
    {'a', 'z'},         {'a', 'z'},         {'A', 'Z'},         {0x00c0, 0x00d6}, /* Latin */
    {0x00e0, 0x00f6},   {0x0100, 0x017f},   {0x1e00, 0x1eff},   {0x0391, 0x03a1}, /* Greek */
    {0x03b1, 0x03c9},   {0x0410, 0x044f},   {0x0531, 0x0556},   {0x05d0, 0x05ea}, /* Hebrew */
    {0x0621, 0x063a},   {0x0641, 0x064a},   {0x0904, 0x0939},   {0x0e01, 0x0e30}, /* Thai */
    {0x10d0, 0x10f0},   {0x1100, 0x1159},   {0x3041, 0x3094},   {0x30a1, 0x30fa}, /* Kana */
    {0x4e00, 0x9fa5},   {0xac00, 0xd7a3},   {0x13a0, 0x13f4},   {0x20000, 0x2a6d6},
    {0x10330, 0x1034a}, {0x1d400, 0x1d454}, {0xff21, 0xff3a},   {0x02b0, 0x02b8},
};

static const uint32_t strings_marks[][2] = {
    {0x0300, 0x034e}, {0x0591, 0x05a1}, {0x064b, 0x0652}, {0x093e, 0x094d},
    {0x0e34, 0x0e3a}, {0x20d0, 0x20dc}, {0xfe00, 0xfe0f}, {0x3099, 0x309a},
};

static const uint32_t strings_digits[][2] = {
    {'0', '9'},       {'0', '9'},       {'0', '9'},       {0x0660, 0x0669}, {0x06f0, 0x06f9},
    {0x0966, 0x096f}, {0xff10, 0xff19}, {0x2160, 0x2188}, {0x2460, 0x249b}, {0x00bc, 0x00be},
    {0x00b2, 0x00b3}, {0x2070, 0x2070}, {0x3021, 0x3029}, {0x1d7ce, 0x1d7ff},
};

static const uint32_t strings_symbols[][2] = {
    {'!', '/'},         {':', '@'},         {'[', '`'},         {'{', '~'},       {0x00a1, 0x00a9},
    {0x2010, 0x2027},   {0x20a0, 0x20b5},   {0x2190, 0x21ff},   {0x2200, 0x22ff}, {0x2500, 0x25ff},
    {0x3001, 0x3003},   {0x3008, 0x3011},   {0x060c, 0x060c},   {0x1f300, 0x1f320},
    {0x1f600, 0x1f64f}, {0x1f680, 0x1f6c5}, {0x1f1e6, 0x1f1ff}, {0x0001, 0x0008}, {0x007f, 0x0084},
    {0x200b, 0x200f},   {0xe000, 0xe010},   {0xfffd, 0xfffd},   {0x0000, 0x0000}, {0x1f3fb, 0x1f3ff},
};

static const uint32_t strings_spaces[] = {
    ' ',    ' ',    ' ',    '\n',   '\n',   '\r',   '\t',   0x0b,   0x0c,   0x85,   0xa0,
    0x1680, 0x2000, 0x2003, 0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000, 0x1c,
};

static const char *const strings_words[] = {
    "the",    "The",      "hello",   "World",   "policy",  "gradient",     "I'm",     "don't",
    "can'T",  "WE'LL",    "they've", "you're",  "he'd",    "'s",           "'",       "''re",
    "naïve",  "Café",     "e\xcc\x81", "straße", "ſ",      "I'ſ",          "İstanbul", "ﬁne",
    "日本語", "こんにちは", "안녕하세요", "Привет", "мир",  "Ελλάδα",       "שלום",    "مرحبا",
    "नमस्ते",  "สวัสดี",     "👩‍👩‍👧‍👦",      "👍🏽",      "🇩🇪",      "❤️",            "int",     "return",
    "0x1F",   "3.14159",  "1,000,000", "2024-12-31", "foo_bar", "camelCase", "http://", "a@b.c",
    "\\n",    "{\"k\":",  "};",      "<div>",   "</s>",    "<|endoftext|>", "<|im_start|>",
    "<|im_end|>", "<|eot_id|>", "<|begin_of_text|>", "<|im_", "...", "…", "--", "==", "!!!", "Ġ", "Ċ",
};

#define STRINGS_COUNT(a) ((uint32_t)(sizeof(a) / sizeof((a)[0])))

static inline void strings_run(string_maker *maker, const uint32_t ranges[][2], uint32_t n_ranges,
                               uint32_t longest)
{
    const uint32_t *range = ranges[strings_below(maker, n_ranges)];
    uint32_t n = 1 + strings_below(maker, longest);
    for (uint32_t i = 0; i < n; i++)
        strings_put_code(maker, range[0] + strings_below(maker, range[1] - range[0] + 1));
}

static inline void strings_piece(string_maker *maker)
{
    switch (strings_below(maker, 12)) {
    case 0: case 1: case 2:
        strings_put(maker, strings_words[strings_below(maker, STRINGS_COUNT(strings_words))]);
        break;
    case 3: case 4:
        strings_run(maker, strings_ranges, STRINGS_COUNT(strings_ranges), 9);
        break;
    case 5:
        strings_run(maker, strings_digits, STRINGS_COUNT(strings_digits), 7);
        break;
    case 6: case 7:
        strings_run(maker, strings_symbols, STRINGS_COUNT(strings_symbols), 4);
        break;
    case 8:
        strings_run(maker, strings_marks, STRINGS_COUNT(strings_marks), 3);
        break;
    default: {
        uint32_t n = strings_below(maker, 4) == 0 ? 1 + strings_below(maker, 8) : 1;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t among = strings_below(maker, 3) == 0 ? STRINGS_COUNT(strings_spaces) : 3;
            strings_put_code(maker, strings_spaces[strings_below(maker, among)]);
        }
        break;
    }
    }
}

/* Makes string number `index`; text has room for STRING_MAX bytes. Gives its length. */
static inline size_t make_string(uint32_t index, char *text)
{
    string_maker maker = {.stream = index, .text = text};
    uint32_t n = strings_below(&maker, 24);
    if (index % 50 == 49) {
        /* one piece again and again: long words, runs of white space, ties in the merges */
        uint32_t again = 1 + strings_below(&maker, 200);
        strings_piece(&maker);
        size_t length = maker.length;
        for (uint32_t i = 0; i < again && maker.length + length <= STRING_MAX; i++) {
            memcpy(text + maker.length, text, length);
            maker.length += length;
        }
        n = 2;
    }
    for (uint32_t i = 0; i < n; i++)
        strings_piece(&maker);
    return maker.length;
}

#endif
