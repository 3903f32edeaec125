/* Where a tokenizer is found: a GGUF file, a tokenizer.json, or a folder with one or with the pair
 * of files GPT-2 came with; and the files beside it, which are kept as they are. */
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "io/file.h"
#include "io/json.h"
#include "text/tokenizer_inside.h"

enum { MAX_FILE = 100 * 1000 * 1000 };

/* Puts the path of a file in front of what failed in it. */
static pgrad_status in_file(pgrad_status status, const char *path)
{
    char text[PGRAD__PATH_MAX];
    return status == PGRAD_OK ? PGRAD_OK
                              : pgrad__fail_in(status, "%s: ", pgrad__path_text(text, path));
}

/* ---- the files beside it ---- */

/* The text of a token: "</s>", or {"content": "</s>"}; NULL for others. */
static const char *token_text(const pgrad__json *value, size_t *length)
{
    const char *text = pgrad__json_string(value, length);
    return text != NULL ? text : pgrad__json_string(pgrad__json_get(value, "content"), length);
}

static pgrad_token role_token(const pgrad_tokenizer *t, const pgrad__json *value)
{
    size_t length;
    const char *text = token_text(value, &length);
    const pgrad__added_token *token =
        text == NULL ? NULL : pgrad__special_content(&t->added, text, length);
    return token == NULL ? -1 : token->id;
}

static void read_roles(pgrad_tokenizer *t, const pgrad__json *root)
{
    static const char *const KEYS[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    for (int i = 0; i < 4; i++)
        if (t->roles[i] < 0)
            t->roles[i] = role_token(t, pgrad__json_get(root, KEYS[i]));
}

static int is_kept(const pgrad_tokenizer *t, const char *name)
{
    for (uint32_t i = 0; i < t->n_files; i++)
        if (strcmp(t->files[i].name, name) == 0)
            return 1;
    return 0;
}

/* Loads a file of a folder: *data is NULL when it is not there. Both are to be freed. */
static pgrad_status load_beside(pgrad_context *context, const char *folder, const char *name,
                                char **path, char **data, size_t *size)
{
    *path = *data = NULL;
    PGRAD__TRY(pgrad__path_join(context, folder, name, path));
    if (pgrad__path_kind(*path) != PGRAD__PATH_FILE)
        return PGRAD_OK;
    return pgrad__file_load(context, *path, MAX_FILE, data, size);
}

/* Keeps a side file when it is there; a JSON one is asked for roles. */
static pgrad_status read_side_file(pgrad_tokenizer *t, const char *folder, const char *name,
                                   int has_roles)
{
    char *path, *data;
    size_t size;
    pgrad__json *root = NULL;
    if (is_kept(t, name))
        return PGRAD_OK;
    pgrad_status status = load_beside(t->context, folder, name, &path, &data, &size);
    if (data != NULL) {
        pgrad__tokenizer_keep(t, name, data, size);
        if (has_roles)
            status = pgrad__json_parse(t->context, data, size, path, &root);
    }
    if (root != NULL)
        read_roles(t, root);
    pgrad__json_free(root);
    pgrad__free(t->context, path);
    return status;
}

static pgrad_status read_side_files(pgrad_tokenizer *t, const char *folder)
{
    static const struct {
        const char *name;
        int has_roles;
    } FILES[] = {{"tokenizer_config.json", 1},
                 {"special_tokens_map.json", 1},
                 {"chat_template.jinja", 0},
                 {"added_tokens.json", 0},
                 {"vocab.json", 0},
                 {"merges.txt", 0}};
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++)
        PGRAD__TRY(read_side_file(t, folder, FILES[i].name, FILES[i].has_roles));
    return PGRAD_OK;
}

/* ---- tokenizer.json ---- */

static pgrad_status read_json_file(pgrad_tokenizer *t, const char *path, const char *folder)
{
    char *data;
    size_t size;
    PGRAD__TRY(pgrad__file_load(t->context, path, MAX_FILE, &data, &size));
    PGRAD__TRY(pgrad__tokenizer_read_json(t, data, size, path));
    return read_side_files(t, folder);
}

/* ---- GPT-2's vocab.json and merges.txt ---- */

static const char END_OF_TEXT[] = "<|endoftext|>";

static pgrad_status read_end_of_text(pgrad_tokenizer *t, const pgrad__json *vocabulary)
{
    int64_t end;
    if (!pgrad__json_integer(pgrad__json_get(vocabulary, END_OF_TEXT), &end))
        return PGRAD_OK;
    char content[sizeof END_OF_TEXT];
    memcpy(content, END_OF_TEXT, sizeof END_OF_TEXT);
    const pgrad__added_token token = {
        .content = content, .length = sizeof END_OF_TEXT - 1, .id = (pgrad_token)end, .special = 1};
    return pgrad__tokenizer_add(t, &token);
}

/* A token of added_tokens.json; in the vocabulary it may stand too, with the same id. */
static pgrad_status read_added(pgrad_tokenizer *t, const pgrad__json *vocabulary, const char *text,
                               size_t length, const pgrad__json *value, int special)
{
    int64_t id, known;
    char *content;
    const int is_end = length == sizeof END_OF_TEXT - 1 && memcmp(text, END_OF_TEXT, length) == 0;
    const pgrad__json *there = strlen(text) == length ? pgrad__json_get(vocabulary, text) : NULL;
    if (!pgrad__json_integer(value, &id) || id < 0 || id > INT32_MAX)
        return pgrad__json_wrong(NULL, text, "an id", value);
    if (pgrad__json_integer(there, &known) && known != id)
        return pgrad__fail(PGRAD_E_FORMAT, "%.64s: expected %lld as in the vocabulary, found %lld",
                           text, (long long)known, (long long)id);
    if (is_end && there != NULL)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__copy_text(t->context, text, length, &content));
    const pgrad__added_token token = {.content = content,
                                      .length = length,
                                      .id = (pgrad_token)id,
                                      .special = special || is_end,
                                      .normalized = !special && !is_end};
    pgrad_status status = pgrad__tokenizer_add(t, &token);
    pgrad__free(t->context, content);
    return status;
}

static int is_text(const pgrad__json *value, const char *text, size_t length)
{
    size_t n;
    const char *found = token_text(value, &n);
    return found != NULL && n == length && memcmp(found, text, length) == 0;
}

/* A side file gives the token a role, or lists it among the special ones. */
static int makes_special(const pgrad__json *root, const char *text, size_t length)
{
    static const char *const ROLES[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};
    static const char *const LISTS[] = {"additional_special_tokens", "extra_special_tokens"};
    for (size_t i = 0; i < sizeof ROLES / sizeof ROLES[0]; i++)
        if (is_text(pgrad__json_get(root, ROLES[i]), text, length))
            return 1;
    for (size_t i = 0; i < sizeof LISTS / sizeof LISTS[0]; i++) {
        const pgrad__json *list = pgrad__json_get(root, LISTS[i]);
        for (size_t k = 0; k < pgrad__json_count(list); k++)
            if (is_text(pgrad__json_at(list, k), text, length))
                return 1;
    }
    return 0;
}

enum { ADDED, CONFIG, SPECIAL_MAP, N_SIDE };

static const char *const SIDE_FILES[N_SIDE] = {"added_tokens.json", "tokenizer_config.json",
                                               "special_tokens_map.json"};

static pgrad_status read_each_added(pgrad_tokenizer *t, const pgrad__json *vocabulary,
                                    pgrad__json *const sides[N_SIDE])
{
    void *iterator = NULL;
    const char *text;
    size_t length;
    const pgrad__json *value;
    if (pgrad__json_type(sides[ADDED]) != PGRAD__JSON_OBJECT)
        return pgrad__json_wrong(NULL, "root", "an object of tokens", sides[ADDED]);
    while (pgrad__json_next(sides[ADDED], &iterator, &text, &length, &value))
        PGRAD__TRY(read_added(t, vocabulary, text, length, value,
                              makes_special(sides[CONFIG], text, length) ||
                                  makes_special(sides[SPECIAL_MAP], text, length)));
    return PGRAD_OK;
}

/* A JSON file of the folder; NULL when it is not there. */
static pgrad_status parse_side_file(pgrad_context *context, const char *folder, const char *name,
                                    pgrad__json **out)
{
    char *path, *data;
    size_t size;
    *out = NULL;
    pgrad_status status = load_beside(context, folder, name, &path, &data, &size);
    if (data != NULL)
        status = pgrad__json_parse(context, data, size, path, out);
    pgrad__free(context, data);
    pgrad__free(context, path);
    return status;
}

/* Slow tokenizers kept the tokens added to the pair in a file of their own. */
static pgrad_status read_added_tokens(pgrad_tokenizer *t, const pgrad__json *vocabulary,
                                      const char *folder)
{
    pgrad__json *sides[N_SIDE] = {NULL};
    pgrad_status status = PGRAD_OK;
    for (int i = 0; i < N_SIDE && status == PGRAD_OK && (i == 0 || sides[ADDED] != NULL); i++)
        status = parse_side_file(t->context, folder, SIDE_FILES[i], &sides[i]);
    if (status == PGRAD_OK && sides[ADDED] != NULL) {
        status = read_each_added(t, vocabulary, sides);
        if (status != PGRAD_OK) {
            char path[PGRAD__PATH_MAX];
            (void)pgrad__fail_in(status, "%s/%s: ", pgrad__path_text(path, folder),
                                 SIDE_FILES[ADDED]);
        }
    }
    for (int i = 0; i < N_SIDE; i++)
        pgrad__json_free(sides[i]);
    return status;
}

static pgrad_status index_pair(pgrad_tokenizer *t)
{
    PGRAD__TRY(pgrad__special_sort(&t->added));
    return pgrad__tokenizer_index(t);
}

static pgrad_status read_pair_vocabulary(pgrad_tokenizer *t, const pgrad__json *root,
                                         const char *path, const char *folder)
{
    PGRAD__TRY(in_file(pgrad__tokenizer_read_vocabulary(t, root, "vocabulary"), path));
    PGRAD__TRY(in_file(read_end_of_text(t, root), path));
    PGRAD__TRY(read_added_tokens(t, root, folder));
    return in_file(index_pair(t), path);
}

static size_t count_lines(const char *data, size_t size)
{
    size_t lines = 0;
    for (size_t i = 0; i < size; i++)
        lines += data[i] == '\n';
    return lines + 1;
}

static pgrad_status read_merge_lines(pgrad_tokenizer *t, const char *data, size_t size)
{
    uint32_t rank = 0, number = 0;
    PGRAD__TRY(pgrad__merges_init(&t->merges, t->context, count_lines(data, size)));
    for (size_t at = 0; at < size;) {
        const char *line = data + at;
        const char *newline = memchr(line, '\n', size - at);
        size_t length = newline == NULL ? size - at : (size_t)(newline - line);
        at += length + 1;
        number++;
        if (length > 0 && line[length - 1] == '\r')
            length--;
        if (length == 0 || (length >= 8 && memcmp(line, "#version", 8) == 0))
            continue;
        pgrad_status status = pgrad__tokenizer_merge_line(t, line, length, rank++);
        if (status != PGRAD_OK)
            return pgrad__fail_in(status, "line %u: ", number);
        PGRAD__TRY(pgrad__tokenizer_tick(t));
    }
    return PGRAD_OK;
}

/* Loads a file and keeps it under the name it is written back with. */
static pgrad_status load_kept(pgrad_tokenizer *t, const char *path, const char *kept, char **data,
                              size_t *size)
{
    PGRAD__TRY(pgrad__file_load(t->context, path, MAX_FILE, data, size));
    pgrad__tokenizer_keep(t, kept, *data, *size);
    return PGRAD_OK;
}

static pgrad_status read_pair(pgrad_tokenizer *t, const char *folder, const char *vocabulary,
                              const char *merges)
{
    char *data, *lines;
    size_t size, lines_size;
    pgrad__json *root = NULL;
    PGRAD__TRY(load_kept(t, vocabulary, "vocab.json", &data, &size));
    PGRAD__TRY(load_kept(t, merges, "merges.txt", &lines, &lines_size));
    PGRAD__TRY(pgrad__json_parse(t->context, data, size, vocabulary, &root));
    pgrad_status status =
        pgrad__tokenizer_expect(t, pgrad__json_count(root) + count_lines(lines, lines_size));
    if (status == PGRAD_OK)
        status = read_pair_vocabulary(t, root, vocabulary, folder);
    pgrad__json_free(root);
    PGRAD__TRY(status);
    PGRAD__TRY(in_file(read_merge_lines(t, lines, lines_size), merges));
    return pgrad__tokenizer_split(t, pgrad__pattern_gpt2, strlen(pgrad__pattern_gpt2),
                                  PGRAD__SPLIT_ISOLATED, 0, 0, "GPT-2's pattern");
}

/* GPT-2 has one special token, for every role that the side files leave open but padding. */
static pgrad_status read_pair_folder(pgrad_tokenizer *t, const char *folder, const char *vocabulary,
                                     const char *merges)
{
    static const int ROLES[] = {PGRAD_TOKEN_BOS, PGRAD_TOKEN_EOS, PGRAD_TOKEN_UNK};
    char *second;
    PGRAD__TRY(pgrad__path_join(t->context, folder, merges, &second));
    pgrad_status status = read_pair(t, folder, vocabulary, second);
    pgrad__free(t->context, second);
    PGRAD__TRY(status);
    PGRAD__TRY(read_side_files(t, folder));
    const pgrad__added_token *end =
        pgrad__special_content(&t->added, END_OF_TEXT, sizeof END_OF_TEXT - 1);
    for (size_t i = 0; i < 3 && end != NULL; i++)
        if (t->roles[ROLES[i]] < 0)
            t->roles[ROLES[i]] = end->id;
    return PGRAD_OK;
}

/* ---- folders and files ---- */

/* Tries the files a folder may hold a tokenizer in. */
static pgrad_status read_folder(pgrad_tokenizer *t, const char *folder)
{
    static const char *const FILES[][2] = {
        {"tokenizer.json", NULL}, {"vocab.json", "merges.txt"}, {"encoder.json", "vocab.bpe"}};
    char text[PGRAD__PATH_MAX], *path;
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        pgrad_status status = PGRAD_OK;
        PGRAD__TRY(pgrad__path_join(t->context, folder, FILES[i][0], &path));
        const int found = pgrad__path_kind(path) == PGRAD__PATH_FILE;
        if (found)
            status = FILES[i][1] == NULL ? read_json_file(t, path, folder)
                                         : read_pair_folder(t, folder, path, FILES[i][1]);
        pgrad__free(t->context, path);
        if (found)
            return status;
    }
    PGRAD__TRY(pgrad__path_join(t->context, folder, "tokenizer.model", &path));
    const int sentencepiece = pgrad__path_kind(path) == PGRAD__PATH_FILE;
    pgrad__free(t->context, path);
    if (sentencepiece)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s: tokenizer.model: SentencePiece is not supported, byte-level BPE is",
                           pgrad__path_text(text, folder));
    return pgrad__fail(PGRAD_E_IO,
                       "%s: no tokenizer.json, nor vocab.json with merges.txt, in this folder",
                       pgrad__path_text(text, folder));
}

/* 1 for what begins as a GGUF file does, or says in its name that it is one. */
static int is_gguf(pgrad_context *context, const char *path)
{
    const size_t length = strlen(path);
    pgrad__file file;
    char magic[4];
    if (length >= 5 && strcmp(path + length - 5, ".gguf") == 0)
        return 1;
    if (pgrad__file_open(context, path, &file) != PGRAD_OK)
        return 0;
    const int found = file.size >= sizeof magic &&
                      pgrad__file_read(&file, 0, magic, sizeof magic) == PGRAD_OK &&
                      memcmp(magic, "GGUF", sizeof magic) == 0;
    pgrad__file_close(&file);
    return found;
}

/* The folder of a file, "." when the path has none; free with pgrad__free. */
static pgrad_status folder_of(pgrad_context *context, const char *path, char **out)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return pgrad__copy_text(context, ".", 1, out);
    return pgrad__copy_text(context, path, slash == path ? 1 : (size_t)(slash - path), out);
}

static const char WEIGHTS[] = ".safetensors"; /* whose tokenizer stands beside them */

pgrad_status pgrad__tokenizer_read(pgrad_tokenizer *t, const char *path)
{
    char *folder;
    if (pgrad__path_kind(path) == PGRAD__PATH_FOLDER)
        return read_folder(t, path);
    if (is_gguf(t->context, path))
        return pgrad__tokenizer_read_gguf(t, path);
    PGRAD__TRY(folder_of(t->context, path, &folder));
    const size_t length = strlen(path), end = strlen(WEIGHTS);
    const int is_weights = length >= end && strcmp(path + length - end, WEIGHTS) == 0;
    pgrad_status status = is_weights ? read_folder(t, folder) : read_json_file(t, path, folder);
    pgrad__free(t->context, folder);
    return status;
}
