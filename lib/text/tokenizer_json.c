/* tokenizer.json. What is not built is refused by its JSON path; a value of another type than it
 * should have is an error, never left out. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "io/json.h"
#include "text/tokenizer_inside.h"
#include "text/unicode.h"

enum { MAX_JSON_PATH = 96 };

static pgrad_status not_built(const char *path, const char *what)
{
    return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: '%.40s' is not built", path, what);
}

static pgrad_status malformed(const char *path, const char *expected, const pgrad__json *found)
{
    return pgrad__json_wrong(NULL, path, expected, found);
}

/* Puts the path of an object in front of what failed with a member of it. */
static pgrad_status member_of(const char *path, pgrad_status status)
{
    return status == PGRAD_OK ? PGRAD_OK : pgrad__fail_in(status, "%s.", path);
}

static pgrad_status read_flag(const pgrad__json *object, const char *path, const char *key,
                              int otherwise, int *out)
{
    return member_of(path, pgrad__json_optional_bool(object, NULL, key, otherwise, out));
}

/* A string that may be absent: NULL then. */
static pgrad_status read_string(const pgrad__json *object, const char *path, const char *key,
                                const char **out)
{
    const pgrad__json *value = pgrad__json_get(object, key);
    *out = pgrad__json_string(value, NULL);
    return value == NULL || *out != NULL ? PGRAD_OK
                                         : member_of(path, malformed(key, "a string", value));
}

/* The type of a piece, which must be there. */
static pgrad_status read_type(const pgrad__json *piece, const char *path, const char **out)
{
    if (pgrad__json_type(piece) != PGRAD__JSON_OBJECT)
        return malformed(path, "an object", piece);
    PGRAD__TRY(read_string(piece, path, "type", out));
    return *out != NULL ? PGRAD_OK : member_of(path, malformed("type", "a string", NULL));
}

/* ---- vocabulary and merges ---- */

pgrad_status pgrad__tokenizer_read_vocabulary(pgrad_tokenizer *t, const pgrad__json *vocabulary,
                                              const char *path)
{
    void *iterator = NULL;
    const char *key;
    size_t length;
    const pgrad__json *value;
    int64_t id;
    if (pgrad__json_type(vocabulary) != PGRAD__JSON_OBJECT)
        return malformed(path, "an object of tokens", vocabulary);
    while (pgrad__json_next(vocabulary, &iterator, &key, &length, &value)) {
        if (!pgrad__json_integer(value, &id) || id < 0 || id > INT32_MAX)
            return member_of(path, malformed(key, "an id", value));
        pgrad_status status = pgrad__tokenizer_set_spelled(t, (uint32_t)id, key, length);
        if (status != PGRAD_OK)
            return pgrad__fail_in(status, "%s.%.64s: ", path, key);
        PGRAD__TRY(pgrad__tokenizer_tick(t));
    }
    return PGRAD_OK;
}

/* "left right", or ["left", "right"]. */
static pgrad_status read_merge(pgrad_tokenizer *t, const pgrad__json *merge, const char *path,
                               uint32_t rank)
{
    size_t left_length, right_length, length;
    const char *line = pgrad__json_string(merge, &length);
    const char *left = pgrad__json_string(pgrad__json_at(merge, 0), &left_length);
    const char *right = pgrad__json_string(pgrad__json_at(merge, 1), &right_length);
    pgrad_status status;
    if (line != NULL && length >= 8 && memcmp(line, "#version", 8) == 0)
        return PGRAD_OK;
    if (line != NULL)
        status = pgrad__tokenizer_merge_line(t, line, length, rank);
    else if (left != NULL && right != NULL && pgrad__json_count(merge) == 2)
        status = pgrad__tokenizer_merge(t, left, left_length, right, right_length, rank);
    else
        return malformed(path, "two parts", merge);
    return status == PGRAD_OK ? PGRAD_OK : pgrad__fail_in(status, "%s: ", path);
}

static pgrad_status read_merges(pgrad_tokenizer *t, const pgrad__json *model)
{
    const pgrad__json *merges = pgrad__json_get(model, "merges");
    char path[MAX_JSON_PATH];
    size_t n = pgrad__json_count(merges);
    if (pgrad__json_type(merges) != PGRAD__JSON_ARRAY)
        return malformed("model.merges", "an array", merges);
    PGRAD__TRY(pgrad__merges_init(&t->merges, t->context, n));
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(path, sizeof path, "model.merges[%zu]", i);
        PGRAD__TRY(read_merge(t, pgrad__json_at(merges, i), path, (uint32_t)i));
        PGRAD__TRY(pgrad__tokenizer_tick(t));
    }
    return PGRAD_OK;
}

static pgrad_status check_model(pgrad_tokenizer *t, const pgrad__json *model)
{
    static const char *const AFFIXES[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *text;
    double dropout;
    int byte_fallback, fuse_unk; /* unknown characters are refused: fusing them changes nothing */
    if (pgrad__json_type(model) != PGRAD__JSON_OBJECT)
        return malformed("model", "an object", model);
    PGRAD__TRY(read_string(model, "model", "type", &text));
    if (text != NULL && strcmp(text, "BPE") != 0)
        return not_built("model.type", text);
    PGRAD__TRY(member_of(
        "model", pgrad__json_optional_real(model, NULL, "dropout", 0.0, 1.0, 0.0, &dropout)));
    if (dropout != 0.0)
        return not_built("model.dropout", "dropout");
    for (size_t i = 0; i < 2; i++) {
        PGRAD__TRY(read_string(model, "model", AFFIXES[i], &text));
        if (text != NULL && text[0] != '\0')
            return not_built("model", AFFIXES[i]);
    }
    PGRAD__TRY(read_flag(model, "model", "byte_fallback", 0, &byte_fallback));
    if (byte_fallback)
        return not_built("model.byte_fallback", "true");
    PGRAD__TRY(read_flag(model, "model", "fuse_unk", 0, &fuse_unk));
    return read_flag(model, "model", "ignore_merges", 0, &t->ignore_merges);
}

/* The reference puts unk_token in the place of a byte that the vocabulary lacks. Here text never
 * becomes such a token, so the two go together only where no byte is missing. */
static pgrad_status check_unknown(const pgrad_tokenizer *t, const pgrad__json *model)
{
    const char *text;
    PGRAD__TRY(read_string(model, "model", "unk_token", &text));
    for (int byte = 0; text != NULL && byte < 0xf5; byte++)
        if (t->byte_ids[byte] < 0 && byte != 0xc0 && byte != 0xc1) /* those are not in UTF-8 */
            return pgrad__fail(PGRAD_E_UNSUPPORTED,
                               "model.unk_token: '%.40s' for bytes that the vocabulary lacks "
                               "(0x%02x) is not built",
                               text, (unsigned)byte);
    return PGRAD_OK;
}

/* ---- added tokens ---- */

/* An added token of the vocabulary has the id it has there. */
static pgrad_status check_added_id(const pgrad__json *vocabulary, const char *path,
                                   const pgrad__added_token *token)
{
    int64_t id;
    if (strlen(token->content) == token->length &&
        pgrad__json_integer(pgrad__json_get(vocabulary, token->content), &id) && id != token->id)
        return pgrad__fail(PGRAD_E_FORMAT, "%s.id: expected %lld as in model.vocab, found %d", path,
                           (long long)id, token->id);
    return PGRAD_OK;
}

static pgrad_status read_added_flags(const pgrad__json *item, const char *path,
                                     pgrad__added_token *token)
{
    PGRAD__TRY(read_flag(item, path, "special", 0, &token->special));
    PGRAD__TRY(read_flag(item, path, "single_word", 0, &token->single_word));
    PGRAD__TRY(read_flag(item, path, "lstrip", 0, &token->lstrip));
    PGRAD__TRY(read_flag(item, path, "rstrip", 0, &token->rstrip));
    return read_flag(item, path, "normalized", !token->special, &token->normalized);
}

static pgrad_status read_added(pgrad_tokenizer *t, const pgrad__json *item, const char *path,
                               const pgrad__json *vocabulary)
{
    pgrad__added_token token = {0};
    int64_t id;
    const pgrad__json *content = pgrad__json_get(item, "content"),
                      *number = pgrad__json_get(item, "id");
    const char *text = pgrad__json_string(content, &token.length);
    if (text == NULL)
        return member_of(path, malformed("content", "a string", content));
    if (!pgrad__json_integer(number, &id) || id < 0 || id > INT32_MAX)
        return member_of(path, malformed("id", "an id", number));
    token.id = (pgrad_token)id;
    PGRAD__TRY(read_added_flags(item, path, &token));
    PGRAD__TRY(pgrad__copy_text(t->context, text, token.length, &token.content));
    pgrad_status status = check_added_id(vocabulary, path, &token);
    if (status == PGRAD_OK && token.normalized && t->nfc)
        status = pgrad__nfc(t->context, text, token.length, &token.pattern, &token.pattern_length);
    if (status == PGRAD_OK) {
        status = pgrad__tokenizer_add(t, &token);
        if (status != PGRAD_OK)
            (void)pgrad__fail_in(status, "%s: ", path);
    }
    pgrad__free(t->context, token.pattern);
    pgrad__free(t->context, token.content);
    return status;
}

static pgrad_status read_added_tokens(pgrad_tokenizer *t, const pgrad__json *root,
                                      const pgrad__json *vocabulary)
{
    const pgrad__json *added = pgrad__json_get(root, "added_tokens");
    char path[MAX_JSON_PATH];
    if (added != NULL && pgrad__json_type(added) != PGRAD__JSON_ARRAY)
        return malformed("added_tokens", "an array", added);
    for (size_t i = 0; i < pgrad__json_count(added); i++) {
        (void)snprintf(path, sizeof path, "added_tokens[%zu]", i);
        PGRAD__TRY(read_added(t, pgrad__json_at(added, i), path, vocabulary));
    }
    return pgrad__special_sort(&t->added);
}

/* ---- the pieces around the model ---- */

/* Goes through a Sequence, or the one thing that stands in its place. */
typedef pgrad_status (*piece_fn)(pgrad_tokenizer *t, const pgrad__json *piece, const char *type,
                                 const char *path);

static pgrad_status each_piece(pgrad_tokenizer *t, const pgrad__json *value, const char *path,
                               const char *list, piece_fn fn, int depth)
{
    char inner[MAX_JSON_PATH];
    const char *type;
    if (value == NULL)
        return PGRAD_OK;
    PGRAD__TRY(read_type(value, path, &type));
    if (strcmp(type, "Sequence") != 0)
        return fn(t, value, type, path);
    const pgrad__json *items = pgrad__json_get(value, list);
    if (pgrad__json_type(items) != PGRAD__JSON_ARRAY)
        return member_of(path, malformed(list, "an array", items));
    if (depth > 4)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: sequences nested deeper than %d", path, 4);
    for (size_t i = 0; i < pgrad__json_count(items); i++) {
        (void)snprintf(inner, sizeof inner, "%.50s.%.20s[%zu]", path, list, i);
        PGRAD__TRY(each_piece(t, pgrad__json_at(items, i), inner, list, fn, depth + 1));
    }
    return PGRAD_OK;
}

static pgrad_status normalizer(pgrad_tokenizer *t, const pgrad__json *piece, const char *type,
                               const char *path)
{
    (void)piece;
    if (strcmp(type, "NFC") != 0)
        return not_built(path, type);
    t->nfc = 1;
    return PGRAD_OK;
}

static pgrad_status read_behavior(const pgrad__json *piece, const char *path,
                                  pgrad__split_behavior *out)
{
    static const char *const NAMES[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name;
    PGRAD__TRY(read_string(piece, path, "behavior", &name));
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
    int invert;
    PGRAD__TRY(read_flag(piece, path, "invert", 0, &invert));
    PGRAD__TRY(read_behavior(piece, path, &behavior));
    const char *regex = pgrad__json_string(pgrad__json_get(pattern, "Regex"), &length);
    if (regex != NULL)
        return pgrad__tokenizer_split(t, regex, length, behavior, invert, 0, path);
    const char *string = pgrad__json_string(pgrad__json_get(pattern, "String"), &length);
    if (string == NULL || length == 0)
        return member_of(path, malformed("pattern", "an object with Regex or String", pattern));
    if (strstr(string, "\\E") != NULL || strstr(string, "\\s") != NULL ||
        strstr(string, "\\S") != NULL) /* which regex.c looks for, quoted or not */
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

static pgrad_status byte_level(pgrad_tokenizer *t, const pgrad__json *piece, const char *path)
{
    int prefix, use_regex;
    PGRAD__TRY(read_flag(piece, path, "add_prefix_space", 0, &prefix));
    PGRAD__TRY(read_flag(piece, path, "use_regex", 1, &use_regex));
    if (use_regex)
        return pgrad__tokenizer_split(t, pgrad__pattern_gpt2, strlen(pgrad__pattern_gpt2),
                                      PGRAD__SPLIT_ISOLATED, 0, prefix, path);
    return prefix ? pgrad__tokenizer_split(t, NULL, 0, PGRAD__SPLIT_ISOLATED, 0, 1, path)
                  : PGRAD_OK;
}

static pgrad_status pre_tokenizer(pgrad_tokenizer *t, const pgrad__json *piece, const char *type,
                                  const char *path)
{
    int single;
    if (strcmp(type, "ByteLevel") == 0)
        return byte_level(t, piece, path);
    if (strcmp(type, "Split") == 0)
        return split(t, piece, path);
    if (strcmp(type, "Digits") != 0)
        return not_built(path, type);
    PGRAD__TRY(read_flag(piece, path, "individual_digits", 0, &single));
    return pgrad__tokenizer_split(t, single ? "\\p{N}" : "\\p{N}+", single ? 5 : 6,
                                  PGRAD__SPLIT_ISOLATED, 0, 0, path);
}

static pgrad_status decoder(pgrad_tokenizer *t, const pgrad__json *piece, const char *type,
                            const char *path)
{
    (void)t, (void)piece;
    return strcmp(type, "ByteLevel") == 0 ? PGRAD_OK : not_built(path, type);
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
static pgrad_status template_token(pgrad_tokenizer *t, const pgrad__json *piece, const char *path,
                                   const char *name, int behind)
{
    const pgrad__json *ids =
        pgrad__json_get(pgrad__json_get(pgrad__json_get(piece, "special_tokens"), name), "ids");
    int64_t id;
    if (pgrad__json_count(ids) == 0)
        return pgrad__fail(PGRAD_E_FORMAT, "%s.special_tokens: '%.64s' is missing", path, name);
    for (size_t i = 0; i < pgrad__json_count(ids); i++) {
        const pgrad__json *item = pgrad__json_at(ids, i);
        if (!pgrad__json_integer(item, &id) || id < 0 || id >= t->n_ids || !t->tokens[id].present)
            return member_of(path, malformed("special_tokens", "ids of the vocabulary", item));
        PGRAD__TRY(add_template_id(t, (pgrad_token)id, behind));
    }
    return PGRAD_OK;
}

/* {"SpecialToken": {"id": NAME}}, or {"Sequence": {"id": "A"}}, the text itself. */
static pgrad_status template_item(pgrad_tokenizer *t, const pgrad__json *piece, const char *path,
                                  const pgrad__json *item, int *behind)
{
    const pgrad__json *token = pgrad__json_get(item, "SpecialToken"),
                      *sequence = pgrad__json_get(item, "Sequence");
    const char *name;
    if ((token == NULL) == (sequence == NULL))
        return member_of(path, malformed("single", "SpecialToken or Sequence in each item", item));
    const pgrad__json *id = pgrad__json_get(token != NULL ? token : sequence, "id");
    name = pgrad__json_string(id, NULL);
    if (name == NULL)
        return member_of(path, malformed("single.id", "a string", id));
    if (token != NULL)
        return template_token(t, piece, path, name, *behind);
    if (strcmp(name, "A") != 0 || *behind)
        return member_of(path, malformed("single.Sequence", "\"A\", once", id));
    *behind = 1;
    return PGRAD_OK;
}

static pgrad_status post_processor(pgrad_tokenizer *t, const pgrad__json *piece, const char *type,
                                   const char *path)
{
    if (strcmp(type, "ByteLevel") == 0)
        return PGRAD_OK;
    if (strcmp(type, "TemplateProcessing") != 0)
        return not_built(path, type);
    const pgrad__json *single = pgrad__json_get(piece, "single");
    int behind = 0;
    if (pgrad__json_type(single) != PGRAD__JSON_ARRAY)
        return member_of(path, malformed("single", "an array", single));
    for (size_t i = 0; i < pgrad__json_count(single); i++)
        PGRAD__TRY(template_item(t, piece, path, pgrad__json_at(single, i), &behind));
    return PGRAD_OK;
}

static pgrad_status read_root(pgrad_tokenizer *t, const pgrad__json *root)
{
    const pgrad__json *model = pgrad__json_get(root, "model"),
                      *version = pgrad__json_get(root, "version"),
                      *vocabulary = pgrad__json_get(model, "vocab");
    const char *text = pgrad__json_string(version, NULL);
    if (version != NULL && (text == NULL || strcmp(text, "1.0") != 0))
        return malformed("version", "\"1.0\"", version);
    PGRAD__TRY(check_model(t, model));
    PGRAD__TRY(pgrad__tokenizer_expect(t, pgrad__json_count(vocabulary) +
                                              pgrad__json_count(pgrad__json_get(model, "merges"))));
    PGRAD__TRY(each_piece(t, pgrad__json_get(root, "normalizer"), "normalizer", "normalizers",
                          normalizer, 0));
    PGRAD__TRY(each_piece(t, pgrad__json_get(root, "pre_tokenizer"), "pre_tokenizer",
                          "pretokenizers", pre_tokenizer, 0));
    PGRAD__TRY(each_piece(t, pgrad__json_get(root, "decoder"), "decoder", "decoders", decoder, 0));
    PGRAD__TRY(pgrad__tokenizer_read_vocabulary(t, vocabulary, "model.vocab"));
    PGRAD__TRY(read_added_tokens(t, root, vocabulary));
    pgrad_status status = pgrad__tokenizer_index(t);
    if (status != PGRAD_OK)
        return pgrad__fail_in(status, "model.vocab: ");
    PGRAD__TRY(check_unknown(t, model));
    PGRAD__TRY(read_merges(t, model));
    return each_piece(t, pgrad__json_get(root, "post_processor"), "post_processor", "processors",
                      post_processor, 0);
}

pgrad_status pgrad__tokenizer_read_json(pgrad_tokenizer *t, char *data, size_t size,
                                        const char *origin)
{
    char text[PGRAD__PATH_MAX];
    pgrad__json *root = NULL;
    pgrad__tokenizer_keep(t, "tokenizer.json", data, size);
    PGRAD__TRY(pgrad__json_parse(t->context, data, size, origin, &root));
    pgrad_status status = read_root(t, root);
    pgrad__json_free(root);
    return status == PGRAD_OK ? PGRAD_OK
                              : pgrad__fail_in(status, "%s: ", pgrad__path_text(text, origin));
}
