/* Storing narrow: the same model with its matrices in f32, bf16 and 8 bits, how much memory each
 * takes, and how far the log-probability of a sentence moves. All is computed in f32 from the
 * widened weights.
 *
 * usage: 11_narrow [MODEL [SENTENCE]] */
#include "common.h"

#include <string.h>

static const char *const STORAGE[] = {"f32", "bf16", "q8_0"};

/* The log-probability of a sentence behind its first token. */
static double logprob(pgrad_model *model, pgrad_tokenizer *tokenizer, const char *sentence)
{
    pgrad_rollout *rollout;
    pgrad_token ids[256];
    size_t n;
    double sum = 0.0;
    CHECK(pgrad_tokenizer_encode(tokenizer, sentence, strlen(sentence), PGRAD_ENCODE_ADD, ids, 256,
                                 &n));
    CHECK(pgrad_rollout_create(model, tokenizer, NULL, &rollout));
    CHECK(pgrad_rollout_add_prompt(rollout, ids, 1, NULL, NULL));
    CHECK(pgrad_rollout_add_sequence(rollout, 0, ids + 1, n - 1, NULL));
    CHECK(pgrad_rollout_score(rollout, model, PGRAD_CURRENT));
    const float *each = pgrad_rollout_array(rollout, PGRAD_CURRENT, 0, &n);
    for (size_t t = 0; t < n; t++)
        sum += (double)each[t];
    pgrad_rollout_free(rollout);
    return sum;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL,
               *sentence = argc > 2 ? argv[2] : "paint it blue: the red fox likes the red lamp.";
    pgrad_context *context;
    pgrad_tokenizer *tokenizer;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    for (uint32_t storage = PGRAD_STORAGE_F32; storage <= PGRAD_STORAGE_Q8_0; storage++) {
        pgrad_model_params params;
        pgrad_model_info info = {.struct_size = sizeof info};
        pgrad_model *model;
        pgrad_model_params_init(&params, sizeof params);
        params.storage = storage;
        params.frozen = storage == PGRAD_STORAGE_Q8_0; /* 8 bits cannot be trained */
        CHECK(pgrad_model_load(context, path, &params, &model));
        CHECK(pgrad_model_get_info(model, &info));
        printf("%-4s  %8llu bytes of weights  log-probability %9.4f\n", STORAGE[storage],
               (unsigned long long)info.weight_bytes, logprob(model, tokenizer, sentence));
        pgrad_model_free(model);
    }
    pgrad_tokenizer_free(tokenizer);
    pgrad_context_free(context);
    return 0;
}
