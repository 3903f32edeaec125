/* Samples completions of a prompt, scores them with a reward of one's own, and prints them best
 * first.
 *
 * usage: 03_sample [MODEL [PROMPT]] */
#include "common.h"

#include <string.h>

enum { COMPLETIONS = 8 };

/* Different letters in the text: a reward for variety. */
static int32_t variety(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                       pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) {
        int seen[256] = {0}, different = 0;
        const char *text = pgrad_rollout_text(rollout, first + i, NULL);
        for (; *text != '\0'; text++)
            different += seen[(unsigned char)*text]++ == 0;
        pgrad_scores_data(scores)[i] = (float)different;
    }
    return (int32_t)count;
}

static void print_best_first(const pgrad_rollout *rollout)
{
    int shown[COMPLETIONS] = {0};
    for (uint32_t rank = 0; rank < COMPLETIONS; rank++) {
        pgrad_sequence_info best = {.struct_size = sizeof best}, info = best;
        uint32_t index = 0;
        best.reward = -1.0;
        for (uint32_t i = 0; i < COMPLETIONS; i++) {
            CHECK(pgrad_rollout_sequence(rollout, i, &info));
            if (!shown[i] && info.reward > best.reward) {
                best = info;
                index = i;
            }
        }
        shown[index] = 1;
        printf("%5.1f %s\n", best.reward, pgrad_rollout_text(rollout, index, NULL));
    }
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL,
               *prompt = argc > 2 ? argv[2] : "paint it blue:";
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_rollout_params params;
    pgrad_sampler_params sampler_params;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_reward *reward;
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
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));
    CHECK(pgrad_reward_create(context, "variety", variety, NULL, NULL, &reward));
    CHECK(pgrad_chat_format(tokenizer, &message, 1, style, ids, 256, &n));
    CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
    CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
    CHECK(pgrad_reward_apply(reward, rollout));
    print_best_first(rollout);
    pgrad_reward_free(reward);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
