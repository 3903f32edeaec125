/* Where tokenizers are found: files and folders, what lies beside, progress of loading. */
#include "text_test.h"

#include "base/context.h"
#include "text/tokenizer.h"

static void saved_has(const char *folder, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file_is(in_folder(path), text);
}

static void save(pgrad_tokenizer *t, const char *name)
{
    pgrad__folder folder;
    OK(pgrad__folder_open(context, in_folder(name), &folder));
    OK(pgrad__tokenizer_write(t, &folder));
    OK(pgrad__folder_commit(&folder));
}

/* What lies beside tokenizer.json is saved with it, byte for byte. */
START_TEST(side_files_are_kept)
{
    static const char *const files[][2] = {
        {"tokenizer_config.json", "{ }\n"},  {"special_tokens_map.json", "{}\t"}, {"chat_template.jinja", "{{ x }}"},
        {"added_tokens.json", "{ \"x\": 1}"}, {"vocab.json", "{\"a\" : 0}"},      {"merges.txt", "#version: 0.2\na b"}};
    for (size_t i = 0; i < 6; i++)
        put_text_file(files[i][0], files[i][1]);
    pgrad_tokenizer *t = load_parts((parts){0});
    save(t, "saved");
    for (size_t i = 0; i < 6; i++)
        saved_has("saved", files[i][0], files[i][1]);
    pgrad_tokenizer_free(t);
}
END_TEST

/* What the weights of Llama 2 and TinyLlama come with. */
START_TEST(sentencepiece_is_refused_by_name)
{
    pgrad_tokenizer *t = NULL;
    put_text_file("tokenizer.model", "\n\x0e");
    FAILS(PGRAD_E_UNSUPPORTED, "tokenizer.model: SentencePiece is not supported", pgrad_tokenizer_load(context, test_folder, &t));
    ck_assert_ptr_null(t);
}
END_TEST

START_TEST(folders_without_a_tokenizer)
{
    pgrad_tokenizer *t = NULL;
    char said[700];
    snprintf(said, sizeof said, "%s: no tokenizer.json, nor vocab.json with merges.txt, in this folder", test_folder);
    for (int i = 0; i < 2; i++) {
        FAILS(PGRAD_E_IO, said, pgrad_tokenizer_load(context, test_folder, &t));
        ck_assert_ptr_null(t);
        put_text_file("tokenizer_config.json", "{}"); /* is none by itself */
    }
}
END_TEST

/* GPT-2's pair of files, with and without others beside it. */
START_TEST(gpt2_pair)
{
    static const char VOCABULARY[] = "{\"h\":0,\"e\":1,\"he\":2,\"<|endoftext|>\":3,\"!\":4}";
    pgrad_tokenizer *t = NULL;
    put_text_file("vocab.json", VOCABULARY);
    put_text_file("merges.txt", "#version: 0.2\nh e\r\n");
    OK(pgrad_tokenizer_load(context, test_folder, &t));
    IDS(t, "he!<|endoftext|>", PGRAD_ENCODE_SPECIAL, 2, 4, 3);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_EOS), 3);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_PAD), -1);
    pgrad_tokenizer_free(t);
    put_text_file("tokenizer_config.json", "{\"pad_token\":\"<|endoftext|>\"}");
    put_text_file("special_tokens_map.json", "{\"eos_token\":\"<|endoftext|>\"}");
    OK(pgrad_tokenizer_load(context, test_folder, &t));
    for (int which = PGRAD_TOKEN_BOS; which <= PGRAD_TOKEN_UNK; which++)
        ck_assert_int_eq(pgrad_tokenizer_special(t, which), 3);
    save(t, "saved");
    saved_has("saved", "vocab.json", VOCABULARY);
    saved_has("saved", "merges.txt", "#version: 0.2\nh e\r\n");
    saved_has("saved", "tokenizer_config.json", "{\"pad_token\":\"<|endoftext|>\"}");
    saved_has("saved", "special_tokens_map.json", "{\"eos_token\":\"<|endoftext|>\"}");
    pgrad_tokenizer_free(t);
    t = NULL;
    put_text_file("merges.txt", "#version: 0.2\nh e\nhe\n");
    FAILS(PGRAD_E_FORMAT, "/merges.txt: line 3: expected two parts, found 'he'",
          pgrad_tokenizer_load(context, test_folder, &t));
    put_text_file("vocab.json", "{\"h\":-1}");
    FAILS(PGRAD_E_FORMAT, "/vocab.json: vocabulary.h: expected an id, found -1",
          pgrad_tokenizer_load(context, test_folder, &t));
    ck_assert_ptr_null(t);
}
END_TEST

START_TEST(roles_come_from_the_files_beside)
{
    char config[] = "{\"bos_token\":\"<|endoftext|>\",\"eos_token\":{\"content\":\"<|im_end|>\"},"
                    "\"pad_token\":null,\"model_max_length\":1000000000000000019884624838656}";
    put_text_file("tokenizer_config.json", config);
    put_text_file("special_tokens_map.json", "{\"eos_token\":\"<|endoftext|>\",\"unk_token\":\"<|im_start|>\"}");
    put_text_file("chat_template.jinja", "{{ endless }}");
    pgrad_tokenizer *t = load_parts((parts){0});
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_BOS), ID_END);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_EOS), ID_IM_END);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_PAD), -1);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_UNK), ID_IM_START);
    pgrad_tokenizer_free(t);
    OK(pgrad_tokenizer_load(context, test_folder, &t)); /* the folder itself */
    pgrad_tokenizer_free(t);
    FAILS(PGRAD_E_IO, "no-such", pgrad_tokenizer_load(context, in_folder("no-such.json"), &t));
    put_text_file("special_tokens_map.json", "{");
    FAILS(PGRAD_E_FORMAT, "special_tokens_map.json", pgrad_tokenizer_load(context, test_folder, &t));
}
END_TEST

/* ---- added_tokens.json beside the pair ---- */

static const char PAIR[] = "{\"h\":0,\"e\":1,\"he\":2,\"<|endoftext|>\":3,\"!\":4,\"\xc4\xa0\":5}";

static pgrad_status load_added(const char *added, pgrad_tokenizer **out)
{
    put_text_file("vocab.json", PAIR);
    put_text_file("merges.txt", "#version: 0.2\nh e\n");
    put_text_file("added_tokens.json", added);
    return pgrad_tokenizer_load(context, test_folder, out);
}

START_TEST(gpt2_pair_with_added_tokens)
{
    static const char ADDED[] = "{\"<pad>\":6,\"<far>\":90,\"<turn>\":7,\"he!\":8,\"<|endoftext|>\":3,\"!\":4}";
    pgrad_tokenizer *t = NULL;
    put_text_file("tokenizer_config.json", "{\"pad_token\":{\"content\":\"<pad>\"}}");
    put_text_file("special_tokens_map.json", "{\"additional_special_tokens\":[\"<other>\",\"<turn>\"]}");
    OK(load_added(ADDED, &t));
    for (int again = 0; again < 2; again++) {
        ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_PAD), 6);
        ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_EOS), 3);
        IDS(t, "<pad>he<turn><|endoftext|>", PGRAD_ENCODE_SPECIAL, 6, 2, 7, 3);
        IDS(t, "he<far>he!", 0, 2, 90, 8); /* no role, in no list: found in any text */
        save(t, "saved");
        saved_has("saved", "added_tokens.json", ADDED);
        pgrad_tokenizer_free(t);
        t = NULL;
        if (again == 0)
            OK(pgrad_tokenizer_load(context, in_folder("saved"), &t));
    }
    /* special only where a file says so: typed text does not become it */
    OK(load_added("{\"h!\":6}", &t));
    IDS(t, "h!", 0, 6);
    pgrad_tokenizer_free(t);
    t = NULL;
    put_text_file("special_tokens_map.json", "{\"mask_token\":\"h!\"}");
    OK(load_added("{\"h!\":6}", &t));
    IDS(t, "h!", 0, 0, 4);
    IDS(t, "h!", PGRAD_ENCODE_SPECIAL, 6);
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(added_tokens_that_contradict)
{
    static const char *const cases[][2] = {
        {"{\"he\":7}", "/added_tokens.json: he: expected 2 as in the vocabulary, found 7"},
        {"{\"<|endoftext|>\":7}", "<|endoftext|>: expected 3 as in the vocabulary, found 7"},
        {"{\"<pad>\":4}", "/added_tokens.json: token id 4 belongs to two tokens, '!' and '<pad>'"},
        {"{\"<a>\":9,\"<b>\":9}", "token id 9 belongs to two tokens"},
        {"{\"<a>\":\"9\"}", "<a>: expected an id, found \"9\""},
        {"{\"<a>\":-1}", "<a>: expected an id, found -1"},
        {"{\"<a>\":4194304}", "token id 4194304: at most 4194303"},
        {"{\"\":9}", "expected text, found none"},
        {"[\"<a>\"]", "/added_tokens.json: root: expected an object of tokens, found an array"},
        {"{", "/added_tokens.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgrad_tokenizer *none = NULL;
        FAILS(i == 6 ? PGRAD_E_LIMIT : PGRAD_E_FORMAT, cases[i][1], load_added(cases[i][0], &none));
        ck_assert_ptr_null(none);
    }
}
END_TEST

/* ---- progress and cancel ---- */

enum { MANY = 10000 };

/* The pair with MANY tokens more. */
static void put_many(void)
{
    bytes json = {0};
    put_text(&json, "{\"h\":0,\"e\":1,\"he\":2");
    for (int i = 0; i < MANY; i++) {
        char token[32];
        snprintf(token, sizeof token, ",\"t%d\":%d", i, 3 + i);
        put_text(&json, token);
    }
    put_text(&json, "}");
    (void)put_file("vocab.json", json.data, json.size);
    drop(&json);
    put_text_file("merges.txt", "#version: 0.2\nh e\n");
}

typedef struct seen {
    int calls;
    uint64_t last, total, stop_at; /* done where it asks to stop */
} seen;

static int32_t look(void *user, const char *what, uint64_t done, uint64_t total)
{
    seen *s = user;
    ck_assert_str_eq(what, "tokenizer");
    ck_assert(done <= total && (s->calls == 0 ? done == 0 : done > s->last && total == s->total));
    s->calls++;
    s->last = done;
    s->total = total;
    return done < s->stop_at;
}

static seen load_watched(const char *path, uint64_t stop_at, pgrad_status wanted)
{
    seen s = {.stop_at = stop_at};
    pgrad_tokenizer *t = NULL;
    OK(pgrad_context_set_progress(context, look, &s));
    pgrad_status status = pgrad_tokenizer_load(context, path, &t);
    ck_assert_int_eq(status, wanted);
    ck_assert((t != NULL) == (wanted == PGRAD_OK));
    pgrad_tokenizer_free(t);
    OK(pgrad_context_set_progress(context, NULL, NULL));
    return s;
}

START_TEST(loading_tells_how_far_it_is)
{
    put_many();
    seen s = load_watched(test_folder, UINT64_MAX, PGRAD_OK);
    ck_assert_int_eq(s.calls, 4); /* none, two of some thousands, all */
    ck_assert(s.last == s.total && s.total > MANY);
    s = load_watched(put_tokenizer(&(parts){0}), UINT64_MAX, PGRAD_OK);
    ck_assert(s.calls == 2 && s.last == s.total);
    ck_assert_uint_eq(s.total, 261 + 5); /* tokens and merges */
    bytes merges = {0};
    for (int i = 0; i < 5000; i++)
        put_text(&merges, i == 0 ? "\"h e\"" : ",\"h e\"");
    put_number(&merges, 0, 1);
    s = load_watched(put_tokenizer(&(parts){.merges = (const char *)merges.data}), UINT64_MAX, PGRAD_OK);
    ck_assert_int_eq(s.calls, 3); /* merges are told of, too */
    drop(&merges);
}
END_TEST

START_TEST(loading_can_be_stopped)
{
    const uint64_t before = context->memory_now;
    put_many();
    ck_assert_int_eq(load_watched(test_folder, 0, PGRAD_E_CALLBACK).calls, 1);
    ck_assert_int_eq(load_watched(test_folder, 5000, PGRAD_E_CALLBACK).calls, 3);
    ck_assert_int_eq(load_watched(test_folder, MANY, PGRAD_E_CALLBACK).calls, 4);
    const char *path = put_tokenizer(&(parts){0});
    ck_assert_int_eq(load_watched(path, 0, PGRAD_E_CALLBACK).calls, 1);
    pgrad_context_cancel(context);
    ck_assert_int_eq(load_watched(path, 1, PGRAD_E_CANCELLED).calls, 0);
    pgrad_context_clear_cancel(context);
    ck_assert_uint_eq(context->memory_now, before);
    (void)load_watched(path, UINT64_MAX, PGRAD_OK);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, side_files_are_kept);
    tcase_add_test(tests, sentencepiece_is_refused_by_name);
    tcase_add_test(tests, folders_without_a_tokenizer);
    tcase_add_test(tests, gpt2_pair);
    tcase_add_test(tests, roles_come_from_the_files_beside);
    tcase_add_test(tests, gpt2_pair_with_added_tokens);
    tcase_add_test(tests, added_tokens_that_contradict);
    tcase_add_test(tests, loading_tells_how_far_it_is);
    tcase_add_test(tests, loading_can_be_stopped);
}

int main(void)
{
    return run_case("text/tokenizer_folder", setup, teardown, 60, add);
}
