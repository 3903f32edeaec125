/* Rewards ready to use: their table and the public calls over it. */
#include "rl/reward_builtin.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/number.h"
#include "base/sink.h"
#include "rl/reward.h"

static const pgrad__reward_kind *const KINDS[] = {
    &pgrad__reward_exact,          &pgrad__reward_numeric,
    &pgrad__reward_choice,         &pgrad__reward_regex,
    &pgrad__reward_words,          &pgrad__reward_json,
    &pgrad__reward_script,         &pgrad__reward_think_then_answer,
    &pgrad__reward_end_reached,    &pgrad__reward_length,
    &pgrad__reward_overlong,       &pgrad__reward_repetition,
    &pgrad__reward_trl_accuracy,   &pgrad__reward_trl_reasoning_accuracy,
    &pgrad__reward_trl_cosine,     &pgrad__reward_trl_think_format,
    &pgrad__reward_trl_repetition, &pgrad__reward_trl_overlong,
};
enum { N_KINDS = sizeof KINDS / sizeof KINDS[0] };

static pgrad_status find_kind(const char *name, const pgrad__reward_kind **out)
{
    for (size_t i = 0; name != NULL && i < N_KINDS; i++)
        if (strcmp(KINDS[i]->name, name) == 0) {
            *out = KINDS[i];
            return PGRAD_OK;
        }
    char names[320] = "";
    pgrad__sink list = {names, sizeof names, 0};
    for (size_t i = 0; i < N_KINDS; i++) {
        pgrad__sink_put(&list, i > 0 ? ", " : "");
        pgrad__sink_put(&list, KINDS[i]->name);
    }
    return pgrad__fail(PGRAD_E_INVALID, "reward_builtin: name: expected one of %s, found '%.40s'",
                       names, name == NULL ? "(NULL)" : name);
}

/* ---- scoring ---- */

static pgrad_status score_one(const pgrad__builtin *reward, const pgrad_rollout *rollout,
                              uint32_t i, double *score)
{
    const pgrad__sequence *sequence = &rollout->sequences[i];
    pgrad__completion completion = {rollout,
                                    sequence->group,
                                    sequence->finish,
                                    pgrad__rollout_ids(rollout, i),
                                    sequence->n_tokens,
                                    {NULL, 0}};
    PGRAD__TRY(pgrad__check_cancel(reward->context));
    completion.text.data = pgrad_rollout_text(rollout, i, &completion.text.length);
    if (reward->kind->needs_text && completion.text.data == NULL)
        return pgrad__fail(PGRAD_E_STATE, "it reads text, and the rollout has no tokenizer");
    return reward->kind->score(reward, &completion, score);
}

static int32_t score_all(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                         pgrad_scores *scores)
{
    for (uint32_t i = 0; i < count; i++) {
        double score = 0.0;
        scores->status = score_one(user, rollout, first + i, &score);
        if (scores->status != PGRAD_OK) {
            scores->failed_sequence = first + i;
            return -1;
        }
        if (isnan(score))
            pgrad_scores_skip(scores, i);
        else
            scores->scratch->data[i] = (float)score;
    }
    return (int32_t)count;
}

/* ---- life ---- */

static void destroy(void *user)
{
    pgrad__builtin *reward = user;
    pgrad_context *context = reward->context;
    if (reward->kind->release != NULL)
        reward->kind->release(reward);
    pgrad__arguments_free(reward);
    pgrad__free(context, reward);
}

static pgrad_status create(pgrad_context *context, const pgrad__reward_kind *kind,
                           const char *json_arguments, pgrad_reward **out)
{
    pgrad__builtin *reward = NULL;
    char name[PGRAD__REWARD_NAME];
    pgrad_status status = pgrad__calloc(context, 1, kind->size, &reward);
    if (status != PGRAD_OK)
        return status;
    reward->context = context;
    reward->kind = kind;
    PGRAD__GO(pgrad__arguments_read(reward, json_arguments));
    if (kind->prepare != NULL) {
        status = kind->prepare(reward);
        if (status != PGRAD_OK) {
            (void)pgrad__fail_in(status, "reward '%s': ", kind->name);
            goto fail;
        }
    }
    memcpy(name, reward->name.data, reward->name.length);
    name[reward->name.length] = '\0';
    PGRAD__GO(pgrad_reward_create(context, name[0] == '\0' ? kind->report_name : name, score_all,
                                  reward, destroy, out));
    return PGRAD_OK;
fail:
    destroy(reward);
    return status;
}

pgrad_status pgrad_reward_builtin(pgrad_context *context, const char *name,
                                  const char *json_arguments, pgrad_reward **out)
{
    pgrad__scope scope;
    const pgrad__reward_kind *kind = NULL;
    if (out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "reward_builtin: out is NULL");
    PGRAD__TRY(find_kind(name, &kind));
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status = create(context, kind, json_arguments, out);
    pgrad__leave(&scope);
    return status;
}

/* ---- telling about them ---- */

const char *pgrad_reward_builtin_name(uint32_t i)
{
    return i < N_KINDS ? KINDS[i]->name : NULL;
}

static void put_member(pgrad__sink *out, const char *key, const char *text)
{
    pgrad__sink_put(out, "\"");
    pgrad__sink_put(out, key);
    pgrad__sink_put(out, "\":\"");
    pgrad__sink_put(out, text);
    pgrad__sink_put(out, "\"");
}

static void put_bound(pgrad__sink *out, const char *key, double bound)
{
    char number[32];
    (void)pgrad__format_real(number, bound);
    pgrad__sink_put(out, ",\"");
    pgrad__sink_put(out, key);
    pgrad__sink_put(out, "\":");
    pgrad__sink_put(out, number);
}

static void put_argument(pgrad__sink *out, const pgrad__argument *argument)
{
    static const char *const TYPES[] = {"integer", "number", "boolean",
                                        "choice",  "string", "strings"};
    pgrad__sink_put(out, "{");
    put_member(out, "name", argument->name);
    pgrad__sink_put(out, ",");
    put_member(out, "type", TYPES[argument->type]);
    pgrad__sink_put(out, argument->initial == NULL ? ",\"required\":true" : ",\"default\":");
    pgrad__sink_put(out, argument->initial == NULL ? "" : argument->initial);
    if (argument->choices != NULL) {
        for (size_t i = 0; argument->choices[i] != NULL; i++) {
            pgrad__sink_put(out, i == 0 ? ",\"choices\":[\"" : "\",\"");
            pgrad__sink_put(out, argument->choices[i]);
        }
        pgrad__sink_put(out, "\"]");
    } else if (argument->type != PGRAD__ARGUMENT_FLAG) {
        put_bound(out, "min", argument->min);
        put_bound(out, "max", argument->max);
    }
    pgrad__sink_put(out, ",");
    put_member(out, "help", argument->help);
    pgrad__sink_put(out, "}");
}

static void put_kind(pgrad__sink *out, const pgrad__reward_kind *kind)
{
    const pgrad__argument *argument;
    pgrad__sink_put(out, "{");
    put_member(out, "name", kind->name);
    pgrad__sink_put(out, ",");
    put_member(out, "report_name", kind->report_name);
    pgrad__sink_put(out, ",");
    put_member(out, "help", kind->help);
    pgrad__sink_put(out, ",\"arguments\":[");
    for (size_t i = 0; (argument = pgrad__argument_at(kind, i)) != NULL; i++) {
        pgrad__sink_put(out, i > 0 ? "," : "");
        put_argument(out, argument);
    }
    pgrad__sink_put(out, "]}");
}

pgrad_status pgrad_reward_builtin_describe(const char *name, char *json, size_t capacity,
                                           size_t *length)
{
    const pgrad__reward_kind *kind = NULL;
    pgrad__sink out = {NULL, 0, 0};
    if (length == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "reward_builtin_describe: length is NULL");
    PGRAD__TRY(find_kind(name, &kind));
    put_kind(&out, kind);
    *length = out.length;
    if (json == NULL || capacity <= out.length)
        return pgrad__fail(PGRAD_E_BUFFER,
                           "reward_builtin_describe: %zu bytes are needed, capacity is %zu",
                           out.length + 1, capacity);
    put_kind(&(pgrad__sink){json, capacity, 0}, kind);
    return PGRAD_OK;
}
