/* Loads a model and its tokenizer and looks at them: sizes, tensors, the ids of a text, and the
 * tokens that the model thinks most likely behind it.
 *
 * usage: 01_load [MODEL [TEXT]] */
#include "common.h"

#include <string.h>

enum { MAX_IDS = 256, MAX_SHOWN = 6 };

static void show_token(pgrad_tokenizer *tokenizer, pgrad_token id, float logit)
{
    char text[64];
    size_t length;
    CHECK(pgrad_tokenizer_decode(tokenizer, &id, 1, 0, text, sizeof text, &length));
    printf("  %6d  %8.3f  '%s'\n", id, (double)logit, text);
}

/* Shows the largest logits of a row, and takes each out of it. */
static void show_best(pgrad_tokenizer *tokenizer, float *logits, uint32_t n_vocab)
{
    for (int rank = 0; rank < 5; rank++) {
        uint32_t best = 0;
        for (uint32_t id = 1; id < n_vocab; id++)
            best = logits[id] > logits[best] ? id : best;
        show_token(tokenizer, (pgrad_token)best, logits[best]);
        logits[best] = -1e30f;
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL,
               *text = argc > 2 ? argv[2] : "paint it blue: the blue";
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_model_info info = {.struct_size = sizeof info};
    pgrad_token ids[MAX_IDS];
    size_t n;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));

    CHECK(pgrad_model_get_info(model, &info));
    printf("%s: %u layers, %u heads, %llu parameters, %u tokens, context %u\n", info.architecture,
           info.n_layers, info.n_heads, (unsigned long long)info.n_parameters, info.n_vocab,
           info.n_context);
    for (uint32_t i = 0; i < info.n_tensors && i < MAX_SHOWN; i++) {
        uint32_t n_dims;
        uint64_t dims[4];
        const char *name = pgrad_model_tensor_name(model, i, &n_dims, dims);
        printf("  %-45s %llu x %llu\n", name, (unsigned long long)dims[0],
               n_dims > 1 ? (unsigned long long)dims[1] : 1);
    }

    CHECK(
        pgrad_tokenizer_encode(tokenizer, text, strlen(text), PGRAD_ENCODE_ADD, ids, MAX_IDS, &n));
    printf("'%s' is %zu tokens; what comes next:\n", text, n);
    float *logits = malloc(info.n_vocab * sizeof *logits);
    if (logits == NULL)
        return 1;
    CHECK(pgrad_model_logits(model, ids, n, PGRAD_LOGITS_LAST, logits, info.n_vocab));
    show_best(tokenizer, logits, info.n_vocab);

    free(logits);
    pgrad_tokenizer_free(tokenizer); /* in any order: children keep their parents */
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
