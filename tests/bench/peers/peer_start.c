/* The first token as a C host gets it: peer_start MODEL ID... prints the token after these ids. */
#include <policygrad.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        if ((call) != PGRAD_OK) {                                                                  \
            fprintf(stderr, "%s\n", pgrad_error_message());                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

int main(int argc, char **argv)
{
    pgrad_context *context = NULL;
    pgrad_model *model = NULL;
    pgrad_sampler *sampler = NULL;
    pgrad_rollout *rollout = NULL;
    pgrad_sampler_params sampler_params;
    pgrad_rollout_params rollout_params;
    pgrad_token ids[1024];
    size_t n = 0, n_tokens;
    for (int i = 2; i < argc && n < sizeof ids / sizeof ids[0]; i++)
        ids[n++] = (pgrad_token)strtol(argv[i], NULL, 10);
    if (n == 0) {
        fprintf(stderr, "usage: peer_start MODEL ID...\n");
        return 2;
    }
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, argv[1], NULL, &model));
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.temperature = 0.0;
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = 1;
    rollout_params.max_prompts = 1;
    rollout_params.max_prompt_tokens = (uint32_t)n;
    rollout_params.max_new_tokens = 1;
    CHECK(pgrad_rollout_create(model, NULL, &rollout_params, &rollout));
    CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
    CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
    printf("{\"token\": %d}\n", (int)pgrad_rollout_tokens(rollout, 0, &n_tokens)[0]);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
