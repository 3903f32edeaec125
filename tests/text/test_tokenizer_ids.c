/* The ids of 10,000 strings equal those of the Rust tokenizers, for GPT-2, Llama 3 and SmolLM2: digests
 * stored by tests/golden/make_tokenizer_ids.py. Skips (77) the tokenizers that are not there, by name.
 *
 *   test_tokenizer_ids --dump       the strings in hexadecimal, one a line
 *   test_tokenizer_ids --ids PATH   the ids, one line a string, for a look at a difference
 *   test_tokenizer_ids --write PATH FOLDER   the tokenizer's files, as a saved model gets them */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <policygrad/context.h>
#include <policygrad/status.h>

#include "strings.h"
#include "text/tokenizer.h"

typedef struct expected_ids {
    const char *path;
    uint64_t text[N_STRINGS / STRINGS_A_BLOCK];    /* special tokens are text */
    uint64_t special[N_STRINGS / STRINGS_A_BLOCK]; /* PGRAD_ENCODE_SPECIAL */
} expected_ids;

#include "../golden/tokenizer_ids.inc"

enum { MAX_IDS = 4 * STRING_MAX };

static char text[STRING_MAX];
static pgrad_token ids[MAX_IDS];
static pgrad_context *context;
static const char *models;
static int has_file[N_EXPECTED];

#define OK(call)                                                                                   \
    do {                                                                                           \
        pgrad_status ok_ = (call);                                                                 \
        if (ok_ != PGRAD_OK)                                                                       \
            ck_abort_msg("%s: %s: %s", #call, pgrad_status_name(ok_),                              \
                         pgrad_error_message());                                                   \
    } while (0)

/* In loops over all strings: Check writes down every assertion. */
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            ck_abort_msg("string %u: not %s", s, #condition);                                      \
    } while (0)

static uint64_t fnv(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* The number of ids, then the ids, 4 bytes each, little-endian. */
static uint64_t fnv_ids(uint64_t hash, const pgrad_token *values, size_t n)
{
    for (size_t i = 0; i <= n; i++) {
        uint32_t value = i == 0 ? (uint32_t)n : (uint32_t)values[i - 1];
        unsigned char bytes[4] = {(unsigned char)value, (unsigned char)(value >> 8),
                                  (unsigned char)(value >> 16), (unsigned char)(value >> 24)};
        hash = fnv(hash, bytes, sizeof bytes);
    }
    return hash;
}

static const uint64_t FNV_START = 0xcbf29ce484222325u;

/* The strings are those the digests were made of. */
START_TEST(test_strings_are_the_stored_ones)
{
    uint64_t hash = FNV_START;
    for (uint32_t i = 0; i < N_STRINGS; i++) {
        size_t length = make_string(i, text);
        hash = fnv_ids(hash, NULL, 0);
        hash = fnv(hash, text, length);
    }
    ck_assert_uint_eq(hash, expected_strings);
}
END_TEST

static pgrad_tokenizer *load(int which)
{
    char path[4096];
    pgrad_tokenizer *tokenizer = NULL;
    snprintf(path, sizeof path, "%s/%s", models, expected[which].path);
    OK(pgrad_context_create(NULL, &context));
    OK(pgrad_tokenizer_load(context, path, &tokenizer));
    return tokenizer;
}

START_TEST(test_ids_equal_the_reference)
{
    const int which = _i / 2, special = _i % 2;
    const expected_ids *wanted = &expected[which];
    pgrad_tokenizer *tokenizer = load(which);
    for (uint32_t block = 0; block < N_STRINGS / STRINGS_A_BLOCK; block++) {
        uint64_t hash = FNV_START;
        for (uint32_t i = 0; i < STRINGS_A_BLOCK; i++) {
            size_t n, length = make_string(block * STRINGS_A_BLOCK + i, text);
            OK(pgrad_tokenizer_encode(tokenizer, text, length, special ? PGRAD_ENCODE_SPECIAL : 0, ids,
                                      MAX_IDS, &n));
            hash = fnv_ids(hash, ids, n);
        }
        ck_assert_msg(hash == (special ? wanted->special : wanted->text)[block],
                      "%s: strings %u to %u have other ids than the reference", wanted->path,
                      block * STRINGS_A_BLOCK, (block + 1) * STRINGS_A_BLOCK - 1);
    }
    pgrad_tokenizer_free(tokenizer);
    pgrad_context_free(context);
}
END_TEST

/* SmolLM2's vocabulary lacks some control characters: the reference drops them, and so do we. */
static size_t drop_missing(pgrad_tokenizer *tokenizer, char *from, size_t length)
{
    size_t kept = 0;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)from[i] >= 0x80 || pgrad_tokenizer_find(tokenizer, from + i, 1) >= 0)
            from[kept++] = from[i];
    return kept;
}

/* TK14: decode gives back every text, in one go and piece by piece. */
START_TEST(test_decode_is_the_inverse)
{
    static char back[STRING_MAX + 1], pieces[STRING_MAX + 1];
    pgrad_tokenizer *tokenizer = load(_i);
    pgrad_decoder *decoder;
    size_t n_dropped = 0;
    OK(pgrad_decoder_create(tokenizer, 0, &decoder));
    for (uint32_t s = 0; s < N_STRINGS; s++) {
        size_t n, back_length, at = 0, piece_length, whole = make_string(s, text);
        const char *piece;
        OK(pgrad_tokenizer_encode(tokenizer, text, whole, s % 2 ? PGRAD_ENCODE_SPECIAL : 0, ids, MAX_IDS,
                                  &n));
        const size_t length = drop_missing(tokenizer, text, whole);
        n_dropped += whole - length;
        OK(pgrad_tokenizer_decode(tokenizer, ids, n, 0, back, sizeof back, &back_length));
        NEED(back_length == length);
        NEED(length == 0 || memcmp(back, text, length) == 0);
        for (size_t i = 0; i <= n; i++) {
            if (i < n)
                OK(pgrad_decoder_push(decoder, ids[i], &piece, &piece_length));
            else
                OK(pgrad_decoder_finish(decoder, &piece, &piece_length));
            NEED(at + piece_length <= sizeof pieces);
            /* whole characters only: no piece begins inside one */
            NEED(piece_length == 0 || ((unsigned char)piece[0] & 0xc0) != 0x80);
            memcpy(pieces + at, piece, piece_length);
            at += piece_length;
        }
        NEED(at == length);
        NEED(length == 0 || memcmp(pieces, text, length) == 0); /* piece by piece */
    }
    ck_assert_msg(n_dropped == 0 || _i == 2, "%s lacks bytes", expected[_i].path);
    pgrad_decoder_free(decoder);
    pgrad_tokenizer_free(tokenizer);
    pgrad_context_free(context);
}
END_TEST

/* Published ids that do not come from the script. */
static const struct vector {
    int which;
    const char *text;
    pgrad_token ids[16];
    size_t n;
} vectors[] = {
    {0, "Hello world! 123 don't  can'T\n\n x",
     {15496, 995, 0, 17031, 836, 470, 220, 460, 6, 51, 628, 2124}, 12},
    {1, "Hello world! 123", {9906, 1917, 0, 220, 4513}, 5},
    {1, "  multiple   spaces", {220, 5361, 256, 12908}, 4},
    {1, "I'M don'T can't", {40, 28703, 1541, 17773, 649, 956}, 6},
    {1, "a\n\n b\r\n\r\nc", {64, 271, 293, 881, 66}, 5},
    {1, "Caf\xc3\xa9 e\xcc\x81 d\xc3\xa9j\xc3\xa0", {34, 2642, 978, 384, 54939, 46939}, 6},
    {1, "<|im_start|>user\nhi<|im_end|>",
     {27, 91, 318, 5011, 91, 29, 882, 198, 6151, 27, 91, 318, 6345, 91, 29}, 15},
    {1, "x<s>y </s> z", {87, 45147, 83344, 694, 82, 29, 1167}, 7},
    {1, "foo_bar \xc2\xbd \xc2\xb2 \xe2\x85\xa7", {8134, 14725, 220, 27154, 220, 30556, 220, 71567, 100}, 9},
    {2, "Hello world! 123", {19556, 905, 17, 216, 33, 34, 35}, 7},
    {2, "  multiple   spaces", {216, 2701, 256, 5600}, 4},
    {2, "The capital of France is", {504, 3575, 282, 4649, 314}, 5},
    {2, "\n", {198}, 1},
};

START_TEST(test_published_vectors)
{
    pgrad_tokenizer *tokenizer = load(_i);
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        const struct vector *v = &vectors[i];
        size_t n;
        if (v->which != _i)
            continue;
        OK(pgrad_tokenizer_encode(tokenizer, v->text, strlen(v->text), 0, ids, MAX_IDS, &n));
        ck_assert_msg(n == v->n && memcmp(ids, v->ids, n * sizeof ids[0]) == 0, "%s: \"%s\"",
                      expected[_i].path, v->text);
    }
    pgrad_tokenizer_free(tokenizer);
    pgrad_context_free(context);
}
END_TEST

static int dump_strings(void)
{
    for (uint32_t i = 0; i < N_STRINGS; i++) {
        size_t length = make_string(i, text);
        for (size_t j = 0; j < length; j++)
            printf("%02x", (unsigned char)text[j]);
        putchar('\n');
    }
    return 0;
}

static int dump_ids(const char *path)
{
    pgrad_tokenizer *tokenizer;
    if (pgrad_context_create(NULL, &context) != PGRAD_OK ||
        pgrad_tokenizer_load(context, path, &tokenizer) != PGRAD_OK) {
        fprintf(stderr, "%s\n", pgrad_error_message());
        return 1;
    }
    for (uint32_t i = 0; i < N_STRINGS; i++) {
        size_t n, length = make_string(i, text);
        if (pgrad_tokenizer_encode(tokenizer, text, length, 0, ids, MAX_IDS, &n) != PGRAD_OK)
            return 1;
        for (size_t j = 0; j < n; j++)
            printf("%d ", ids[j]);
        putchar('\n');
    }
    pgrad_tokenizer_free(tokenizer);
    pgrad_context_free(context);
    return 0;
}

static int write_files(const char *path, const char *folder_path)
{
    pgrad_tokenizer *tokenizer;
    pgrad__folder folder;
    if (pgrad_context_create(NULL, &context) != PGRAD_OK ||
        pgrad_tokenizer_load(context, path, &tokenizer) != PGRAD_OK ||
        pgrad__folder_open(context, folder_path, &folder) != PGRAD_OK ||
        pgrad__tokenizer_write(tokenizer, &folder) != PGRAD_OK ||
        pgrad__folder_commit(&folder) != PGRAD_OK) {
        fprintf(stderr, "%s\n", pgrad_error_message());
        return 1;
    }
    pgrad_tokenizer_free(tokenizer);
    pgrad_context_free(context);
    return 0;
}

/* Says which tokenizers are not there; gives the number of those that are. */
static int find_models(void)
{
    int n = 0;
    static char path[4096];
    models = getenv("PGRAD_TEST_MODELS");
    if (models == NULL || models[0] == '\0')
        models = PGRAD_TEST_DATA "/../.models";
    for (int i = 0; i < N_EXPECTED; i++) {
        snprintf(path, sizeof path, "%s/%s", models, expected[i].path);
        FILE *file = fopen(path, "rb");
        has_file[i] = file != NULL;
        n += has_file[i];
        if (file == NULL)
            printf("skipped: no %s (sh tests/fetch_models.sh)\n", path);
        else
            fclose(file);
    }
    return n;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--dump") == 0)
        return dump_strings();
    if (argc == 3 && strcmp(argv[1], "--ids") == 0)
        return dump_ids(argv[2]);
    if (argc == 4 && strcmp(argv[1], "--write") == 0)
        return write_files(argv[2], argv[3]);
    const int n_models = find_models();
    Suite *suite = suite_create("tokenizer_ids");
    TCase *tests = tcase_create("tokenizer_ids");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, test_strings_are_the_stored_ones);
    for (int i = 0; i < N_EXPECTED; i++)
        if (has_file[i]) {
            tcase_add_loop_test(tests, test_ids_equal_the_reference, 2 * i, 2 * i + 2);
            tcase_add_loop_test(tests, test_decode_is_the_inverse, i, i + 1);
            tcase_add_loop_test(tests, test_published_vectors, i, i + 1);
        }
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0 ? 1 : n_models == N_EXPECTED ? 0 : 77;
}
