#include "rl/sampler.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/params_check.h"

/* ---- copying the host's arrays ---- */

static pgrad_status copy_array(pgrad_context *context, const void *from, size_t n, size_t size,
                               const char *name, void *to)
{
    void *copy = NULL;
    if (n > 0 && from == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "sampler.%s: %zu announced, NULL given", name, n);
    if (n > 0) {
        PGRAD__TRY(pgrad__alloc(context, n, size, &copy));
        memcpy(copy, from, n * size);
    }
    memcpy(to, &copy, sizeof copy);
    return PGRAD_OK;
}

static pgrad_status check_tokens(const pgrad_token *tokens, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0)
            return pgrad__fail(PGRAD_E_INVALID,
                               "sampler.%s[%zu]: expected a token id >= 0, found %d", name, i,
                               tokens[i]);
    return PGRAD_OK;
}

static pgrad_status copy_strings(pgrad_sampler *sampler, const char *const *strings, size_t n)
{
    char **copies = NULL;
    if (n == 0)
        return PGRAD_OK;
    if (strings == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "sampler.stop_strings: %zu announced, NULL given", n);
    PGRAD__TRY(pgrad__calloc(sampler->context, n, sizeof *copies, &copies));
    sampler->params.stop_strings = (const char *const *)copies;
    sampler->params.n_stop_strings = n;
    for (size_t i = 0; i < n; i++) {
        size_t length = strings[i] == NULL ? 0 : strlen(strings[i]);
        if (length == 0)
            return pgrad__fail(PGRAD_E_INVALID,
                               "sampler.stop_strings[%zu]: expected text, found %s", i,
                               strings[i] == NULL ? "NULL" : "an empty one");
        PGRAD__TRY(pgrad__copy_text(sampler->context, strings[i], length, &copies[i]));
    }
    return pgrad__stop_strings_build(&sampler->stops, sampler->context,
                                     sampler->params.stop_strings, n);
}

static pgrad_status copy_arrays(pgrad_sampler *sampler, const pgrad_sampler_params *from)
{
    pgrad_sampler_params *to = &sampler->params;
    pgrad_context *context = sampler->context;
    PGRAD__TRY(copy_array(context, from->stop_tokens, from->n_stop_tokens, sizeof(pgrad_token),
                          "stop_tokens", &to->stop_tokens));
    PGRAD__TRY(copy_array(context, from->forbidden_tokens, from->n_forbidden_tokens,
                          sizeof(pgrad_token), "forbidden_tokens", &to->forbidden_tokens));
    PGRAD__TRY(copy_array(context, from->bias_tokens, from->n_bias_tokens, sizeof(pgrad_token),
                          "bias_tokens", &to->bias_tokens));
    PGRAD__TRY(copy_array(context, from->logit_bias, from->n_bias_tokens, sizeof(float),
                          "logit_bias", &to->logit_bias));
    PGRAD__TRY(check_tokens(from->stop_tokens, from->n_stop_tokens, "stop_tokens"));
    PGRAD__TRY(check_tokens(from->forbidden_tokens, from->n_forbidden_tokens, "forbidden_tokens"));
    PGRAD__TRY(check_tokens(from->bias_tokens, from->n_bias_tokens, "bias_tokens"));
    for (size_t i = 0; i < from->n_bias_tokens; i++)
        if (isnan(from->logit_bias[i]) || from->logit_bias[i] == INFINITY)
            return pgrad__fail(PGRAD_E_INVALID,
                               "sampler.logit_bias[%zu]: expected a number, found %g", i,
                               (double)from->logit_bias[i]);
    return copy_strings(sampler, from->stop_strings, from->n_stop_strings);
}

/* The copies are ours: the const is for the readers. */
static void free_copy(pgrad_context *context, const void *copy)
{
    void *block;
    memcpy(&block, &copy, sizeof block);
    pgrad__free(context, block);
}

/* ---- life ---- */

/* What the table of fields cannot say. */
static pgrad_status check_params(const pgrad_sampler_params *params)
{
    if (params->temperature > 0.0 && !isfinite((float)(1.0 / params->temperature)))
        return pgrad__fail(PGRAD_E_INVALID,
                           "sampler.temperature: %g is too small to divide by; 0 is greedy",
                           params->temperature);
    if (params->max_new_tokens > 0 && params->min_new_tokens > params->max_new_tokens)
        return pgrad__fail(PGRAD_E_INVALID,
                           "sampler.min_new_tokens: expected at most max_new_tokens = %u, found %u",
                           params->max_new_tokens, params->min_new_tokens);
    return PGRAD_OK;
}

pgrad_status pgrad_sampler_create(pgrad_context *context, const pgrad_sampler_params *params,
                                  pgrad_sampler **out)
{
    pgrad__scope scope;
    pgrad_sampler_params read;
    pgrad_sampler *sampler = NULL;
    if (out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "sampler_create: out is NULL");
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status = pgrad__params_read("sampler", params, &read);
    if (status == PGRAD_OK)
        status = check_params(&read);
    if (status == PGRAD_OK)
        status = pgrad__calloc(context, 1, sizeof *sampler, &sampler);
    if (status == PGRAD_OK) {
        pgrad__context_retain(context);
        sampler->context = context;
        atomic_init(&sampler->references, 1);
        sampler->params = read;
        sampler->params.stop_tokens = sampler->params.forbidden_tokens = NULL;
        sampler->params.bias_tokens = NULL;
        sampler->params.logit_bias = NULL;
        sampler->params.stop_strings = NULL;
        sampler->params.n_stop_strings = 0;
        status = copy_arrays(sampler, &read);
        if (status == PGRAD_OK)
            *out = sampler;
        else
            pgrad_sampler_free(sampler);
    }
    pgrad__leave(&scope);
    return status;
}

void pgrad_sampler_free(pgrad_sampler *sampler)
{
    if (sampler == NULL || atomic_fetch_sub(&sampler->references, 1) != 1)
        return;
    pgrad_context *context = sampler->context;
    const pgrad_sampler_params *params = &sampler->params;
    for (size_t i = 0; i < params->n_stop_strings; i++)
        free_copy(context, params->stop_strings[i]);
    free_copy(context, params->stop_strings);
    pgrad__stop_strings_free(&sampler->stops, context);
    free_copy(context, params->stop_tokens);
    free_copy(context, params->forbidden_tokens);
    free_copy(context, params->bias_tokens);
    free_copy(context, params->logit_bias);
    if (sampler->pick_scratch != NULL)
        pgrad__draw_scratch_free(sampler->pick_scratch);
    pgrad__free(context, sampler->pick_scratch);
    pgrad__free(context, sampler);
    pgrad_context_free(context);
}

/* ---- use ---- */

pgrad_status pgrad__sampler_check(const pgrad_sampler *sampler, uint32_t n_vocab)
{
    const pgrad_sampler_params *params = &sampler->params;
    const struct {
        const char *name;
        const pgrad_token *tokens;
        size_t n;
    } lists[] = {{"stop_tokens", params->stop_tokens, params->n_stop_tokens},
                 {"forbidden_tokens", params->forbidden_tokens, params->n_forbidden_tokens},
                 {"bias_tokens", params->bias_tokens, params->n_bias_tokens}};
    for (size_t k = 0; k < sizeof lists / sizeof lists[0]; k++)
        for (size_t i = 0; i < lists[k].n; i++)
            if ((uint32_t)lists[k].tokens[i] >= n_vocab)
                return pgrad__fail(PGRAD_E_INVALID,
                                   "sampler.%s[%zu]: expected an id below the model's %u, found %d",
                                   lists[k].name, i, n_vocab, lists[k].tokens[i]);
    return PGRAD_OK;
}

static pgrad_status prepare_pick(pgrad_sampler *sampler, size_t n_vocab)
{
    if (n_vocab == 0 || n_vocab > 1u << 24)
        return pgrad__fail(PGRAD_E_INVALID, "sampler_pick: n_vocab: expected 1 to %u, found %zu",
                           1u << 24, n_vocab);
    if (sampler->pick_scratch == NULL)
        PGRAD__TRY(pgrad__calloc(sampler->context, 1, sizeof *sampler->pick_scratch,
                                 &sampler->pick_scratch));
    if (sampler->pick_scratch->n_vocab == n_vocab)
        return PGRAD_OK;
    pgrad__draw_scratch_free(sampler->pick_scratch);
    return pgrad__draw_scratch_init(sampler->pick_scratch, sampler->context, (uint32_t)n_vocab);
}

pgrad_status pgrad_sampler_pick(pgrad_sampler *sampler, const float *logits, size_t n_vocab,
                                uint64_t sequence, uint64_t position, pgrad_token *token,
                                float *logprob, float *logprob_sampled, float *entropy)
{
    pgrad__scope scope;
    if (sampler == NULL || logits == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "sampler_pick: %s is NULL",
                           sampler == NULL ? "sampler" : "logits");
    PGRAD__TRY(pgrad__enter(sampler->context, &scope));
    pgrad_status status = prepare_pick(sampler, n_vocab);
    if (status == PGRAD_OK) {
        pgrad__draw draw = {.logits = logits, .sequence = sequence, .position = position};
        pgrad__drawn drawn = pgrad__sampler_draw(sampler, pgrad__kernels_of(sampler->context),
                                                 sampler->pick_scratch, &draw);
        if (drawn.failure != PGRAD__DRAW_OK) {
            status = pgrad__draw_fail(drawn.failure, logits, (uint32_t)n_vocab, "sampler_pick");
        } else {
            if (token != NULL)
                *token = drawn.token;
            if (logprob != NULL)
                *logprob = drawn.logprob;
            if (logprob_sampled != NULL)
                *logprob_sampled = drawn.logprob_sampled;
            if (entropy != NULL)
                *entropy = drawn.entropy;
        }
    }
    pgrad__leave(&scope);
    return status;
}

uint64_t pgrad_sampler_next_sequence(pgrad_sampler *sampler)
{
    return sampler == NULL ? 0 : sampler->next_sequence;
}

pgrad_status pgrad_sampler_set_next_sequence(pgrad_sampler *sampler, uint64_t sequence)
{
    if (sampler == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "sampler_set_next_sequence: sampler is NULL");
    sampler->next_sequence = sequence;
    return PGRAD_OK;
}
