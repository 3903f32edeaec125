/* tokenizer.json, and the pair of files GPT-2 came with. What is not built is refused by its JSON
 * path. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "io/file.h"
#include "io/json.h"
#include "text/tokenizer_inside.h"
#include "text/unicode.h"

enum { MAX_FILE = 100 * 1000 * 1000, MAX_JSON_PATH = 96 };

static const char *type_of(const pgrad__json *value)
{
    const char *type = pgrad__json_string(pgrad__json_get(value, "type"), NULL);
    return type == NULL ? "" : type;
}

static pgrad_status not_built(const char *path, const char *what)
{
    return pgrad__fail(PGRAD_E_UNSUPPORTED, "tokenizer.json: %s: '%.40s' is not built", path, what);
}

static pgrad_status malformed(const char *path, const char *expected)
{
    return pgrad__fail(PGRAD_E_FORMAT, "tokenizer.json: %s: expected %s", path, expected);
}

/* ---- vocabulary and merges ---- */

static pgrad_status read_vocabulary(pgrad_tokenizer *t, const pgrad__json *vocabulary,
                                    const char *path)
{
    void *iterator = NULL;
    const char *key;
    size_t length;
    const pgrad__json *value;
    int64_t id;
    if (pgrad__json_type(vocabulary) != PGRAD__JSON_OBJECT)
        return malformed(path, "an object of tokens");
    while (pgrad__json_next(vocabulary, &iterator, &key, &length, &value)) {
        if (!pgrad__json_integer(value, &id) || id < 0 || id > INT32_MAX)
            return pgrad__fail(PGRAD_E_FORMAT, "tokenizer.json: %s.%.64s: expected an id", path,
                               key);
        PGRAD__TRY(pgrad__tokenizer_set_spelled(t, (uint32_t)id, key, length));
    }
    return PGRAD_OK;
}

/* "left right", or ["left", "right"]. */
static pgrad_status read_merge(pgrad_tokenizer *t, const pgrad__json *merge, uint32_t rank)
{
    static const char ORIGIN[] = "tokenizer.json: model.merges";
    size_t length, left_length, right_length;
    const char *text = pgrad__json_string(merge, &length);
    if (text != NULL) {
        const char *space = memchr(text, ' ', length);
        if (space == NULL || memchr(space + 1, ' ', length - (size_t)(space + 1 - text)) != NULL)
            return pgrad__fail(PGRAD_E_FORMAT, "%s[%u]: expected two parts, found '%.64s'", ORIGIN,
                               rank, text);
        return pgrad__tokenizer_merge(t, text, (size_t)(space - text), space + 1,
                                      length - (size_t)(space + 1 - text), rank, ORIGIN);
    }
    const char *left = pgrad__json_string(pgrad__json_at(merge, 0), &left_length);
    const char *right = pgrad__json_string(pgrad__json_at(merge, 1), &right_length);
    if (pgrad__json_type(merge) != PGRAD__JSON_ARRAY || pgrad__json_count(merge) != 2 ||
        left == NULL || right == NULL)
        return pgrad__fail(PGRAD_E_FORMAT, "%s[%u]: expected two parts", ORIGIN, rank);
    return pgrad__tokenizer_merge(t, left, left_length, right, right_length, rank, ORIGIN);
}

static pgrad_status read_merges(pgrad_tokenizer *t, const pgrad__json *model)
{
    const pgrad__json *merges = pgrad__json_get(model, "merges");
    size_t n = pgrad__json_count(merges);
    if (pgrad__json_type(merges) != PGRAD__JSON_ARRAY)
        return malformed("model.merges", "an array");
    PGRAD__TRY(pgrad__merges_init(&t->merges, t->context, n));
    for (size_t i = 0; i < n; i++)
        PGRAD__TRY(read_merge(t, pgrad__json_at(merges, i), (uint32_t)i));
    return PGRAD_OK;
}

static pgrad_status check_model(pgrad_tokenizer *t, const pgrad__json *model)
{
    static const char *const AFFIXES[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    double dropout;
    size_t length;
    if (pgrad__json_type(model) != PGRAD__JSON_OBJECT)
        return malformed("model", "an object");
    if (strcmp(type_of(model), "BPE") != 0 && strcmp(type_of(model), "") != 0)
        return not_built("model.type", type_of(model));
    if (pgrad__json_real(pgrad__json_get(model, "dropout"), &dropout) && dropout != 0.0)
        return not_built("model.dropout", "dropout");
    for (size_t i = 0; i < 2; i++)
        if (pgrad__json_string(pgrad__json_get(model, AFFIXES[i]), &length) != NULL && length > 0)
            return not_built("model", AFFIXES[i]);
    if (pgrad__json_bool(pgrad__json_get(model, "byte_fallback"), 0))
        return not_built("model.byte_fallback", "true");
    t->ignore_merges = pgrad__json_bool(pgrad__json_get(model, "ignore_merges"), 0);
    return PGRAD_OK;
}

/* ---- added tokens ---- */

static pgrad_status read_added(pgrad_tokenizer *t, const pgrad__json *item, size_t i)
{
    pgrad__added_token token = {0};
    char *content;
    int64_t id;
    const char *text = pgrad__json_string(pgrad__json_get(item, "content"), &token.length);
    if (text == NULL || !pgrad__json_integer(pgrad__json_get(item, "id"), &id) || id < 0 ||
        id > INT32_MAX)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "tokenizer.json: added_tokens[%zu]: expected content and id", i);
    token.id = (pgrad_token)id;
    token.special = pgrad__json_bool(pgrad__json_get(item, "special"), 0);
    token.single_word = pgrad__json_bool(pgrad__json_get(item, "single_word"), 0);
    token.lstrip = pgrad__json_bool(pgrad__json_get(item, "lstrip"), 0);
    token.rstrip = pgrad__json_bool(pgrad__json_get(item, "rstrip"), 0);
    token.normalized = pgrad__json_bool(pgrad__json_get(item, "normalized"), !token.special);
    PGRAD__TRY(pgrad__copy_text(t->context, text, token.length, &content));
    token.content = content;
    pgrad_status status = PGRAD_OK;
    if (token.normalized && t->nfc)
        status = pgrad__nfc(t->context, text, token.length, &token.pattern, &token.pattern_length);
    if (status == PGRAD_OK)
        status = pgrad__tokenizer_add(t, &token);
    pgrad__free(t->context, token.pattern);
    pgrad__free(t->context, content);
    return status;
}

static pgrad_status read_added_tokens(pgrad_tokenizer *t, const pgrad__json *root)
{
    const pgrad__json *added = pgrad__json_get(root, "added_tokens");
    if (added != NULL && pgrad__json_type(added) != PGRAD__JSON_ARRAY)
        return malformed("added_tokens", "an array");
    for (size_t i = 0; i < pgrad__json_count(added); i++)
        PGRAD__TRY(read_added(t, pgrad__json_at(added, i), i));
    pgrad__special_sort(&t->added);
    return PGRAD_OK;
}

/* ---- the pieces around the model ---- */

/* Goes through a Sequence, or the one thing that stands in its place. */
typedef pgrad_status (*piece_fn)(pgrad_tokenizer *t, const pgrad__json *piece, const char *path);

static pgrad_status each_piece(pgrad_tokenizer *t, const pgrad__json *value, const char *path,
                               const char *list, piece_fn fn, int depth)
{
    char inner[MAX_JSON_PATH];
    if (value == NULL)
        return PGRAD_OK;
    if (pgrad__json_type(value) != PGRAD__JSON_OBJECT)
        return malformed(path, "an object");
    if (strcmp(type_of(value), "Sequence") != 0)
        return fn(t, value, path);
    const pgrad__json *items = pgrad__json_get(value, list);
    if (pgrad__json_type(items) != PGRAD__JSON_ARRAY || depth > 4)
        return malformed(path, "an array of pieces, not nested deeply");
    for (size_t i = 0; i < pgrad__json_count(items); i++) {
        (void)snprintf(inner, sizeof inner, "%.50s.%.20s[%zu]", path, list, i);
        PGRAD__TRY(each_piece(t, pgrad__json_at(items, i), inner, list, fn, depth + 1));
    }
    return PGRAD_OK;
}

static pgrad_status normalizer(pgrad_tokenizer *t, const pgrad__json *piece, const char *path)
{
    if (strcmp(type_of(piece), "NFC") != 0)
        return not_built(path, type_of(piece));
    t->nfc = 1;
    return PGRAD_OK;
}

static pgrad_status read_behavior(const pgrad__json *piece, const char *path,
                                  pgrad__split_behavior *out)
{
    static const char *const NAMES[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name = pgrad__json_string(pgrad__json_get(piece, "behavior"), NULL);
    for (int i = 0; name != NULL && i < 5; i++)
        if (strcmp(name, NAMES[i]) == 0) {
            *out = (pgrad__split_behavior)i;
            return PGRAD_OK;
        }
    return not_built(path, name == NULL ? "a split without a behavior" : name);
}

static pgrad_status split(pgrad_tokenizer *t, const pgrad__json *piece, const char *path)
{
    const pgrad__json *pattern = pgrad__json_get(piece, "pattern");
    pgrad__split_behavior behavior = PGRAD__SPLIT_ISOLATED;
    size_t length;
    int invert = pgrad__json_bool(pgrad__json_get(piece, "invert"), 0);
    PGRAD__TRY(read_behavior(piece, path, &behavior));
    const char *regex = pgrad__json_string(pgrad__json_get(pattern, "Regex"), &length);
    if (regex != NULL)
        return pgrad__tokenizer_split(t, regex, length, behavior, invert, 0, path);
    const char *string = pgrad__json_string(pgrad__json_get(pattern, "String"), &length);
    if (string == NULL || length == 0)
        return malformed(path, "a pattern with Regex or String");
    if (strstr(string, "\\E") != NULL)
        return not_built(path, string);
    char *quoted;
    PGRAD__TRY(pgrad__alloc(t->context, length + 5, 1, &quoted));
    memcpy(quoted, "\\Q", 2);
    memcpy(quoted + 2, string, length);
    memcpy(quoted + 2 + length, "\\E", 3);
    pgrad_status status = pgrad__tokenizer_split(t, quoted, length + 4, behavior, invert, 0, path);
    pgrad__free(t->context, quoted);
    return status;
}

static pgrad_status pre_tokenizer(pgrad_tokenizer *t, const pgrad__json *piece, const char *path)
{
    if (strcmp(type_of(piece), "ByteLevel") == 0) {
        int prefix = pgrad__json_bool(pgrad__json_get(piece, "add_prefix_space"), 0);
        if (pgrad__json_bool(pgrad__json_get(piece, "use_regex"), 1))
            return pgrad__tokenizer_split(t, pgrad__pattern_gpt2, strlen(pgrad__pattern_gpt2),
                                          PGRAD__SPLIT_ISOLATED, 0, prefix, path);
        return prefix ? pgrad__tokenizer_split(t, NULL, 0, PGRAD__SPLIT_ISOLATED, 0, 1, path)
                      : PGRAD_OK;
    }
    if (strcmp(type_of(piece), "Digits") == 0) {
        int single = pgrad__json_bool(pgrad__json_get(piece, "individual_digits"), 0);
        return pgrad__tokenizer_split(t, single ? "\\p{N}" : "\\p{N}+", single ? 5 : 6,
                                      PGRAD__SPLIT_ISOLATED, 0, 0, path);
    }
    if (strcmp(type_of(piece), "Split") == 0)
        return split(t, piece, path);
    return not_built(path, type_of(piece));
}

static pgrad_status decoder(pgrad_tokenizer *t, const pgrad__json *piece, const char *path)
{
    (void)t;
    return strcmp(type_of(piece), "ByteLevel") == 0 ? PGRAD_OK : not_built(path, type_of(piece));
}

static pgrad_status add_template_id(pgrad_tokenizer *t, pgrad_token id, int behind)
{
    uint32_t *n = behind ? &t->n_suffix : &t->n_prefix;
    if (*n == PGRAD__MAX_ADDED_IDS)
        return not_built("post_processor", "a template of so many tokens");
    (behind ? t->suffix_ids : t->prefix_ids)[(*n)++] = id;
    return PGRAD_OK;
}

/* The ids of a template's special token. */
static pgrad_status template_token(pgrad_tokenizer *t, const pgrad__json *piece, const char *name,
                                   int behind)
{
    const pgrad__json *ids =
        pgrad__json_get(pgrad__json_get(pgrad__json_get(piece, "special_tokens"), name), "ids");
    int64_t id;
    if (pgrad__json_count(ids) == 0)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "tokenizer.json: post_processor.special_tokens: '%.64s' is missing",
                           name);
    for (size_t i = 0; i < pgrad__json_count(ids); i++) {
        if (!pgrad__json_integer(pgrad__json_at(ids, i), &id) || id < 0 || id >= t->n_ids)
            return malformed("post_processor.special_tokens", "ids of the vocabulary");
        PGRAD__TRY(add_template_id(t, (pgrad_token)id, behind));
    }
    return PGRAD_OK;
}

static pgrad_status post_processor(pgrad_tokenizer *t, const pgrad__json *piece, const char *path)
{
    if (strcmp(type_of(piece), "ByteLevel") == 0)
        return PGRAD_OK;
    if (strcmp(type_of(piece), "TemplateProcessing") != 0)
        return not_built(path, type_of(piece));
    const pgrad__json *single = pgrad__json_get(piece, "single");
    int behind = 0;
    for (size_t i = 0; i < pgrad__json_count(single); i++) {
        const pgrad__json *item = pgrad__json_at(single, i);
        const char *name =
            pgrad__json_string(pgrad__json_get(pgrad__json_get(item, "SpecialToken"), "id"), NULL);
        if (name == NULL)
            behind = 1; /* the sequence itself */
        else
            PGRAD__TRY(template_token(t, piece, name, behind));
    }
    return PGRAD_OK;
}

static pgrad_status read_root(pgrad_tokenizer *t, const pgrad__json *root)
{
    const pgrad__json *model = pgrad__json_get(root, "model");
    PGRAD__TRY(check_model(t, model));
    PGRAD__TRY(each_piece(t, pgrad__json_get(root, "normalizer"), "normalizer", "normalizers",
                          normalizer, 0));
    PGRAD__TRY(each_piece(t, pgrad__json_get(root, "pre_tokenizer"), "pre_tokenizer",
                          "pretokenizers", pre_tokenizer, 0));
    PGRAD__TRY(each_piece(t, pgrad__json_get(root, "decoder"), "decoder", "decoders", decoder, 0));
    PGRAD__TRY(read_vocabulary(t, pgrad__json_get(model, "vocab"), "model.vocab"));
    PGRAD__TRY(read_added_tokens(t, root));
    PGRAD__TRY(pgrad__tokenizer_index(t));
    PGRAD__TRY(read_merges(t, model));
    return each_piece(t, pgrad__json_get(root, "post_processor"), "post_processor", "processors",
                      post_processor, 0);
}

/* ---- the files beside it ---- */

/* A role's token: "</s>", or {"content": "</s>"}. */
static pgrad_token role_token(const pgrad_tokenizer *t, const pgrad__json *value)
{
    size_t length;
    const char *text = pgrad__json_string(value, &length);
    if (text == NULL)
        text = pgrad__json_string(pgrad__json_get(value, "content"), &length);
    if (text == NULL)
        return -1;
    const pgrad__added_token *token = pgrad__special_content(&t->added, text, length);
    return token == NULL ? -1 : token->id;
}

static void read_roles(pgrad_tokenizer *t, const pgrad__json *root)
{
    static const char *const KEYS[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    for (int i = 0; i < 4; i++)
        if (t->roles[i] < 0)
            t->roles[i] = role_token(t, pgrad__json_get(root, KEYS[i]));
}

/* Keeps a side file when it is there; a JSON one is asked for roles. */
static pgrad_status read_side_file(pgrad_tokenizer *t, const char *folder, const char *name,
                                   int has_roles)
{
    char *path, *data;
    size_t size;
    PGRAD__TRY(pgrad__path_join(t->context, folder, name, &path));
    pgrad_status status = PGRAD_OK;
    if (pgrad__path_kind(path) == PGRAD__PATH_FILE) {
        status = pgrad__file_load(t->context, path, MAX_FILE, &data, &size);
        if (status == PGRAD_OK) {
            pgrad__json *root = NULL;
            pgrad__tokenizer_keep(t, name, data, size);
            if (has_roles)
                status = pgrad__json_parse(t->context, data, size, path, &root);
            if (status == PGRAD_OK && has_roles) {
                read_roles(t, root);
                pgrad__json_free(root);
            }
        }
    }
    pgrad__free(t->context, path);
    return status;
}

static pgrad_status read_side_files(pgrad_tokenizer *t, const char *folder)
{
    PGRAD__TRY(read_side_file(t, folder, "tokenizer_config.json", 1));
    PGRAD__TRY(read_side_file(t, folder, "special_tokens_map.json", 1));
    return read_side_file(t, folder, "chat_template.jinja", 0);
}

pgrad_status pgrad__tokenizer_read_json(pgrad_tokenizer *t, const char *path, const char *folder)
{
    char *data;
    size_t size;
    pgrad__json *root = NULL;
    PGRAD__TRY(pgrad__file_load(t->context, path, MAX_FILE, &data, &size));
    pgrad__tokenizer_keep(t, "tokenizer.json", data, size);
    PGRAD__TRY(pgrad__json_parse(t->context, data, size, path, &root));
    pgrad_status status = read_root(t, root);
    pgrad__json_free(root);
    PGRAD__TRY(status);
    return read_side_files(t, folder);
}

/* ---- GPT-2's vocab.json and merges.txt ---- */

static pgrad_status read_merge_lines(pgrad_tokenizer *t, const char *data, size_t size,
                                     const char *name)
{
    size_t lines = 0;
    uint32_t rank = 0;
    for (size_t i = 0; i < size; i++)
        lines += data[i] == '\n';
    PGRAD__TRY(pgrad__merges_init(&t->merges, t->context, lines + 1));
    for (size_t at = 0; at < size;) {
        const char *line = data + at;
        const char *newline = memchr(line, '\n', size - at);
        size_t length = newline == NULL ? size - at : (size_t)(newline - line);
        at += length + 1;
        if (length > 0 && line[length - 1] == '\r')
            length--;
        if (length == 0 || (length >= 8 && memcmp(line, "#version", 8) == 0))
            continue;
        const char *space = memchr(line, ' ', length);
        if (space == NULL)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: merge %u: expected two parts, found '%.*s'",
                               name, rank, (int)(length < 64 ? length : 64), line);
        PGRAD__TRY(pgrad__tokenizer_merge(t, line, (size_t)(space - line), space + 1,
                                          length - (size_t)(space + 1 - line), rank, name));
        rank++;
    }
    return PGRAD_OK;
}

static pgrad_status load_into(pgrad_tokenizer *t, const char *folder, const char *name,
                              const char *kept, char **data, size_t *size)
{
    char *path;
    PGRAD__TRY(pgrad__path_join(t->context, folder, name, &path));
    pgrad_status status = pgrad__file_load(t->context, path, MAX_FILE, data, size);
    pgrad__free(t->context, path);
    PGRAD__TRY(status);
    pgrad__tokenizer_keep(t, kept, *data, *size);
    return PGRAD_OK;
}

pgrad_status pgrad__tokenizer_read_gpt2(pgrad_tokenizer *t, const char *folder,
                                        const char *vocabulary, const char *merges)
{
    static const char END[] = "<|endoftext|>";
    char *data;
    size_t size;
    pgrad__json *root = NULL;
    PGRAD__TRY(load_into(t, folder, vocabulary, "vocab.json", &data, &size));
    PGRAD__TRY(pgrad__json_parse(t->context, data, size, vocabulary, &root));
    int64_t end;
    int has_end =
        pgrad__json_integer(pgrad__json_get(root, END), &end) && end >= 0 && end <= INT32_MAX;
    pgrad_status status = read_vocabulary(t, root, vocabulary);
    pgrad__json_free(root);
    PGRAD__TRY(status);
    if (has_end) {
        char content[sizeof END];
        memcpy(content, END, sizeof END);
        pgrad__added_token token = {
            .content = content, .length = sizeof END - 1, .id = (pgrad_token)end, .special = 1};
        PGRAD__TRY(pgrad__tokenizer_add(t, &token));
        t->roles[PGRAD_TOKEN_BOS] = t->roles[PGRAD_TOKEN_EOS] = t->roles[PGRAD_TOKEN_UNK] =
            token.id;
    }
    pgrad__special_sort(&t->added);
    PGRAD__TRY(pgrad__tokenizer_index(t));
    PGRAD__TRY(load_into(t, folder, merges, "merges.txt", &data, &size));
    PGRAD__TRY(read_merge_lines(t, data, size, merges));
    return pgrad__tokenizer_split(t, pgrad__pattern_gpt2, strlen(pgrad__pattern_gpt2),
                                  PGRAD__SPLIT_ISOLATED, 0, 0, "GPT-2's pattern");
}
