/* Trains the embedded model from random weights by the library's supervised loss.
 *
 * usage: train TEXT.tsv TOKENIZER_FOLDER OUTPUT_FOLDER
 *
 * examples/embedded/make_text.py makes the text and the tokenizer. The result, in bf16, is what
 * lies in examples/embedded/model. */
#include "../common.h"

#include <string.h>

enum { LINES_PER_STEP = 64, STEPS = 1500, MAX_TOKENS = 32 };

/* The next line of the file, from its beginning again behind the last. */
static void read_line(FILE *text, char *line, int size)
{
    if (fgets(line, size, text) != NULL)
        return;
    rewind(text);
    if (fgets(line, size, text) == NULL) {
        fprintf(stderr, "the text is empty, or cannot be read\n");
        exit(1);
    }
}

/* A line as a prompt and its completion, the end token behind it. */
static void add_line(pgrad_rollout *rollout, pgrad_tokenizer *tokenizer, const char *line)
{
    pgrad_token prompt[MAX_TOKENS], completion[MAX_TOKENS];
    size_t n_prompt, n;
    uint32_t group;
    const char *tab = strchr(line, '\t');
    if (tab == NULL) {
        fprintf(stderr, "expected a prompt, a tab and a completion, found '%s'\n", line);
        exit(1);
    }
    CHECK(pgrad_tokenizer_encode(tokenizer, line, (size_t)(tab - line), 0, prompt, MAX_TOKENS,
                                 &n_prompt));
    CHECK(pgrad_tokenizer_encode(tokenizer, tab + 1, strcspn(tab + 1, "\n"), 0, completion,
                                 MAX_TOKENS - 1, &n));
    completion[n++] = pgrad_tokenizer_special(tokenizer, PGRAD_TOKEN_EOS);
    CHECK(pgrad_rollout_add_prompt(rollout, prompt, n_prompt, NULL, &group));
    CHECK(pgrad_rollout_add_sequence(rollout, group, completion, n, NULL));
}

static pgrad_model *create_model(pgrad_context *context, pgrad_tokenizer *tokenizer)
{
    char config[512];
    pgrad_model *model;
    snprintf(config, sizeof config,
             "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"vocab_size\":%u,"
             "\"hidden_size\":128,\"intermediate_size\":384,\"num_hidden_layers\":3,"
             "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":128,"
             "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"hidden_act\":\"silu\","
             "\"tie_word_embeddings\":true,\"eos_token_id\":%d}",
             pgrad_tokenizer_count(tokenizer), pgrad_tokenizer_special(tokenizer, PGRAD_TOKEN_EOS));
    CHECK(pgrad_model_create(context, config, 1, NULL, &model));
    return model;
}

int main(int argc, char **argv)
{
    pgrad_context *context;
    pgrad_tokenizer *tokenizer;
    pgrad_rollout *rollout;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    char line[256];
    if (argc != 4) {
        fprintf(stderr, "usage: %s TEXT.tsv TOKENIZER_FOLDER OUTPUT_FOLDER\n", argv[0]);
        return 2;
    }
    FILE *text = fopen(argv[1], "r");
    if (text == NULL) {
        perror(argv[1]);
        return 1;
    }
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_tokenizer_load(context, argv[2], &tokenizer));
    pgrad_model *model = create_model(context, tokenizer);

    pgrad_rollout_params rollout_params;
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = 1;
    rollout_params.max_prompts = LINES_PER_STEP;
    rollout_params.max_prompt_tokens = rollout_params.max_new_tokens = MAX_TOKENS;
    CHECK(pgrad_rollout_create(model, tokenizer, &rollout_params, &rollout));
    pgrad_objective_params objective_params;
    pgrad_objective_params_init(&objective_params, sizeof objective_params);
    objective_params.loss = PGRAD_LOSS_SUPERVISED;
    CHECK(pgrad_objective_create(model, &objective_params, &objective));
    pgrad_optimizer_params optimizer_params;
    pgrad_optimizer_params_init(&optimizer_params, sizeof optimizer_params);
    optimizer_params.learning_rate = 2e-3;
    optimizer_params.schedule = PGRAD_SCHEDULE_COSINE;
    optimizer_params.warmup_steps = 50;
    optimizer_params.total_steps = STEPS;
    CHECK(pgrad_optimizer_create(model, &optimizer_params, &optimizer));

    for (int step = 1; step <= STEPS; step++) {
        pgrad_step_report report;
        pgrad_step_report_init(&report, sizeof report);
        pgrad_rollout_clear(rollout);
        for (int i = 0; i < LINES_PER_STEP; i++) {
            read_line(text, line, sizeof line);
            add_line(rollout, tokenizer, line);
        }
        CHECK(pgrad_model_zero_grad(model));
        CHECK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report));
        CHECK(pgrad_optimizer_step(optimizer, &report));
        if (step % 100 == 0)
            printf("step %4d of %d, loss %.4f nats per token\n", step, STEPS, report.loss);
    }
    fclose(text);

    pgrad_save_params save;
    pgrad_save_params_init(&save, sizeof save);
    save.dtype = PGRAD_DTYPE_BF16;
    save.tokenizer = tokenizer;
    CHECK(pgrad_model_save(model, argv[3], &save));
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
