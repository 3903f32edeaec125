/* Samples completions of a prompt with sampler options of one's own, and prints each with why it
 * ended. The same seed gives the same completions on every machine, with any number of threads.
 *
 * usage: 03_sample [MODEL [PROMPT [SEED]]] */
#include "common.h"

#include <string.h>

enum { COMPLETIONS = 8 };

static const char *const FINISH[] = {"cancelled", "end token", "stop string", "length"};

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL,
               *prompt = argc > 2 ? argv[2] : "paint it blue:";
    const char *const stop_strings[] = {" in the"};
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_rollout_params params;
    pgrad_sampler_params sampler_params;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_token ids[256];
    pgrad_message message = {"user", prompt, strlen(prompt)};
    uint32_t style = PGRAD_CHAT_GENERATE;
    size_t n;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    if (pgrad_tokenizer_find(tokenizer, "<|im_start|>", 12) < 0)
        style = PGRAD_CHAT_PLAIN; /* no chat model: it goes on with the text */

    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = COMPLETIONS;
    params.max_prompts = 1;
    params.max_new_tokens = 32;
    CHECK(pgrad_rollout_create(model, tokenizer, &params, &rollout));

    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.temperature = 0.8;
    sampler_params.top_p = 0.95;
    sampler_params.min_new_tokens = 4;
    sampler_params.stop_strings = stop_strings;
    sampler_params.n_stop_strings = 1;
    sampler_params.seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));

    CHECK(pgrad_chat_format(tokenizer, &message, 1, style, ids, 256, &n));
    CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
    CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        pgrad_sequence_info info = {.struct_size = sizeof info};
        CHECK(pgrad_rollout_sequence(rollout, i, &info));
        printf("%-11s %2u tokens:%s\n", FINISH[info.finish], info.n_tokens,
               pgrad_rollout_text(rollout, i, NULL));
    }

    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
