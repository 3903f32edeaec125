/* Runs a model over prompts for compare_smollm2.py. usage: dump_logits MODEL PROMPTS OUT [FOLDER]
 *
 * PROMPTS has one prompt a line, as token ids. OUT gets for each of them, in the machine's byte
 * order: u32 n_tokens, u32 n_vocab, f32 logits [n_tokens, n_vocab], and i32 [32], the tokens that
 * greedy decoding through the cache adds. Seconds of loading go to standard output. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <policygrad/status.h>

#include "base/os.h"
#include "model/model.h"

#define N_NEW 32
#define MAX_PROMPT 512

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, pgrad_error_message());
    return 1;
}

static pgrad_token highest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (logits[i] > logits[best])
            best = i;
    }
    return (pgrad_token)best;
}

static int decode(pgrad_model *model, const pgrad_token *prompt, size_t n, float *logits,
                  pgrad_token out[N_NEW])
{
    pgrad__pass *pass = NULL;
    pgrad__kv_cache *cache = NULL;
    uint32_t n_pages = (uint32_t)((n + N_NEW) / PGRAD__KEY_TILE + 1), *pages = calloc(n_pages, 4);
    int status = pages == NULL || pgrad__pass_create(model, &pass) ||
                 pgrad__kv_cache_create(model, n_pages, PGRAD_KV_F32, &cache);
    for (uint32_t i = 0; i < n_pages && !status; i++)
        status = pgrad__kv_cache_take(cache, &pages[i]) != PGRAD_OK;
    pgrad__decode_span span = {
        .tokens = prompt, .n_tokens = (uint32_t)n, .pages = pages, .n_logits = 1};
    for (size_t i = 0; i < N_NEW && !status; i++) {
        status = pgrad__model_decode(model, pass, cache, &span, 1, logits) != PGRAD_OK;
        out[i] = highest(logits, model->config.n_vocab);
        span.first_position += span.n_tokens;
        span.n_tokens = 1;
        span.tokens = &out[i];
    }
    pgrad__kv_cache_free(cache);
    pgrad__pass_free(pass);
    free(pages);
    return status;
}

static int run_prompt(pgrad_model *model, const pgrad_token *prompt, size_t n, FILE *out)
{
    uint32_t head[2] = {(uint32_t)n, model->config.n_vocab};
    size_t n_logits = n * head[1];
    pgrad_token added[N_NEW];
    float *logits = malloc(n_logits * sizeof *logits);
    if (logits == NULL ||
        pgrad_model_logits(model, prompt, n, PGRAD_LOGITS_ALL, logits, n_logits) != PGRAD_OK) {
        free(logits);
        return failed("logits");
    }
    int bad = fwrite(head, sizeof head, 1, out) != 1 ||
              fwrite(logits, sizeof *logits, n_logits, out) != n_logits;
    if (!bad && decode(model, prompt, n, logits, added))
        bad = failed("decode");
    if (!bad)
        bad = fwrite(added, sizeof added, 1, out) != 1;
    free(logits);
    return bad;
}

static int save(pgrad_model *model, const char *path)
{
    pgrad__folder folder = {0};
    pgrad_save_params params;
    pgrad_save_params_init(&params, sizeof params);
    if (pgrad__folder_open(model->context, path, &folder) != PGRAD_OK)
        return failed("save");
    if (pgrad__model_write(model, &params, &folder) == PGRAD_OK &&
        pgrad__folder_commit(&folder) == PGRAD_OK)
        return 0;
    pgrad__folder_abort(&folder);
    return failed("save");
}

int main(int argc, char **argv)
{
    pgrad_context *context = NULL;
    pgrad_model *model = NULL;
    char line[8192];
    if (argc != 4 && argc != 5) {
        fprintf(stderr, "usage: dump_logits MODEL PROMPTS OUT [FOLDER]\n");
        return 2;
    }
    pgrad_model_params params;
    pgrad_model_params_init(&params, sizeof params);
    params.frozen = 1;
    if (pgrad_context_create(NULL, &context) != PGRAD_OK)
        return failed("context");
    double start = pgrad__os_seconds();
    if (pgrad_model_load(context, argv[1], &params, &model) != PGRAD_OK)
        return failed("load");
    printf("loaded in %.2f s\n", pgrad__os_seconds() - start);
    FILE *prompts = fopen(argv[2], "r"), *out = fopen(argv[3], "wb");
    int bad = prompts == NULL || out == NULL;
    while (!bad && fgets(line, sizeof line, prompts) != NULL) {
        pgrad_token prompt[MAX_PROMPT];
        size_t n = 0;
        for (char *at = line, *end; n < MAX_PROMPT; at = end) {
            long id = strtol(at, &end, 10);
            if (end == at)
                break;
            prompt[n++] = (pgrad_token)id;
        }
        bad = n == 0 || run_prompt(model, prompt, n, out);
    }
    if (prompts != NULL)
        fclose(prompts);
    if (out != NULL && fclose(out) != 0)
        bad = 1;
    if (!bad && argc == 5)
        bad = save(model, argv[4]);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return bad;
}
