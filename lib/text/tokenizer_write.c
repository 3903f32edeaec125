/* The files of a tokenizer: those it came from, or ones made from GGUF metadata that give the same
 * ids. */
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/strbuf.h"
#include "io/json.h"
#include "text/tokenizer_gguf.h"

pgrad_status pgrad__tokenizer_write(pgrad_tokenizer *tokenizer, pgrad__folder *folder)
{
    for (uint32_t i = 0; i < tokenizer->n_files; i++)
        PGRAD__TRY(pgrad__folder_put(folder, tokenizer->files[i].name, tokenizer->files[i].data,
                                     tokenizer->files[i].size));
    return PGRAD_OK;
}

/* Every token, the added ones too: transformers gives those that are not in the vocabulary the next
 * free ids. */
static void put_vocabulary(pgrad__strbuf *out, const pgrad_tokenizer *t, const pgrad__gguf *gguf)
{
    int first = 1;
    pgrad__strbuf_text(out, "\"vocab\":{");
    for (uint32_t id = 0; id < t->n_ids; id++) {
        const char *text;
        size_t length;
        if (!t->tokens[id].present ||
            pgrad__gguf_array_string(gguf, "tokenizer.ggml.tokens", id, &text, &length) != PGRAD_OK)
            continue;
        pgrad__strbuf_text(out, first ? "" : ",");
        pgrad__json_quote(out, text, length);
        pgrad__strbuf_format(out, ":%u", id);
        first = 0;
    }
    pgrad__strbuf_text(out, "}");
}

static void put_merges(pgrad__strbuf *out, const pgrad__gguf *gguf)
{
    size_t n = 0, length;
    const char *text;
    pgrad__strbuf_text(out, "\"merges\":[");
    (void)pgrad__gguf_array_count(gguf, "tokenizer.ggml.merges", &n);
    for (size_t i = 0; i < n; i++) {
        (void)pgrad__gguf_array_string(gguf, "tokenizer.ggml.merges", i, &text, &length);
        const char *space = memchr(text + 1, ' ', length - 1);
        pgrad__strbuf_text(out, i == 0 ? "[" : ",[");
        pgrad__json_quote(out, text, (size_t)(space - text));
        pgrad__strbuf_text(out, ",");
        pgrad__json_quote(out, space + 1, length - (size_t)(space + 1 - text));
        pgrad__strbuf_text(out, "]");
    }
    pgrad__strbuf_text(out, "]");
}

static void put_name(pgrad__strbuf *out, const pgrad_tokenizer *t, pgrad_token id)
{
    pgrad__json_quote(out, t->bytes + t->tokens[id].offset, t->tokens[id].length);
}

static void put_added(pgrad__strbuf *out, const pgrad_tokenizer *t)
{
    const char *before = "";
    pgrad__strbuf_text(out, "\"added_tokens\":[");
    for (uint32_t id = 0; id < t->n_ids; id++) {
        if (!t->tokens[id].added)
            continue;
        pgrad__strbuf_format(out, "%s{\"id\":%u,\"content\":", before, id);
        put_name(out, t, (pgrad_token)id);
        pgrad__strbuf_format(out,
                             ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
                             "\"normalized\":false,\"special\":%s}",
                             t->tokens[id].special ? "true" : "false");
        before = ",";
    }
    pgrad__strbuf_text(out, "]");
}

static void put_pre_tokenizer(pgrad__strbuf *out, const pgrad__gguf_pre *pre)
{
    const int gpt2 = pre->pattern == pgrad__pattern_gpt2;
    pgrad__strbuf_text(out, "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[");
    if (pre->digits)
        pgrad__strbuf_text(out, "{\"type\":\"Digits\",\"individual_digits\":true},");
    if (!gpt2) {
        pgrad__strbuf_text(out, "{\"type\":\"Split\",\"pattern\":{\"Regex\":");
        pgrad__json_quote(out, pre->pattern, strlen(pre->pattern));
        pgrad__strbuf_text(out, "},\"behavior\":\"Isolated\",\"invert\":false},");
    }
    pgrad__strbuf_format(out,
                         "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                         "\"use_regex\":%s}]}",
                         gpt2 ? "true" : "false");
}

/* The template that adds BOS and EOS; nothing when none is added. */
static void put_post_processor(pgrad__strbuf *out, const pgrad_tokenizer *t)
{
    if (t->n_prefix + t->n_suffix == 0) {
        pgrad__strbuf_text(out, "\"post_processor\":null");
        return;
    }
    pgrad__strbuf_text(out, "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[");
    for (uint32_t i = 0; i < t->n_prefix; i++) {
        pgrad__strbuf_text(out, "{\"SpecialToken\":{\"id\":");
        put_name(out, t, t->prefix_ids[i]);
        pgrad__strbuf_text(out, ",\"type_id\":0}},");
    }
    pgrad__strbuf_text(out, "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}");
    for (uint32_t i = 0; i < t->n_suffix; i++) {
        pgrad__strbuf_text(out, ",{\"SpecialToken\":{\"id\":");
        put_name(out, t, t->suffix_ids[i]);
        pgrad__strbuf_text(out, ",\"type_id\":0}}");
    }
    pgrad__strbuf_text(out, "],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
                            "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],\"special_tokens\":{");
    for (uint32_t i = 0; i < t->n_prefix + t->n_suffix; i++) {
        pgrad_token id = i < t->n_prefix ? t->prefix_ids[i] : t->suffix_ids[i - t->n_prefix];
        if (i > 0 && t->n_prefix > 0 && id == t->prefix_ids[0])
            continue; /* the same token before and behind */
        pgrad__strbuf_text(out, i == 0 ? "" : ",");
        put_name(out, t, id);
        pgrad__strbuf_text(out, ":{\"id\":");
        put_name(out, t, id);
        pgrad__strbuf_format(out, ",\"ids\":[%d],\"tokens\":[", id);
        put_name(out, t, id);
        pgrad__strbuf_text(out, "]}");
    }
    pgrad__strbuf_text(out, "}}");
}

static void make_tokenizer_json(pgrad__strbuf *out, const pgrad_tokenizer *t,
                                const pgrad__gguf *gguf, const pgrad__gguf_pre *pre)
{
    pgrad__strbuf_text(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,");
    put_added(out, t);
    pgrad__strbuf_text(out,
                       t->nfc ? ",\"normalizer\":{\"type\":\"NFC\"}," : ",\"normalizer\":null,");
    put_pre_tokenizer(out, pre);
    pgrad__strbuf_text(out, ",");
    put_post_processor(out, t);
    pgrad__strbuf_format(out,
                         ",\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                         "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\","
                         "\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
                         "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
                         "\"ignore_merges\":%s,",
                         pre->ignore_merges ? "true" : "false");
    put_vocabulary(out, t, gguf);
    pgrad__strbuf_text(out, ",");
    put_merges(out, gguf);
    pgrad__strbuf_text(out, "}}\n");
}

static void make_config_json(pgrad__strbuf *out, const pgrad_tokenizer *t)
{
    static const char *const KEYS[] = {"bos_token", "eos_token", "pad_token", "unk_token"};
    pgrad__strbuf_text(out, "{\n  \"clean_up_tokenization_spaces\": false,\n");
    for (int i = 0; i < 4; i++)
        if (t->roles[i] >= 0) {
            pgrad__strbuf_format(out, "  \"%s\": ", KEYS[i]);
            put_name(out, t, t->roles[i]);
            pgrad__strbuf_text(out, ",\n");
        }
    pgrad__strbuf_text(out, "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
}

/* Hands a finished text over to the tokenizer. */
static pgrad_status keep(pgrad_tokenizer *t, const char *name, pgrad__strbuf *text)
{
    if (text->status != PGRAD_OK) {
        pgrad_status status = text->status;
        pgrad__strbuf_free(text);
        return status;
    }
    pgrad__tokenizer_keep(t, name, text->data, text->length);
    *text = (pgrad__strbuf){.context = t->context};
    return PGRAD_OK;
}

pgrad_status pgrad__tokenizer_make_files(pgrad_tokenizer *t, const pgrad__gguf *gguf,
                                         const pgrad__gguf_pre *pre)
{
    pgrad__strbuf text = {.context = t->context};
    const char *chat;
    size_t length;
    if (pre != NULL) {
        make_tokenizer_json(&text, t, gguf, pre);
        PGRAD__TRY(keep(t, "tokenizer.json", &text));
    }
    make_config_json(&text, t);
    PGRAD__TRY(keep(t, "tokenizer_config.json", &text));
    if (!pgrad__gguf_has(gguf, "tokenizer.chat_template"))
        return PGRAD_OK;
    PGRAD__TRY(pgrad__gguf_string(gguf, "tokenizer.chat_template", &chat, &length));
    pgrad__strbuf_append(&text, chat, length);
    return keep(t, "chat_template.jinja", &text);
}
