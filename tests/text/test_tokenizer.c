/* Tokenizers on small files made here. Names carry the row (TK, PR) of the catalogue of bad inputs they check. */
#include "text_test.h"

#include "text/regex.h"

START_TEST(encodes_and_decodes)
{
    pgrad_tokenizer *t = load_parts((parts){0});
    char text[64];
    size_t length;
    IDS(t, "hello hello", 0, ID_HELLO, ID_SPACE_HELLO);
    IDS(t, "hell", 0, ID_HELL);
    IDS(t, "heLl", 0, ID_HE, 'L', 'l');
    IDS(t, "\xc3\xa9 1", 0, 0xc3, 0xa9, ' ', '1');
    OK(pgrad_tokenizer_decode(t, (pgrad_token[]){ID_HELLO, ID_SPACE_HELLO, '!'}, 3, 0, text, 64, &length));
    ck_assert_str_eq(text, "hello hello!");
    ck_assert_uint_eq(length, 12);
    ck_assert_uint_eq(pgrad_tokenizer_count(t), N_IDS);
    ck_assert_int_eq(pgrad_tokenizer_find(t, "<|im_end|>", 10), ID_IM_END);
    ck_assert_int_eq(pgrad_tokenizer_find(t, "<|im_en", 7), -1);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_END_OF_TURN), ID_IM_END);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_BOS), -1);
    ck_assert_int_eq(pgrad_tokenizer_special(t, 99), -1);
    ck_assert_int_eq(pgrad_tokenizer_special(t, -1), -1);
    pgrad_tokenizer_free(t);
}
END_TEST

/* TK16: what a user types stays text. */
START_TEST(tk16_special_tokens_are_text_unless_flagged)
{
    pgrad_tokenizer *t = load_parts((parts){0});
    pgrad_token ids[64];
    size_t n;
    OK(pgrad_tokenizer_encode(t, "<|im_end|>", 10, 0, ids, 64, &n));
    ck_assert_uint_eq(n, 10);
    for (size_t i = 0; i < n; i++)
        ck_assert_int_lt(ids[i], 256);
    IDS(t, "<|im_end|>", PGRAD_ENCODE_SPECIAL, ID_IM_END);
    IDS(t, "a<|im_start|>hello<|im_end|><|im_", PGRAD_ENCODE_SPECIAL, 'a', ID_IM_START, ID_HELLO, ID_IM_END,
        '<', '|', 'i', 'm', '_');
    pgrad_tokenizer_free(t);
}
END_TEST

/* Not as a whole piece, not by merges that end in a special token, not as a byte of its own. */
START_TEST(text_never_becomes_a_special_token)
{
    pgrad_tokenizer *t = load_parts((parts){
        .model = "\"ignore_merges\":true,",
        .pre_tokenizer = "null",
        .vocabulary = ",\"<|end|>\":264,\"stop\":265,\"st\":266,\"op\":267,\"stops\":268",
        .merges = "\"s t\",\"o p\",\"st op\",\"stop s\"",
        .added_tokens = ",{\"id\":264,\"content\":\"<|end|>\",\"special\":true}"
                        ",{\"id\":265,\"content\":\"stop\",\"special\":true}"
                        ",{\"id\":126,\"content\":\"~\",\"special\":true}"});
    IDS(t, "<|end|>", 0, '<', '|', 'e', 'n', 'd', '|', '>');
    IDS(t, "<|end|>", PGRAD_ENCODE_SPECIAL, 264);
    IDS(t, "stop", 0, 's', 't', 'o', 'p');
    IDS(t, "stop", PGRAD_ENCODE_SPECIAL, 265);
    IDS(t, "stops st", 0, 268, ' ', 266); /* a step on the way to another token */
    IDS(t, "a~b", 0, 'a', 'b');           /* as a byte that the vocabulary lacks */
    IDS(t, "a~b", PGRAD_ENCODE_SPECIAL, 'a', '~', 'b');
    pgrad_tokenizer_free(t);
}
END_TEST

/* The longest of many tokens that begin alike. */
START_TEST(many_added_tokens)
{
    bytes added = {0};
    char item[128], text[8];
    for (int i = 0; i < 26 * 27; i++) {
        /* "<aa" to "<zz" and "<a>" .. : three of one length and its beginnings */
        snprintf(text, sizeof text, i % 27 == 26 ? "<%c" : "<%c%c", 'a' + i / 27, 'a' + i % 27);
        snprintf(item, sizeof item, ",{\"id\":%d,\"content\":\"%s\",\"special\":%s,\"normalized\":false}",
                 1000 + i, text, i % 2 ? "true" : "false");
        put_text(&added, item);
    }
    put_number(&added, 0, 1);
    pgrad_tokenizer *t = load_parts((parts){.added_tokens = (const char *)added.data});
    for (int i = 0; i < 26 * 27; i++) {
        snprintf(text, sizeof text, i % 27 == 26 ? "<%c" : "<%c%c", 'a' + i / 27, 'a' + i % 27);
        ck_assert_int_eq(pgrad_tokenizer_find(t, text, strlen(text)), 1000 + i);
        IDS(t, text, PGRAD_ENCODE_SPECIAL, 1000 + i);
    }
    IDS(t, "<aA<ab<z", PGRAD_ENCODE_SPECIAL, 1026, 'A', 1001, 1000 + 26 * 27 - 1);
    IDS(t, "<ab", 0, 1026, 'b'); /* "<ab" is special, its beginning "<a" is not */
    pgrad_tokenizer_free(t);
    drop(&added);
}
END_TEST

START_TEST(skips_special_tokens_when_asked)
{
    pgrad_tokenizer *t = load_parts((parts){0});
    const pgrad_token ids[] = {ID_IM_START, ID_HELLO, ID_IM_END};
    char text[64];
    size_t length;
    OK(pgrad_tokenizer_decode(t, ids, 3, 0, text, sizeof text, &length));
    ck_assert_str_eq(text, "<|im_start|>hello<|im_end|>");
    OK(pgrad_tokenizer_decode(t, ids, 3, PGRAD_DECODE_SKIP_SPECIAL, text, sizeof text, &length));
    ck_assert_str_eq(text, "hello");
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(buffers_too_small_tell_the_size)
{
    pgrad_tokenizer *t = load_parts((parts){0});
    pgrad_token ids[4] = {-7, -7, -7, -7};
    char text[16];
    size_t n = 99;
    FAILS(PGRAD_E_BUFFER, "3 tokens", pgrad_tokenizer_encode(t, "hello!?", 7, 0, ids, 1, &n));
    ck_assert_uint_eq(n, 3);
    ck_assert_int_eq(ids[0], -7);
    FAILS(PGRAD_E_BUFFER, "3 tokens", pgrad_tokenizer_encode(t, "hello!?", 7, 0, NULL, 0, &n));
    ck_assert_uint_eq(n, 3);
    memset(text, 'x', sizeof text);
    FAILS(PGRAD_E_BUFFER, "5", pgrad_tokenizer_decode(t, (pgrad_token[]){ID_HELLO}, 1, 0, text, 4, &n));
    ck_assert_uint_eq(n, 5);
    ck_assert_int_eq(text[0], 'x');
    OK(pgrad_tokenizer_decode(t, (pgrad_token[]){ID_HELLO}, 1, 0, text, 5, &n));
    ck_assert_int_eq(text[5], 'x'); /* no room for a NUL */
    OK(pgrad_tokenizer_decode(t, (pgrad_token[]){ID_HELLO}, 1, 0, text, 6, &n));
    ck_assert_int_eq(text[5], '\0');
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(pr01_empty_and_nul)
{
    pgrad_tokenizer *t = load_parts((parts){0});
    pgrad_token ids[8];
    char text[8] = "x";
    size_t n = 99;
    OK(pgrad_tokenizer_encode(t, NULL, 0, 0, NULL, 0, &n));
    ck_assert_uint_eq(n, 0);
    FAILS(PGRAD_E_INVALID, "NULL", pgrad_tokenizer_encode(t, NULL, 1, 0, ids, 8, &n));
    FAILS(PGRAD_E_INVALID, "NULL", pgrad_tokenizer_encode(NULL, "a", 1, 0, ids, 8, &n));
    FAILS(PGRAD_E_INVALID, "NULL", pgrad_tokenizer_encode(t, "a", 1, 0, NULL, 8, &n));
    FAILS(PGRAD_E_INVALID, "flags", pgrad_tokenizer_encode(t, "a", 1, 64, ids, 8, &n));
    OK(pgrad_tokenizer_encode(t, "a\0b", 3, 0, ids, 8, &n));
    ck_assert_uint_eq(n, 3);
    ck_assert_int_eq(ids[1], 0);
    OK(pgrad_tokenizer_decode(t, NULL, 0, 0, text, sizeof text, &n));
    ck_assert_uint_eq(n, 0);
    ck_assert_int_eq(text[0], '\0');
    const char *piece = "left alone";
    pgrad_decoder *decoder = NULL;
    FAILS(PGRAD_E_INVALID, "tokenizer_load: path is NULL", pgrad_tokenizer_load(context, NULL, &t));
    FAILS(PGRAD_E_INVALID, "tokenizer_load: out is NULL", pgrad_tokenizer_load(context, "t.json", NULL));
    FAILS(PGRAD_E_INVALID, "tokenizer_decode: an argument is NULL",
          pgrad_tokenizer_decode(t, NULL, 1, 0, text, sizeof text, &n));
    FAILS(PGRAD_E_INVALID, "tokenizer_decode: an argument is NULL", pgrad_tokenizer_decode(t, ids, 1, 0, NULL, 8, &n));
    FAILS(PGRAD_E_INVALID, "tokenizer_decode: flags 0x40 are not known",
          pgrad_tokenizer_decode(t, ids, 1, 64, text, sizeof text, &n));
    FAILS(PGRAD_E_INVALID, "decoder_create: an argument is NULL", pgrad_decoder_create(NULL, 0, &decoder));
    FAILS(PGRAD_E_INVALID, "decoder_create: an argument is NULL", pgrad_decoder_create(t, 0, NULL));
    FAILS(PGRAD_E_INVALID, "decoder_create: flags 0x40", pgrad_decoder_create(t, 64, &decoder));
    FAILS(PGRAD_E_INVALID, "decoder_push: an argument is NULL", pgrad_decoder_push(NULL, 1, &piece, &n));
    FAILS(PGRAD_E_INVALID, "decoder_finish: an argument is NULL", pgrad_decoder_finish(NULL, &piece, &n));
    ck_assert_ptr_null(decoder);
    ck_assert_str_eq(piece, "left alone");
    pgrad_tokenizer_free(t);
    pgrad_tokenizer_free(NULL);
    pgrad_decoder_free(NULL);
}
END_TEST

START_TEST(pr03_invalid_utf8_tells_its_place)
{
    static const struct {
        const char *text;
        size_t length;
        const char *at;
    } cases[] = {
        {"ab\x80", 3, "byte 2 of 3"},         {"\xc0\x80", 2, "byte 0 of 2"},
        {"\xed\xa0\x80", 3, "byte 0 of 3"},   {"x\xf5\x80\x80\x80", 5, "byte 1 of 5"},
        {"abc\xe2\x82", 5, "byte 3 of 5"},    {"\xe0\x80\xaf", 3, "byte 0 of 3"},
        {"\xf4\x90\x80\x80", 4, "byte 0 of 4"}, {"\xc3\xa9\xff", 3, "byte 2 of 3"},
    };
    pgrad_tokenizer *t = load_parts((parts){0});
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgrad_token ids[8];
        size_t n = 99;
        FAILS(PGRAD_E_FORMAT, cases[i].at,
              pgrad_tokenizer_encode(t, cases[i].text, cases[i].length, 0, ids, 8, &n));
        ck_assert_uint_eq(n, 99);
    }
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(pr06_a_text_beyond_the_limit)
{
    pgrad_tokenizer *t = load_parts((parts){0});
    size_t n = 99;
    FAILS(PGRAD_E_LIMIT, "2147483648",
          pgrad_tokenizer_encode(t, "", (size_t)INT32_MAX + 1, 0, NULL, 0, &n));
    ck_assert_uint_eq(n, 99);
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(pr07_ids_from_the_host)
{
    pgrad_tokenizer *t = load_parts((parts){0});
    char text[8];
    size_t length;
    FAILS(PGRAD_E_INVALID, "token 1", pgrad_tokenizer_decode(t, (pgrad_token[]){'a', -1}, 2, 0, text, 8, &length));
    OK(pgrad_tokenizer_decode(t, (pgrad_token[]){'a', N_IDS, INT32_MAX, 'b'}, 4, 0, text, 8, &length));
    ck_assert_str_eq(text, "ab");
    ck_assert_uint_eq(pgrad_tokenizer_has(t, N_IDS - 1), 1);
    ck_assert_uint_eq(pgrad_tokenizer_has(t, N_IDS), 0);
    ck_assert_uint_eq(pgrad_tokenizer_has(t, -1), 0);
    pgrad_tokenizer_free(t);
}
END_TEST

/* PR10: characters split over tokens come out whole, what never becomes one as U+FFFD. */
START_TEST(pr10_streaming)
{
    static const struct {
        pgrad_token ids[8];
        size_t n;
        const char *pieces[9]; /* the last one is what finish gives */
    } cases[] = {
        {{0xf0, 0x9f, 0x98, 0x80}, 4, {"", "", "", "\xf0\x9f\x98\x80", ""}},
        {{'a', 0xe2, 0x82}, 3, {"a", "", "", "\xef\xbf\xbd"}},
        {{0xe2, 'b'}, 2, {"", "\xef\xbf\xbd" "b", ""}},
        {{0x80, 0xff}, 2, {"\xef\xbf\xbd", "\xef\xbf\xbd", ""}},
        {{0xe2, ID_HELLO, 0xc3, 0xa9}, 4, {"", "\xef\xbf\xbdhello", "", "\xc3\xa9", ""}},
        {{0xed, 0xa0, 0x80}, 3, {"", "\xef\xbf\xbd\xef\xbf\xbd", "\xef\xbf\xbd", ""}},
        {{0xf0, 0x9f, ID_IM_END, 0x98}, 4, {"", "", "\xef\xbf\xbd<|im_end|>", "\xef\xbf\xbd", ""}},
    };
    pgrad_tokenizer *t = load_parts((parts){0});
    pgrad_decoder *decoder;
    OK(pgrad_decoder_create(t, 0, &decoder));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char whole[64] = "", decoded[64];
        size_t length;
        for (size_t j = 0; j <= cases[i].n; j++) {
            const char *piece;
            if (j < cases[i].n)
                OK(pgrad_decoder_push(decoder, cases[i].ids[j], &piece, &length));
            else
                OK(pgrad_decoder_finish(decoder, &piece, &length));
            ck_assert_str_eq(piece, cases[i].pieces[j]);
            ck_assert_uint_eq(length, strlen(piece));
            strcat(whole, piece);
        }
        OK(pgrad_tokenizer_decode(t, cases[i].ids, cases[i].n, 0, decoded, sizeof decoded, &length));
        ck_assert_str_eq(decoded, whole);
    }
    pgrad_tokenizer_free(t); /* the decoder holds on to it */
    const char *piece;
    FAILS(PGRAD_E_INVALID, "-3", pgrad_decoder_push(decoder, -3, &piece, NULL));
    OK(pgrad_decoder_push(decoder, ID_HELLO, &piece, NULL));
    ck_assert_str_eq(piece, "hello");
    pgrad_decoder_free(decoder);
}
END_TEST

START_TEST(tk01_tk02_tk03_merges)
{
    PARTS_FAIL(PGRAD_E_FORMAT, "'aa' with 'bb'", .vocabulary = ",\"aa\":300,\"bb\":301",
               .merges = "[\"aa\",\"bb\"]");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.merges[1]: 'q' with 'zz'", .merges = "\"h e\",\"q zz\"");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.merges[1]", .merges = "\"h e\",\"alone\"");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.merges[0]", .merges = "\"h e l\"");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.merges[0]", .merges = "[\"h\",\"e\",\"l\"]");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.merges[0]", .merges = "[\"h\"]");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.merges[0]", .merges = "7");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.merges[0]", .merges = "[\"\",\"e\"]");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.merges[0]", .merges = "\"h \"");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "continuing_subword_prefix",
               .model = "\"continuing_subword_prefix\":\"##\",");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "end_of_word_suffix", .model = "\"end_of_word_suffix\":\"</w>\",");
    /* affixes that are "" are none, as some files have them */
    pgrad_tokenizer_free(load_parts(
        (parts){.model = "\"continuing_subword_prefix\":\"\",\"end_of_word_suffix\":\"\",\"dropout\":null,"}));
    /* a pair given twice: the later rank counts, so "ll" comes first here */
    pgrad_tokenizer *t =
        load_parts((parts){.merges = "\"l l\",\"h e\",\"l o\",\"l l\"", .vocabulary = ",\"lo\":264"});
    IDS(t, "llo", 0, 'l', 264);
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(tk04_ids)
{
    PARTS_FAIL(PGRAD_E_FORMAT, "belongs to two tokens", .vocabulary = ",\"zz\":259");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.vocab.zz", .vocabulary = ",\"zz\":-1");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.vocab.zz", .vocabulary = ",\"zz\":4294967296");
    PARTS_FAIL(PGRAD_E_FORMAT, "model.vocab.zz", .vocabulary = ",\"zz\":1.5");
    PARTS_FAIL(PGRAD_E_LIMIT, "1000000000", .vocabulary = ",\"zz\":1000000000");
    PARTS_FAIL(PGRAD_E_FORMAT, "added_tokens[3]", .added_tokens = ",{\"content\":\"<x>\"}");
    PARTS_FAIL(PGRAD_E_FORMAT, "belongs to two tokens",
               .added_tokens = ",{\"id\":263,\"content\":\"<x>\",\"special\":true}");
    pgrad_tokenizer *t = load_parts((parts){.vocabulary = ",\"zz\":5000"});
    ck_assert_uint_eq(pgrad_tokenizer_count(t), 5001);
    ck_assert_uint_eq(pgrad_tokenizer_has(t, 4999), 0);
    ck_assert_uint_eq(pgrad_tokenizer_has(t, 5000), 1);
    pgrad_tokenizer_free(t);
}
END_TEST

/* An added token of the vocabulary has its id there; two have two contents. */
START_TEST(tk04_contents)
{
    PARTS_FAIL(PGRAD_E_FORMAT, "tokenizer.json: added_tokens[3].id: expected 264 as in model.vocab, found 300",
               .vocabulary = ",\"<x>\":264", .added_tokens = ",{\"id\":300,\"content\":\"<x>\"}");
    PARTS_FAIL(PGRAD_E_FORMAT, "added_tokens[4]: added token 265: content: expected another than token 264's, found '<x>'",
               .added_tokens = ",{\"id\":264,\"content\":\"<x>\"},{\"id\":265,\"content\":\"<x>\"}");
    pgrad_tokenizer *t = load_parts((parts){
        .vocabulary = ",\"<x>\":264", .added_tokens = ",{\"id\":264,\"content\":\"<x>\",\"special\":true}"});
    IDS(t, "<x>", PGRAD_ENCODE_SPECIAL, 264);
    pgrad_tokenizer_free(t);
}
END_TEST

/* A value of the wrong type is an error: never left out, never taken for something else. */
START_TEST(fields_have_their_types)
{
#define TEMPLATE(single)                                                                           \
    "{\"type\":\"TemplateProcessing\",\"single\":" single ",\"special_tokens\":{\"a\":{\"ids\":[262]}}}"
    static const struct {
        parts p;
        const char *text;
    } cases[] = {
        {{.model = "\"dropout\":\"0.1\","}, "model.dropout: expected a number from 0 to 1, found \"0.1\""},
        {{.model = "\"dropout\":7,"}, "model.dropout: expected a number from 0 to 1, found 7"},
        {{.model = "\"ignore_merges\":\"yes\","}, "model.ignore_merges: expected true or false, found \"yes\""},
        {{.model = "\"byte_fallback\":1,"}, "model.byte_fallback: expected true or false, found 1"},
        {{.model = "\"fuse_unk\":[],"}, "model.fuse_unk: expected true or false, found an array"},
        {{.model = "\"unk_token\":3,"}, "model.unk_token: expected a string, found 3"},
        {{.model = "\"end_of_word_suffix\":{},"}, "model.end_of_word_suffix: expected a string, found an object"},
        {{.vocabulary = ",\"zz\":\"7\""}, "model.vocab.zz: expected an id, found \"7\""},
        {{.merges = "\"h e\",\"alone\""}, "model.merges[1]: expected two parts, found 'alone'"},
        {{.added_tokens = ",7"}, "added_tokens[3].content: expected a string, found nothing"},
        {{.added_tokens = ",{\"content\":\"<x>\",\"id\":\"300\"}"}, "added_tokens[3].id: expected an id, found \"300\""},
        {{.added_tokens = ",{\"content\":\"<x>\",\"id\":300,\"special\":\"no\"}"},
         "added_tokens[3].special: expected true or false, found \"no\""},
        {{.added_tokens = ",{\"content\":\"<x>\",\"id\":300,\"lstrip\":0}"},
         "added_tokens[3].lstrip: expected true or false, found 0"},
        {{.normalizer = "{\"type\":3}"}, "normalizer.type: expected a string, found 3"},
        {{.normalizer = "\"NFC\""}, "normalizer: expected an object, found \"NFC\""},
        {{.pre_tokenizer = "{}"}, "pre_tokenizer.type: expected a string, found nothing"},
        {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":1}"},
         "pre_tokenizer.add_prefix_space: expected true or false, found 1"},
        {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"use_regex\":\"\"}"},
         "pre_tokenizer.use_regex: expected true or false, found \"\""},
        {{.pre_tokenizer = "{\"type\":\"Digits\",\"individual_digits\":1}"},
         "pre_tokenizer.individual_digits: expected true or false, found 1"},
        {{.pre_tokenizer = "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":\"x\"}"},
         "pre_tokenizer.pattern: expected an object with Regex or String, found \"x\""},
        {{.pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":3}"},
         "pre_tokenizer.pretokenizers: expected an array, found 3"},
        {{.post_processor = TEMPLATE("\"x\"")}, "post_processor.single: expected an array, found \"x\""},
        {{.post_processor = TEMPLATE("[3]")},
         "post_processor.single: expected SpecialToken or Sequence in each item, found 3"},
        {{.post_processor = TEMPLATE("[{\"SpecialToken\":{\"id\":3}}]")},
         "post_processor.single.id: expected a string, found 3"},
        {{.post_processor = TEMPLATE("[{\"Sequence\":{\"id\":\"B\"}}]")},
         "post_processor.single.Sequence: expected \"A\", once, found \"B\""},
        {{.post_processor = TEMPLATE("[{\"Sequence\":{\"id\":\"A\"}},{\"Sequence\":{\"id\":\"A\"}}]")},
         "post_processor.single.Sequence: expected \"A\", once, found \"A\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[256];
        pgrad_tokenizer *none = NULL;
        snprintf(text, sizeof text, "%s/tokenizer.json: %s", strrchr(test_folder, '/') + 1, cases[i].text);
        FAILS(PGRAD_E_FORMAT, text, pgrad_tokenizer_load(context, put_tokenizer(&cases[i].p), &none));
        ck_assert_ptr_null(none);
    }
    static const char *const roots[][2] = {
        {"{\"version\":\"2.0\"}", "version: expected \"1.0\", found \"2.0\""},
        {"{\"version\":1.0}", "version: expected \"1.0\", found 1"},
        {"{\"version\":\"1.0\"}", "model: expected an object, found nothing"},
        {"{\"model\":{\"type\":3}}", "model.type: expected a string, found 3"},
        {"{\"model\":{}}", "model.vocab: expected an object of tokens, found nothing"},
        {"{\"model\":{\"vocab\":{}}}", "model.vocab: expected tokens, the vocabulary is empty"},
        {"{\"model\":{\"vocab\":{\"a\":0}}}", "model.merges: expected an array, found nothing"},
        {"{\"model\":{\"vocab\":{\"a\":0,\"b\":0}}}", "model.vocab.b: token id 0 belongs to two tokens, 'a' and 'b'"},
        {"{\"added_tokens\":{},\"model\":{\"vocab\":{\"a\":0}}}", "added_tokens: expected an array, found an object"},
    };
    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        char text[256];
        pgrad_tokenizer *none = NULL;
        snprintf(text, sizeof text, "r.json: %s", roots[i][1]);
        FAILS(PGRAD_E_FORMAT, text, pgrad_tokenizer_load(context, put_text_file("r.json", roots[i][0]), &none));
    }
}
END_TEST

/* The reference would put the unknown token where a byte has none; text becomes no such token here. */
START_TEST(unknown_tokens)
{
    pgrad_tokenizer *t = load_parts((parts){.model = "\"unk_token\":\"<|endoftext|>\","});
    IDS(t, "hello", 0, ID_HELLO); /* no byte is missing: none is unknown */
    pgrad_tokenizer_free(t);
    const char *path = put_text_file("t.json", "{\"model\":{\"unk_token\":\"<unk>\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    t = NULL;
    FAILS(PGRAD_E_UNSUPPORTED, "t.json: model.unk_token: '<unk>' for bytes that the vocabulary lacks (0x00)",
          pgrad_tokenizer_load(context, path, &t));
    ck_assert_ptr_null(t);
}
END_TEST

START_TEST(tk05_added_tokens)
{
    PARTS_FAIL(PGRAD_E_FORMAT, "content", .added_tokens = ",{\"id\":300,\"content\":\"\"}");
    pgrad_tokenizer *t = load_parts((parts){
        .added_tokens = ",{\"id\":9000,\"content\":\"<far>\",\"special\":true}"
                        ",{\"id\":300,\"content\":\"<plain>\",\"special\":false,\"normalized\":false}"
                        ",{\"id\":301,\"content\":\"word\",\"single_word\":true,\"normalized\":false}"
                        ",{\"id\":302,\"content\":\"<strip>\",\"lstrip\":true,\"rstrip\":true}"
                        ",{\"id\":303,\"content\":\"<plain>er\",\"special\":false,\"normalized\":false}"});
    IDS(t, "<far>", PGRAD_ENCODE_SPECIAL, 9000);
    /* tokens that are not special are matched in any text, the longest first */
    IDS(t, "a<plain>hello", 0, 'a', 300, ID_HELLO);
    IDS(t, "<plain>er<plain>e", 0, 303, 300, 'e');
    IDS(t, "a word, words", 0, 'a', ' ', 301, ',', ' ', 'w', 'o', 'r', 'd', 's');
    IDS(t, "_word", 0, '_', 'w', 'o', 'r', 'd');
    IDS(t, "a \n<strip>\xc2\xa0 b", 0, 'a', 302, 'b');
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(tk06_templates)
{
    PARTS_FAIL(PGRAD_E_FORMAT, "'<s>' is missing",
               .post_processor = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
                                 "\"<s>\",\"type_id\":0}}],\"special_tokens\":{}}");
    PARTS_FAIL(PGRAD_E_FORMAT, "post_processor.special_tokens",
               .post_processor = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
                                 "\"<s>\",\"type_id\":0}}],\"special_tokens\":{\"<s>\":{\"ids\":[777]}}}");
    pgrad_tokenizer *t = load_parts((parts){
        .post_processor = "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},{\"type\":"
                          "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}},"
                          "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"b\"}}],"
                          "\"special_tokens\":{\"a\":{\"ids\":[262]},\"b\":{\"ids\":[263,261]}}}]}"});
    IDS(t, "hello", PGRAD_ENCODE_ADD, ID_IM_START, ID_HELLO, ID_IM_END, ID_END);
    IDS(t, "hello", 0, ID_HELLO);
    IDS(t, "", PGRAD_ENCODE_ADD, ID_IM_START, ID_IM_END, ID_END);
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(tk07_what_is_not_built_is_refused_by_its_path)
{
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "normalizer: 'Lowercase'", .normalizer = "{\"type\":\"Lowercase\"}");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "normalizer.normalizers[1]: 'Precompiled'",
               .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"
                             "\"Precompiled\",\"precompiled_charsmap\":\"AAAA\"}]}");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "pre_tokenizer: 'Metaspace'",
               .pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\"}");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "pre_tokenizer.pretokenizers[0]: 'Whitespace'",
               .pre_tokenizer = "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Whitespace\"}]}");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "pre_tokenizer: 'Sideways'",
               .pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Sideways\"}");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "pre_tokenizer",
               .pre_tokenizer = "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\\\\sb\"},\"behavior\":\"Isolated\"}");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "decoder.decoders[0]: 'ByteFallback'",
               .decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"ByteFallback\"}]}");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "post_processor: 'BertProcessing'",
               .post_processor = "{\"type\":\"BertProcessing\"}");
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "model.dropout", .model = "\"dropout\":0.1,");
    PARTS_FAIL(PGRAD_E_FORMAT, "pre_tokenizer", .pre_tokenizer = "[]");
    const char *path = put_text_file("t.json", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}");
    pgrad_tokenizer *none = NULL;
    FAILS(PGRAD_E_UNSUPPORTED, "model.type: 'Unigram'", pgrad_tokenizer_load(context, path, &none));
    path = put_text_file("t.json", "{\"model\":null}");
    FAILS(PGRAD_E_FORMAT, "model", pgrad_tokenizer_load(context, path, &none));
    path = put_text_file("t.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}");
    FAILS(PGRAD_E_FORMAT, "empty", pgrad_tokenizer_load(context, path, &none));
    ck_assert_ptr_null(none);
}
END_TEST

/* TK10: byte tokens of the other kind of BPE; a byte the vocabulary lacks is dropped, as by the reference. */
START_TEST(tk10_bytes)
{
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "byte_fallback", .model = "\"byte_fallback\":true,");
    const char *path = put_text_file("t.json", "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},"
                                               "\"merges\":[\"a b\"]},\"pre_tokenizer\":null}");
    pgrad_tokenizer *t = NULL;
    OK(pgrad_tokenizer_load(context, path, &t));
    IDS(t, "abxb", 0, 2, 1);
    pgrad_tokenizer_free(t);
}
END_TEST

#define SPLIT(pattern, behavior, invert)                                                           \
    "{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":\"" behavior "\",\"invert\":" invert "}"

START_TEST(tk08_expressions)
{
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "pre_tokenizer: regular expression",
               .pre_tokenizer = SPLIT("\"Regex\":\"(a\"", "Isolated", "false"));
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "regular expression",
               .pre_tokenizer = SPLIT("\"Regex\":\"\\\\C\"", "Isolated", "false"));
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "pre_tokenizer: \\S inside a character class is not built",
               .pre_tokenizer = SPLIT("\"Regex\":\"[a\\\\S]\"", "Isolated", "false"));
    bytes json = {0};
    put_text(&json, "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"");
    for (int i = 0; i < 10000; i++)
        put_text(&json, "(");
    for (int i = 0; i < 10000; i++)
        put_text(&json, ")");
    put_text(&json, "\"},\"behavior\":\"Isolated\"}");
    put_number(&json, 0, 1);
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "regular expression", .pre_tokenizer = (const char *)json.data);
    drop(&json);
    /* an expression that goes back and forth for ever ends at a limit */
    pgrad_tokenizer *t =
        load_parts((parts){.pre_tokenizer = SPLIT("\"Regex\":\"(a+a+)+$\"", "Isolated", "false")});
    char text[65];
    size_t n = 99;
    memset(text, 'a', 64);
    text[64] = 'b';
    FAILS(PGRAD_E_LIMIT, "regular expression", pgrad_tokenizer_encode(t, text, 65, 0, NULL, 0, &n));
    ck_assert_uint_eq(n, 99);
    pgrad_tokenizer_free(t);
}
END_TEST

/* Where a class of an expression ends: \s in it stands for characters, behind it for a class. */
START_TEST(tk08_classes_and_white_space)
{
    static const struct {
        const char *pattern, *text;
        size_t begin, end;
    } cases[] = {
        {"[^^]\\s", "^ a b", 2, 4},
        {"[^]\\s]+", "] ab]", 2, 4},
        {"[]\\s]+", "a] \t]b", 1, 5},
        {"[[:digit:]\\s]+", "a1 2b", 1, 4},
        {"[[:^digit:]]\\s", "1 a b", 2, 4},
        {"[a[:]\\s+", "b:  c", 1, 4},
        {"\\[\\s\\]", "a[ ]", 1, 4},
        {"[\\]\\s]+", "a] b", 1, 3},
        {"a\\S", "a ab", 2, 4},
    };
    pgrad__regex_match *match = NULL;
    OK(pgrad__regex_match_create(context, &match));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *pattern = cases[i].pattern, *text = cases[i].text;
        pgrad__regex *regex = NULL;
        int found = 0;
        size_t begin = 0, end = 0;
        OK(pgrad__regex_compile(context, pattern, strlen(pattern), "test", &regex));
        OK(pgrad__regex_find(regex, match, text, strlen(text), 0, &found, &begin, &end));
        ck_assert_msg(found && begin == cases[i].begin && end == cases[i].end, "%s: %d, %zu to %zu", pattern, found,
                      begin, end);
        pgrad__regex_free(regex);
    }
    pgrad__regex_match_free(match);
}
END_TEST

/* How each behavior cuts: pieces do not merge across a cut, so which merges were done shows the cuts. The
 * ids are those of the Rust tokenizers. */
START_TEST(splits)
{
    static const struct {
        const char *pre_tokenizer;
        pgrad_token ids[8];
        size_t n;
    } cases[] = {
        /* tokens: 264 "x-", 265 "--", 266 "-x"; the text is "x--x" */
        {"null", {264, 266}, 2},
        {SPLIT("\"String\":\"-\"", "Isolated", "false"), {'x', '-', '-', 'x'}, 4},
        {SPLIT("\"String\":\"-\"", "Removed", "false"), {'x', 'x'}, 2},
        {SPLIT("\"String\":\"-\"", "MergedWithPrevious", "false"), {264, '-', 'x'}, 3},
        {SPLIT("\"String\":\"-\"", "MergedWithNext", "false"), {'x', '-', 266}, 3},
        {SPLIT("\"String\":\"-\"", "Contiguous", "false"), {'x', 265, 'x'}, 3},
        {SPLIT("\"Regex\":\"-+\"", "Isolated", "false"), {'x', 265, 'x'}, 3},
        {SPLIT("\"Regex\":\"-+\"", "Removed", "true"), {265}, 1},
        {SPLIT("\"Regex\":\"\"", "Isolated", "false"), {'x', '-', '-', 'x'}, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgrad_tokenizer *t = load_parts((parts){
            .pre_tokenizer = cases[i].pre_tokenizer,
            .vocabulary = ",\"x-\":264,\"--\":265,\"-x\":266",
            .merges = "\"x -\",\"- x\",\"- -\""});
        check_ids(t, "x--x", 0, cases[i].ids, cases[i].n);
        pgrad_tokenizer_free(t);
    }
}
END_TEST

START_TEST(prefix_space_and_digits)
{
    pgrad_tokenizer *t =
        load_parts((parts){.pre_tokenizer = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true}"});
    IDS(t, "hello", 0, ID_SPACE_HELLO);
    IDS(t, " hello", 0, ID_SPACE_HELLO);
    IDS(t, "<|im_end|>hello", PGRAD_ENCODE_SPECIAL, ID_IM_END, ID_SPACE_HELLO);
    check_ids(t, "", 0, NULL, 0);
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(digits_are_split)
{
    const parts p = {.vocabulary = ",\"12\":264", .merges = "\"1 2\"",
                     .pre_tokenizer = "{\"type\":\"Digits\",\"individual_digits\":true}"};
    pgrad_tokenizer *t = load_parts(p);
    IDS(t, "a12", 0, 'a', '1', '2');
    pgrad_tokenizer_free(t);
    parts together = p;
    together.pre_tokenizer = "{\"type\":\"Digits\",\"individual_digits\":false}";
    t = load_parts(together);
    IDS(t, "a12", 0, 'a', 264);
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(ignore_merges_takes_whole_pieces)
{
    pgrad_tokenizer *t = load_parts((parts){.model = "\"ignore_merges\":true,", .vocabulary = ",\"xyz\":264"});
    IDS(t, "xyz", 0, 264);
    IDS(t, "xyzz", 0, 'x', 'y', 'z', 'z');
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(nfc_composes_first)
{
    pgrad_tokenizer *t = load_parts((parts){
        .normalizer = "{\"type\":\"NFC\"}",
        .added_tokens = ",{\"id\":264,\"content\":\"<\xc3\xa9>\",\"special\":false,\"normalized\":true}"
                        ",{\"id\":265,\"content\":\"[\xc3\xa9]\",\"special\":false,\"normalized\":false}"});
    IDS(t, "e\xcc\x81", 0, 0xc3, 0xa9);
    IDS(t, "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", 0, 0xed, 0x95, 0x9c);
    IDS(t, "<e\xcc\x81>", 0, 264);               /* looked for behind the normalizer */
    IDS(t, "[e\xcc\x81]", 0, '[', 0xc3, 0xa9, ']'); /* looked for before it */
    pgrad_tokenizer_free(t);
}
END_TEST

/* A normalized token is looked for in its normalized form. */
START_TEST(nfc_applies_to_added_tokens)
{
    pgrad_tokenizer *t = load_parts((parts){
        .normalizer = "{\"type\":\"NFC\"}",
        .added_tokens = ",{\"id\":264,\"content\":\"<e\xcc\x81>\",\"special\":false,\"normalized\":true}"});
    IDS(t, "<e\xcc\x81>", 0, 264);
    IDS(t, "<\xc3\xa9>", 0, 264);
    ck_assert_int_eq(pgrad_tokenizer_find(t, "<e\xcc\x81>", 5), 264);
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(tk09_nested_sequences)
{
    bytes deep = {0};
    for (int i = 0; i < 100000; i++)
        put_text(&deep, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (int i = 0; i < 100000; i++)
        put_text(&deep, "]}");
    put_number(&deep, 0, 1);
    PARTS_FAIL(PGRAD_E_FORMAT, "", .pre_tokenizer = (const char *)deep.data);
    drop(&deep);
    deep = (bytes){0};
    for (int i = 0; i < 10; i++)
        put_text(&deep, "{\"type\":\"Sequence\",\"pretokenizers\":[");
    for (int i = 0; i < 10; i++)
        put_text(&deep, "]}");
    put_number(&deep, 0, 1);
    PARTS_FAIL(PGRAD_E_FORMAT, "nested", .pre_tokenizer = (const char *)deep.data);
    drop(&deep);
}
END_TEST

#define SIXTEEN(x) FOUR(FOUR(x))
#define FOUR(x) x "," x "," x "," x
#define SEQUENCE(of) "{\"type\":\"Sequence\",\"pretokenizers\":[" of "]}"
#define WITH_BEHIND(behind)                                                                        \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}}," behind               \
    "],\"special_tokens\":{\"e\":{\"ids\":[261]}}}"
#define AT_X SPLIT("\"String\":\"x\"", "Isolated", "false")
#define END "{\"SpecialToken\":{\"id\":\"e\"}}"

/* Sixteen of each are read, one more is not. */
START_TEST(long_sequences)
{
    pgrad_tokenizer *t = load_parts((parts){.pre_tokenizer = SEQUENCE(SIXTEEN(AT_X)),
                                            .post_processor = WITH_BEHIND(SIXTEEN(END))});
    IDS(t, "x", PGRAD_ENCODE_ADD, 'x', 261, 261, 261, 261, 261, 261, 261, 261, 261, 261, 261, 261, 261, 261, 261, 261);
    pgrad_tokenizer_free(t);
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "pre_tokenizer.pretokenizers[16]: more than 16 pre-tokenizers",
               .pre_tokenizer = SEQUENCE(SIXTEEN(AT_X) "," AT_X));
    PARTS_FAIL(PGRAD_E_UNSUPPORTED, "post_processor: 'a template of so many tokens'",
               .post_processor = WITH_BEHIND(SIXTEEN(END) "," END));
}
END_TEST

/* TK12: a million times the same; linear in time and without recursion. */
START_TEST(tk12_long_texts)
{
    static const char *const units[] = {"^", "a", " ", "\xcc\x81", "l", "\n", "1", "\xe4\xb8\xad", "'s", "he"};
    const size_t times = getenv("PGRAD_TEST_SHORT") != NULL ? 50000 : 1000000;
    pgrad_tokenizer *t = load_parts((parts){
        .pre_tokenizer = _i == 0 ? NULL : "null",
        .normalizer = _i == 2 ? "{\"type\":\"NFC\"}" : NULL});
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        const size_t size = strlen(units[u]), length = size * times;
        char *text = malloc(length), *back = malloc(length);
        pgrad_token *ids = malloc(length * sizeof *ids);
        size_t n, back_length;
        for (size_t i = 0; i < length; i++)
            text[i] = units[u][i % size];
        OK(pgrad_tokenizer_encode(t, text, length, 0, ids, length, &n));
        OK(pgrad_tokenizer_decode(t, ids, n, 0, back, length, &back_length));
        ck_assert_uint_eq(back_length, length);
        ck_assert_mem_eq(back, text, length);
        free(text);
        free(back);
        free(ids);
    }
    pgrad_tokenizer_free(t);
}
END_TEST

/* Any byte of the file changed: a tokenizer or an error, never anything else. */
START_TEST(tk14_any_byte_changed)
{
    bytes json = {0};
    put_parts(&json, &(parts){.normalizer = "{\"type\":\"NFC\"}",
                              .post_processor = "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
                                                "{\"id\":\"a\"}}],\"special_tokens\":{\"a\":{\"ids\":[262]}}}"});
    for (size_t i = 0; i < json.size; i++) {
        static const unsigned char others[] = {0x00, '"', '}', '9', 0xff};
        const unsigned char old = json.data[i];
        pgrad_tokenizer *t = NULL;
        json.data[i] = others[i % sizeof others];
        const char *path = put_file("t.json", json.data, json.size);
        json.data[i] = old;
        pgrad_status status = pgrad_tokenizer_load(context, path, &t);
        if (status == PGRAD_OK) {
            size_t n;
            pgrad_token ids[64];
            pgrad_status encoded = pgrad_tokenizer_encode(t, "hello <|im_end|>", 16, PGRAD_ENCODE_SPECIAL |
                                                          PGRAD_ENCODE_ADD, ids, 64, &n);
            ck_assert_int_eq(encoded, PGRAD_OK);
        } else {
            ck_assert(status == PGRAD_E_FORMAT || status == PGRAD_E_UNSUPPORTED || status == PGRAD_E_LIMIT);
        }
        pgrad_tokenizer_free(t);
    }
    drop(&json);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, encodes_and_decodes);
    tcase_add_test(tests, tk16_special_tokens_are_text_unless_flagged);
    tcase_add_test(tests, text_never_becomes_a_special_token);
    tcase_add_test(tests, many_added_tokens);
    tcase_add_test(tests, skips_special_tokens_when_asked);
    tcase_add_test(tests, buffers_too_small_tell_the_size);
    tcase_add_test(tests, pr01_empty_and_nul);
    tcase_add_test(tests, pr03_invalid_utf8_tells_its_place);
    tcase_add_test(tests, pr06_a_text_beyond_the_limit);
    tcase_add_test(tests, pr07_ids_from_the_host);
    tcase_add_test(tests, pr10_streaming);
    tcase_add_test(tests, tk01_tk02_tk03_merges);
    tcase_add_test(tests, tk04_ids);
    tcase_add_test(tests, tk04_contents);
    tcase_add_test(tests, fields_have_their_types);
    tcase_add_test(tests, unknown_tokens);
    tcase_add_test(tests, tk05_added_tokens);
    tcase_add_test(tests, tk06_templates);
    tcase_add_test(tests, tk07_what_is_not_built_is_refused_by_its_path);
    tcase_add_test(tests, tk08_expressions);
    tcase_add_test(tests, tk08_classes_and_white_space);
    tcase_add_test(tests, tk09_nested_sequences);
    tcase_add_test(tests, long_sequences);
    tcase_add_test(tests, tk10_bytes);
    tcase_add_test(tests, splits);
    tcase_add_test(tests, prefix_space_and_digits);
    tcase_add_test(tests, digits_are_split);
    tcase_add_test(tests, ignore_merges_takes_whole_pieces);
    tcase_add_test(tests, nfc_composes_first);
    tcase_add_test(tests, nfc_applies_to_added_tokens);
    tcase_add_loop_test(tests, tk12_long_texts, 0, 3);
    tcase_add_test(tests, tk14_any_byte_changed);
}

int main(void)
{
    return run_case("text/tokenizer", setup, teardown, 60, add);
}
