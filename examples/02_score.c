/* Scores text: the log-probability and perplexity of each line of standard input under a model.
 *
 * usage: 02_score [MODEL] < lines */
#include "common.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TOKENS = 512 };

/* The first token is the prompt, the others are scored. */
static void score_line(pgrad_model *model, pgrad_tokenizer *tokenizer, pgrad_rollout *rollout,
                       const char *line)
{
    pgrad_token ids[MAX_TOKENS];
    size_t n;
    uint32_t group;
    CHECK(pgrad_tokenizer_encode(tokenizer, line, strlen(line), PGRAD_ENCODE_ADD, ids, MAX_TOKENS,
                                 &n));
    if (n < 2)
        return;
    pgrad_rollout_clear(rollout);
    CHECK(pgrad_rollout_add_prompt(rollout, ids, 1, NULL, &group));
    CHECK(pgrad_rollout_add_sequence(rollout, group, ids + 1, n - 1, NULL));
    CHECK(pgrad_rollout_score(rollout, model, PGRAD_CURRENT));
    const float *logprob = pgrad_rollout_array(rollout, PGRAD_CURRENT, 0, &n);
    double sum = 0.0;
    for (size_t t = 0; t < n; t++)
        sum += (double)logprob[t];
    printf("logprob %9.3f  perplexity %9.2f  %s\n", sum, exp(-sum / (double)n), line);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_model_params model_params;
    pgrad_model_info info = {.struct_size = sizeof info};
    pgrad_rollout_params params;
    pgrad_rollout *rollout;
    char line[2048];
    pgrad_model_params_init(&model_params, sizeof model_params);
    model_params.frozen = 1; /* no gradients: half the memory */
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, &model_params, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    CHECK(pgrad_model_get_info(model, &info));
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = params.max_prompts = params.max_prompt_tokens = 1;
    params.max_new_tokens = info.n_context < MAX_TOKENS ? info.n_context : MAX_TOKENS;
    CHECK(pgrad_rollout_create(model, tokenizer, &params, &rollout));
    if (isatty(STDIN_FILENO))
        fprintf(stderr, "reads lines to score from standard input; Ctrl-D ends them\n");
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        score_line(model, tokenizer, rollout, line);
    }
    pgrad_rollout_free(rollout);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
