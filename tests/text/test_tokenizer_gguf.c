/* Tokenizers from GGUF metadata made here, and the files they are saved as. Every refusal is read through a
 * path of 600 bytes: field, expected and found must still be in the message. */
#include "text_test.h"

#include "../failing_allocator.h"
#include "text/tokenizer_inside.h"

enum { NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 };
enum { FIRST_MORE = 260 }; /* 256 bytes, "he", "ll", "hell", "hello", then what a test adds */
enum { YES = 1, NO = 2 };

typedef struct more_token {
    const char *text;
    int32_t type;
    size_t length; /* 0: strlen */
} more_token;

/* Each zero stands for what a plain file has there. */
typedef struct metadata {
    const char *kind, *pre; /* "": the key is absent */
    more_token more[8];
    const char *merges[8];
    const char *no_key; /* a key left out */
    size_t n_types;     /* types written; 0: one a token */
    uint32_t bos, eos, pad, eot;
    int add_bos, add_eos;
    const char *chat, *huggingface;
    size_t n_controls; /* so many more control tokens */
} metadata;

static void put_string(bytes *to, const char *text, size_t length)
{
    put_number(to, length, 8);
    put(to, text, length);
}

static void put_key(bytes *to, uint64_t *n, const char *key, uint32_t type)
{
    put_string(to, key, strlen(key));
    put_number(to, type, 4);
    ++*n;
}

static void put_string_value(bytes *to, uint64_t *n, const char *key, const char *text)
{
    put_key(to, n, key, 8);
    put_string(to, text, strlen(text));
}

static void put_array(bytes *to, uint64_t *n, const char *key, uint32_t type, size_t count)
{
    put_key(to, n, key, 9);
    put_number(to, type, 4);
    put_number(to, count, 8);
}

static size_t count_more(const metadata *m)
{
    size_t n = 0;
    while (n < 8 && m->more[n].text != NULL)
        n++;
    return n;
}

static void put_tokens(bytes *to, uint64_t *n, const metadata *m)
{
    static const char *const MERGED[] = {"he", "ll", "hell", "hello"};
    const size_t n_more = count_more(m), count = FIRST_MORE + n_more + m->n_controls;
    const size_t n_types = m->n_types != 0 ? m->n_types : count;
    put_array(to, n, "tokenizer.ggml.tokens", 8, count);
    for (unsigned byte = 0; byte < 256; byte++) {
        bytes spelled = {0};
        put_stand_in(&spelled, byte);
        const size_t skip = spelled.size == 2 && spelled.data[0] == '\\'; /* JSON's */
        put_string(to, (const char *)spelled.data + skip, spelled.size - skip);
        drop(&spelled);
    }
    for (size_t i = 0; i < 4; i++)
        put_string(to, MERGED[i], strlen(MERGED[i]));
    for (size_t i = 0; i < n_more; i++)
        put_string(to, m->more[i].text, m->more[i].length ? m->more[i].length : strlen(m->more[i].text));
    for (size_t i = 0; i < m->n_controls; i++) {
        char text[32];
        put_string(to, text, (size_t)snprintf(text, sizeof text, "<|control %zu|>", i));
    }
    put_array(to, n, "tokenizer.ggml.token_type", 5, n_types);
    for (size_t i = 0; i < n_types; i++) {
        size_t at = i - FIRST_MORE;
        int32_t type = i < FIRST_MORE ? NORMAL : at < n_more ? m->more[at].type : CONTROL;
        put_number(to, (uint32_t)type, 4);
    }
}

static void put_merges(bytes *to, uint64_t *n, const metadata *m)
{
    static const char *const MERGES[] = {"h e", "l l", "he ll", "hell o", NULL};
    const char *const *merges = m->merges[0] != NULL ? m->merges : MERGES;
    size_t count = 0;
    while (merges[count] != NULL)
        count++;
    put_array(to, n, "tokenizer.ggml.merges", 8, count);
    for (size_t i = 0; i < count; i++)
        put_string(to, merges[i], strlen(merges[i]));
}

static void put_metadata(bytes *file, const metadata *m)
{
    bytes pairs = {0};
    uint64_t n = 0;
    put_string_value(&pairs, &n, "general.architecture", "llama");
    if (m->no_key == NULL || strcmp(m->no_key, "tokenizer.ggml.model") != 0)
        put_string_value(&pairs, &n, "tokenizer.ggml.model", or_else(m->kind, "gpt2"));
    if (m->pre == NULL || m->pre[0] != '\0')
        put_string_value(&pairs, &n, "tokenizer.ggml.pre", or_else(m->pre, "gpt-2"));
    put_tokens(&pairs, &n, m);
    if (m->no_key == NULL || strcmp(m->no_key, "tokenizer.ggml.merges") != 0)
        put_merges(&pairs, &n, m);
    const struct {
        const char *key;
        uint32_t id;
    } roles[] = {{"tokenizer.ggml.bos_token_id", m->bos},
                 {"tokenizer.ggml.eos_token_id", m->eos},
                 {"tokenizer.ggml.padding_token_id", m->pad},
                 {"tokenizer.ggml.eot_token_id", m->eot}};
    for (size_t i = 0; i < 4; i++)
        if (roles[i].id != 0) {
            put_key(&pairs, &n, roles[i].key, 4);
            put_number(&pairs, roles[i].id, 4);
        }
    if (m->add_bos) {
        put_key(&pairs, &n, "tokenizer.ggml.add_bos_token", 7);
        put_number(&pairs, m->add_bos == YES, 1);
    }
    if (m->add_eos) {
        put_key(&pairs, &n, "tokenizer.ggml.add_eos_token", 7);
        put_number(&pairs, m->add_eos == YES, 1);
    }
    if (m->chat != NULL)
        put_string_value(&pairs, &n, "tokenizer.chat_template", m->chat);
    if (m->huggingface != NULL)
        put_string_value(&pairs, &n, "tokenizer.huggingface.json", m->huggingface);
    put_text(file, "GGUF");
    put_number(file, 3, 4);
    put_number(file, 0, 8);
    put_number(file, n, 8);
    put(file, pairs.data, pairs.size);
    drop(&pairs);
}

static const char *put_gguf(const char *name, const metadata *m)
{
    bytes file = {0};
    put_metadata(&file, m);
    const char *path = put_file(name, file.data, file.size);
    drop(&file);
    return path;
}

static pgrad_tokenizer *load_gguf(metadata m)
{
    pgrad_tokenizer *t = NULL;
    OK(pgrad_tokenizer_load(context, put_gguf("t.gguf", &m), &t));
    return t;
}

/* Saves as a model's folder is saved, and loads that. */
static pgrad_tokenizer *save_and_load(pgrad_tokenizer *t, const char *name)
{
    pgrad__folder folder;
    pgrad_tokenizer *saved = NULL;
    OK(pgrad__folder_open(context, in_folder(name), &folder));
    OK(pgrad__tokenizer_write(t, &folder));
    OK(pgrad__folder_commit(&folder));
    OK(pgrad_tokenizer_load(context, in_folder(name), &saved));
    return saved;
}

static void check_same(pgrad_tokenizer *a, pgrad_tokenizer *b)
{
    static const char *const TEXTS[] = {
        "", "hello", "hellohello xyz 123 4", "<s>hello</s> eos <u>", "\xe4\xb8\xad \xc3\xa9 e\xcc\x81",
        "a\n\n b\t\"q\\\" \x01\x7f", "<|im_start|>user\nhi<|im_end|>", "I'M don'T can't"};
    ck_assert_uint_eq(pgrad_tokenizer_count(a), pgrad_tokenizer_count(b));
    for (int which = 0; which <= PGRAD_TOKEN_UNK; which++)
        ck_assert_int_eq(pgrad_tokenizer_special(a, which), pgrad_tokenizer_special(b, which));
    for (size_t i = 0; i < sizeof TEXTS / sizeof TEXTS[0]; i++)
        for (uint32_t flags = 0; flags < 4; flags++) {
            pgrad_token ids[128];
            size_t n;
            OK(pgrad_tokenizer_encode(a, TEXTS[i], strlen(TEXTS[i]), flags, ids, 128, &n));
            check_ids(b, TEXTS[i], flags, ids, n);
        }
    for (pgrad_token id = 0; id < (pgrad_token)pgrad_tokenizer_count(a); id++) {
        char x[64], y[64];
        size_t n, m;
        OK(pgrad_tokenizer_decode(a, &id, 1, 0, x, sizeof x, &n));
        OK(pgrad_tokenizer_decode(b, &id, 1, 0, y, sizeof y, &m));
        ck_assert_str_eq(x, y);
        ck_assert_uint_eq(pgrad_tokenizer_has(a, id), pgrad_tokenizer_has(b, id));
    }
}

static const more_token SPECIALS[] = {{"<s>", CONTROL, 0}, {"</s>", CONTROL, 0}, {"<u>", USER_DEFINED, 0}};

/* How each value of tokenizer.ggml.pre splits, and whether it adds a BOS unasked. */
START_TEST(pre_says_how_text_is_split)
{
    static const struct {
        const char *pre;
        int digits, whole, bos, nfc;
    } cases[] = {{"gpt-2", 0, 0, 0, 0},     {"gpt2", 0, 0, 0, 0},     {"smollm", 1, 0, 0, 0},
                 {"llama-bpe", 0, 1, 1, 0}, {"llama3", 0, 1, 1, 0},   {"llama-v3", 0, 1, 1, 0},
                 {"qwen2", 1, 0, 0, 1},     {"deepseek-r1-qwen", 1, 0, 0, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgrad_tokenizer *t = load_gguf((metadata){
            .pre = cases[i].pre,
            .bos = 262,
            .more = {{"12", NORMAL, 0}, {"xyz", NORMAL, 0}, {"<s>", CONTROL, 0}},
            .merges = {"h e", "l l", "he ll", "hell o", "1 2", NULL}});
        IDS(t, "hello", 0, ID_HELLO);
        if (cases[i].digits)
            IDS(t, "12", 0, '1', '2');
        else
            IDS(t, "12", 0, 260);
        if (cases[i].whole)
            IDS(t, "xyz", 0, 261);
        else
            IDS(t, "xyz", 0, 'x', 'y', 'z');
        if (cases[i].bos)
            IDS(t, "hello", PGRAD_ENCODE_ADD, 262, ID_HELLO);
        else
            IDS(t, "hello", PGRAD_ENCODE_ADD, ID_HELLO);
        if (cases[i].nfc)
            IDS(t, "e\xcc\x81", 0, 0xc3, 0xa9);
        else
            IDS(t, "e\xcc\x81", 0, 'e', 0xcc, 0x81);
        pgrad_tokenizer *saved = save_and_load(t, cases[i].pre);
        check_same(t, saved);
        pgrad_tokenizer_free(saved);
        pgrad_tokenizer_free(t);
    }
}
END_TEST

/* GG15: a role outside the vocabulary is none. */
START_TEST(types_roles_and_templates)
{
    metadata m = {.bos = 260, .eos = 261, .eot = 9999, .chat = "{{ messages }}"};
    memcpy(m.more, SPECIALS, sizeof SPECIALS);
    m.more[3] = (more_token){"[PAD3]", UNUSED, 0};
    pgrad_tokenizer *t = load_gguf(m);
    IDS(t, "<s>", 0, '<', 's', '>');
    IDS(t, "<s>", PGRAD_ENCODE_SPECIAL, 260);
    IDS(t, "a<u>", 0, 'a', 262);
    IDS(t, "a", PGRAD_ENCODE_ADD, 'a');
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_BOS), 260);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_EOS), 261);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_PAD), -1);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_END_OF_TURN), -1); /* out of range */
    ck_assert_uint_eq(pgrad_tokenizer_has(t, 263), 0);
    pgrad_tokenizer *saved = save_and_load(t, "saved");
    check_same(t, saved);
    file_is(in_folder("saved/chat_template.jinja"), "{{ messages }}");
    pgrad_tokenizer_free(saved);
    pgrad_tokenizer_free(t);

    m.add_bos = m.add_eos = YES;
    m.pad = 261;
    t = load_gguf(m);
    IDS(t, "a", PGRAD_ENCODE_ADD, 260, 'a', 261);
    saved = save_and_load(t, "with-template");
    check_same(t, saved);
    pgrad_tokenizer_free(saved);
    pgrad_tokenizer_free(t);

    m.pre = "llama-bpe";
    m.add_bos = NO;
    t = load_gguf(m);
    IDS(t, "a", PGRAD_ENCODE_ADD, 'a', 261);
    pgrad_tokenizer_free(t);
}
END_TEST

/* A control token may be written like a word: whoever types the word has not written the token. */
START_TEST(control_tokens_stay_text)
{
    pgrad_tokenizer *t = load_gguf((metadata){.pre = "llama-bpe", .more = {{"eos", CONTROL, 0}}});
    IDS(t, "eos hello", 0, 'e', 'o', 's', ' ', ID_HELLO);
    IDS(t, "eos", PGRAD_ENCODE_SPECIAL, 260);
    pgrad_tokenizer *saved = save_and_load(t, "saved"), *again = save_and_load(saved, "again");
    IDS(saved, "eos hello", 0, 'e', 'o', 's', ' ', ID_HELLO);
    IDS(saved, "eos", PGRAD_ENCODE_SPECIAL, 260);
    check_same(t, again);
    pgrad_tokenizer_free(again);
    pgrad_tokenizer_free(saved);
    pgrad_tokenizer_free(t);
}
END_TEST

/* A literal token whose characters are also an alphabet of bytes is saved as something that loads. */
START_TEST(literal_tokens_load_again)
{
    pgrad_tokenizer *t = load_gguf((metadata){.more = {{"\xc4\xa0x", CONTROL, 0}, {"\xe6\x97\xa5", NORMAL, 0}}});
    pgrad_tokenizer *saved = save_and_load(t, "saved");
    IDS(t, "\xc4\xa0x", PGRAD_ENCODE_SPECIAL, 260);
    IDS(saved, "\xc4\xa0x", PGRAD_ENCODE_SPECIAL, 260);
    IDS(saved, "\xe6\x97\xa5", 0, 0xe6, 0x97, 0xa5); /* no piece is spelled so */
    pgrad_tokenizer_free(saved);
    pgrad_tokenizer_free(t);
}
END_TEST

START_TEST(the_magic_decides)
{
    const metadata m = {0};
    pgrad_tokenizer *t = NULL;
    OK(pgrad_tokenizer_load(context, put_gguf("blob", &m), &t));
    IDS(t, "hello", 0, ID_HELLO);
    pgrad_tokenizer_free(t);
    t = NULL;
    FAILS(PGRAD_E_FORMAT, "t.gguf: ", pgrad_tokenizer_load(context, put_text_file("t.gguf", "{}"), &t));
    FAILS(PGRAD_E_FORMAT, "JSON", pgrad_tokenizer_load(context, put_text_file("short", "GGU"), &t));
    ck_assert_ptr_null(t);
}
END_TEST

/* A tokenizer.json inside the file says more than the keys: it wins, and is saved as it stands. */
START_TEST(a_tokenizer_json_inside_is_preferred)
{
    static const char JSON[] = "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":3,\"content\":\"<e>\",\"special\":true}],"
                               "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}";
    pgrad_tokenizer *t =
        load_gguf((metadata){.pre = "tekken", .huggingface = JSON, .eos = 3, .chat = "{{ x }}"});
    IDS(t, "abb<e>", PGRAD_ENCODE_SPECIAL, 2, 1, 3);
    ck_assert_int_eq(pgrad_tokenizer_special(t, PGRAD_TOKEN_EOS), 3);
    pgrad_tokenizer *saved = save_and_load(t, "saved");
    file_is(in_folder("saved/tokenizer.json"), JSON);
    file_is(in_folder("saved/chat_template.jinja"), "{{ x }}");
    check_same(t, saved);
    pgrad_tokenizer_free(saved);
    pgrad_tokenizer_free(t);
    const metadata bad = {.huggingface = "{\"model\":7}"};
    t = NULL;
    FAILS(PGRAD_E_FORMAT, "t.gguf: tokenizer.huggingface.json: model: expected an object, found 7",
          pgrad_tokenizer_load(context, put_gguf("t.gguf", &bad), &t));
    ck_assert_ptr_null(t);
}
END_TEST

/* A folder whose path takes 600 bytes, ending in "/d". */
static const char *long_folder(void)
{
    static char path[1200];
    snprintf(path, sizeof path, "%s", test_folder);
    for (int i = 0; i < 6; i++) {
        const size_t n = strlen(path);
        path[n] = '/';
        memset(path + n + 1, 'd', 100);
        path[n + 101] = '\0';
        ck_assert(mkdir(path, 0755) == 0 || errno == EEXIST);
    }
    return path + strlen(test_folder) + 1;
}

/* GG15: a vocabulary of one token. */
START_TEST(gg15_one_token)
{
    bytes file = {0}, pairs = {0};
    uint64_t n = 0;
    put_string_value(&pairs, &n, "general.architecture", "llama");
    put_string_value(&pairs, &n, "tokenizer.ggml.model", "gpt2");
    put_string_value(&pairs, &n, "tokenizer.ggml.pre", "gpt-2");
    put_array(&pairs, &n, "tokenizer.ggml.tokens", 8, 1);
    put_string(&pairs, "a", 1);
    put_array(&pairs, &n, "tokenizer.ggml.merges", 8, 0);
    put_text(&file, "GGUF");
    put_number(&file, 3, 4);
    put_number(&file, 0, 8);
    put_number(&file, n, 8);
    put(&file, pairs.data, pairs.size);
    pgrad_tokenizer *t = NULL;
    OK(pgrad_tokenizer_load(context, put_file("one.gguf", file.data, file.size), &t));
    IDS(t, "aa", 0, 0, 0);
    ck_assert_uint_eq(pgrad_tokenizer_count(t), 1);
    pgrad_tokenizer_free(t);
    drop(&pairs);
    drop(&file);
}
END_TEST

/* GG15: lists of different length. */
START_TEST(refusals_name_file_key_and_what_was_found)
{
    static const struct {
        pgrad_status code;
        const char *text;
        metadata m;
    } cases[] = {
        {PGRAD_E_UNSUPPORTED, "d/t.gguf: tokenizer.ggml.model: expected gpt2 (byte-level BPE), found 'llama'",
         {.kind = "llama"}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.model: expected", {.no_key = "tokenizer.ggml.model"}},
        {PGRAD_E_UNSUPPORTED, "d/t.gguf: tokenizer.ggml.pre: 'tekken' is not built", {.pre = "tekken"}},
        {PGRAD_E_UNSUPPORTED, "d/t.gguf: tokenizer.ggml.pre: '(none)' is not built", {.pre = ""}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.token_type: expected 260 elements as there are tokens, found 200",
         {.n_types = 200}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.merges: expected", {.no_key = "tokenizer.ggml.merges"}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.merges[1]: expected two parts, found 'ac'",
         {.merges = {"h e", "ac", NULL}}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.merges[0]: 'a' with 'c': a part or the whole is not in",
         {.merges = {"a c", NULL}}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.tokens[261]: expected another text than token 260's, found 'ab'",
         {.more = {{"ab", NORMAL, 0}, {"ab", NORMAL, 0}}}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.tokens[260]: expected another text than token 256's, found 'he'",
         {.more = {{"he", CONTROL, 0}}}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.tokens[261]: expected another text than token 260's, found '<s>'",
         {.more = {{"<s>", CONTROL, 0}, {"<s>", USER_DEFINED, 0}}}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.tokens[260]: expected UTF-8 without a NUL, found '\\xff\\xfe'",
         {.more = {{"\xff\xfe", NORMAL, 0}}}},
        {PGRAD_E_FORMAT, "d/t.gguf: tokenizer.ggml.tokens[260]: expected UTF-8 without a NUL, found 'a'",
         {.more = {{"a\0b", CONTROL, 3}}}},
    };
    const char *folder = long_folder();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[1200];
        pgrad_tokenizer *t = NULL;
        snprintf(name, sizeof name, "%s/t.gguf", folder);
        FAILS(cases[i].code, cases[i].text, pgrad_tokenizer_load(context, put_gguf(name, &cases[i].m), &t));
        ck_assert_ptr_null(t);
    }
}
END_TEST

/* Time that grows with the square of these would be minutes, the limit of a test. */
START_TEST(many_control_tokens)
{
    pgrad_tokenizer *t = load_gguf((metadata){.n_controls = 65536});
    static char text[400000];
    static pgrad_token ids[400000];
    size_t n, at = 0;
    for (size_t i = 0; i < 20000; i++)
        at += (size_t)sprintf(text + at, "<|control %zu|>", i * 3);
    OK(pgrad_tokenizer_encode(t, text, at, PGRAD_ENCODE_SPECIAL, ids, 400000, &n));
    ck_assert_uint_eq(n, 20000);
    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(ids[i], FIRST_MORE + (pgrad_token)i * 3);
    memset(text, '<', sizeof text);
    OK(pgrad_tokenizer_encode(t, text, sizeof text, PGRAD_ENCODE_SPECIAL, ids, 400000, &n));
    ck_assert_uint_eq(n, sizeof text);
    pgrad_tokenizer *saved = save_and_load(t, "saved");
    ck_assert_int_eq(pgrad_tokenizer_find(saved, "<|control 65535|>", 17), FIRST_MORE + 65535);
    pgrad_tokenizer_free(saved);
    pgrad_tokenizer_free(t);
    const metadata more = {.n_controls = 65537};
    t = NULL;
    FAILS(PGRAD_E_LIMIT, "tokenizer.ggml.tokens[65796]: added token 65796: at most 65536",
          pgrad_tokenizer_load(context, put_gguf("t.gguf", &more), &t));
    ck_assert_ptr_null(t);
}
END_TEST

/* Any byte of the file changed: a tokenizer, whose saved files load, or an error. */
START_TEST(any_byte_changed)
{
    bytes file = {0};
    metadata m = {.pre = "llama-bpe", .bos = 260, .eos = 261, .add_eos = YES, .chat = "{{ x }}"};
    memcpy(m.more, SPECIALS, sizeof SPECIALS);
    put_metadata(&file, &m);
    for (size_t i = 0; i < file.size; i++) {
        static const unsigned char others[] = {0x00, 0xff, 'h', 3};
        const unsigned char old = file.data[i];
        pgrad_tokenizer *t = NULL;
        file.data[i] = others[i % sizeof others];
        const char *path = put_file("t.gguf", file.data, file.size);
        file.data[i] = old;
        pgrad_status status = pgrad_tokenizer_load(context, path, &t);
        if (status == PGRAD_OK) {
            pgrad_tokenizer *saved = NULL;
            ck_assert_str_eq(t->files[0].name, "tokenizer.json");
            path = put_file("saved.json", t->files[0].data, t->files[0].size);
            OK(pgrad_tokenizer_load(context, path, &saved));
            pgrad_tokenizer_free(saved);
        } else {
            ck_assert(status == PGRAD_E_FORMAT || status == PGRAD_E_UNSUPPORTED || status == PGRAD_E_LIMIT);
        }
        pgrad_tokenizer_free(t);
    }
    drop(&file);
}
END_TEST

/* Everything a tokenizer does once. */
static pgrad_status work(pgrad_context *of, const char *path, const char *target)
{
    static const pgrad_message message = {"user", "hello", 5};
    pgrad_tokenizer *t = NULL;
    pgrad_decoder *decoder = NULL;
    pgrad__folder folder = {0};
    pgrad_token ids[64];
    char text[64];
    const char *piece;
    size_t n, length;
    pgrad_status status = pgrad_tokenizer_load(of, path, &t);
    if (status == PGRAD_OK)
        status = pgrad_tokenizer_encode(t, "hello e\xcc\x81 <s>", 13, PGRAD_ENCODE_ADD, ids, 64, &n);
    if (status == PGRAD_OK)
        status = pgrad_tokenizer_decode(t, ids, n, 0, text, sizeof text, &length);
    if (status == PGRAD_OK)
        status = pgrad_chat_format(t, &message, 1, 0, ids, 64, &n);
    if (status == PGRAD_OK)
        status = pgrad_decoder_create(t, 0, &decoder);
    if (status == PGRAD_OK)
        status = pgrad_decoder_push(decoder, ID_HELLO, &piece, NULL);
    if (status == PGRAD_OK)
        status = pgrad__folder_open(of, target, &folder);
    if (status == PGRAD_OK)
        status = pgrad__tokenizer_write(t, &folder);
    if (status == PGRAD_OK)
        status = pgrad__folder_commit(&folder);
    if (status != PGRAD_OK)
        pgrad__folder_abort(&folder);
    pgrad_decoder_free(decoder);
    pgrad_tokenizer_free(t);
    return status;
}

/* The n-th allocation fails, for every n: GGUF, the folder saved from it, GPT-2's pair. */
START_TEST(every_allocation_may_fail)
{
    counted state = {-1, 0};
    const pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context_params params;
    pgrad_context *failing = NULL;
    metadata m = {.pre = "qwen2", .bos = 260, .add_bos = YES, .chat = "{{ x }}"};
    memcpy(m.more, SPECIALS, sizeof SPECIALS);
    m.more[3] = (more_token){"<|im_start|>", CONTROL, 0};
    m.more[4] = (more_token){"<|im_end|>", CONTROL, 0};
    char path[4096];
    snprintf(path, sizeof path, "%s", put_gguf("t.gguf", &m));
    if (_i == 1) {
        pgrad_tokenizer *t = load_gguf(m);
        pgrad_tokenizer_free(save_and_load(t, "saved"));
        pgrad_tokenizer_free(t);
        snprintf(path, sizeof path, "%s", in_folder("saved"));
    } else if (_i == 2) {
        put_text_file("vocab.json", "{\"h\":0,\"e\":1,\"he\":2,\"<|endoftext|>\":3}");
        put_text_file("merges.txt", "#version: 0.2\nh e\n");
        put_text_file("tokenizer_config.json", "{\"pad_token\":\"<|endoftext|>\"}");
        snprintf(path, sizeof path, "%s", test_folder);
    }
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 1;
    params.allocator = &allocator;
    OK(pgrad_context_create(&params, &failing));
    const long before = state.live;
    long n = 1;
    for (; n < 5000; n++) {
        char target[32];
        snprintf(target, sizeof target, "target%ld", n);
        const char *to = in_folder(target);
        state.left = n;
        pgrad_status status = work(failing, path, to);
        const int failed = state.left <= 0;
        state.left = -1;
        ck_assert_msg(state.live == before, "allocation %ld: %ld blocks lost", n, state.live - before);
        if (!failed) {
            OK(status);
            break;
        }
        ck_assert_msg(status == PGRAD_E_NOMEM || status == PGRAD_OK, "allocation %ld: %s: %s", n,
                      pgrad_status_name(status), pgrad_error_message());
    }
    ck_assert_msg(n > 20 && n < 5000, "%ld allocations", n);
    pgrad_context_free(failing);
    ck_assert_int_eq(state.live, 0);
}
END_TEST

static int32_t stop_at(void *user, const char *what, uint64_t done, uint64_t total)
{
    uint64_t *last = user;
    ck_assert_str_eq(what, "tokenizer");
    ck_assert(done <= total);
    last[1] = done;
    last[2] = total;
    return done < last[0];
}

START_TEST(loading_tells_and_stops)
{
    uint64_t seen[3] = {UINT64_MAX, 0, 0}; /* where to stop; done and total told last */
    const metadata m = {.n_controls = 5000};
    pgrad_tokenizer *t = NULL;
    OK(pgrad_context_set_progress(context, stop_at, seen));
    OK(pgrad_tokenizer_load(context, put_gguf("t.gguf", &m), &t));
    pgrad_tokenizer_free(t);
    t = NULL;
    ck_assert(seen[1] == seen[2] && seen[2] > 5000);
    seen[0] = 4000;
    FAILS(PGRAD_E_CALLBACK, "tokenizer, 4096 of", pgrad_tokenizer_load(context, put_gguf("t.gguf", &m), &t));
    ck_assert_ptr_null(t);
    OK(pgrad_context_set_progress(context, NULL, NULL));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, pre_says_how_text_is_split);
    tcase_add_test(tests, types_roles_and_templates);
    tcase_add_test(tests, control_tokens_stay_text);
    tcase_add_test(tests, literal_tokens_load_again);
    tcase_add_test(tests, the_magic_decides);
    tcase_add_test(tests, a_tokenizer_json_inside_is_preferred);
    tcase_add_test(tests, gg15_one_token);
    tcase_add_test(tests, refusals_name_file_key_and_what_was_found);
    tcase_add_test(tests, many_control_tokens);
    tcase_add_test(tests, any_byte_changed);
    tcase_add_loop_test(tests, every_allocation_may_fail, 0, 3);
    tcase_add_test(tests, loading_tells_and_stops);
}

int main(void)
{
    return run_case("text/tokenizer_gguf", setup, teardown, 60, add);
}
