/* The report's numbers by name: TRL's names, spelled out here once more; JSON and its escapes. */
#include <check.h>
#include <math.h>
#include <policygrad.h>
#include <stdlib.h>
#include <string.h>

#include "../suite.h"

#define AT(field) offsetof(pgrad_step_report, field)
static const struct {
    size_t offset;
    const char *name;
} NAMES[] = {
    {AT(reward), "reward"},
    {AT(reward_std), "reward_std"},
    {AT(reward_min), "reward/min"},
    {AT(reward_q1), "reward/q1"},
    {AT(reward_median), "reward/median"},
    {AT(reward_q3), "reward/q3"},
    {AT(reward_max), "reward/max"},
    {AT(frac_zero_std), "frac_reward_zero_std"},
    {AT(n_unscored), "reward/unscored"},
    {AT(completion_mean_length), "completions/mean_length"},
    {AT(completion_min_length), "completions/min_length"},
    {AT(completion_max_length), "completions/max_length"},
    {AT(completion_clipped_ratio), "completions/clipped_ratio"},
    {AT(n_sequences), "num_sequences"},
    {AT(n_tokens), "completions/num_tokens"},
    {AT(sampling_mismatch), "sampling/sampling_logp_difference/mean"},
    {AT(loss), "loss"},
    {AT(policy_loss), "policy_loss"},
    {AT(kl), "kl"},
    {AT(entropy), "entropy"},
    {AT(ratio_mean), "ratio/mean"},
    {AT(ratio_min), "ratio/min"},
    {AT(ratio_max), "ratio/max"},
    {AT(approx_kl), "approx_kl"},
    {AT(clip_low_ratio), "clip_ratio/low_mean"},
    {AT(clip_high_ratio), "clip_ratio/high_mean"},
    {AT(n_micro_batches), "num_micro_batches"},
    {AT(micro_batch_tokens), "micro_batch_tokens"},
    {AT(recompute), "recompute"},
    {AT(grad_norm), "grad_norm"},
    {AT(learning_rate), "learning_rate"},
    {AT(seconds), "step_time"},
    {AT(seconds_generate), "step_time/generate"},
    {AT(seconds_train), "step_time/train"},
    {AT(seconds_predicted), "step_time/predicted"},
    {AT(tokens_per_second), "tokens_per_second"},
    {AT(eval_reward), "eval_reward"},
};
enum { N_NAMES = sizeof NAMES / sizeof NAMES[0] };

static pgrad_step_report empty(void);

/* What a host left there, and did not initialise. */
START_TEST(a_report_of_any_bytes)
{
    char json[4096];
    size_t length;
    pgrad_step_report report = empty();
    memset(report.named, 'x', sizeof report.named);
    report.n_named = 4000;
    for (int i = 0; i < 32; i++) {
        memset(report.named[i].name, 0, sizeof report.named[i].name);
        report.named[i].name[0] = (char)('A' + i);
        report.named[i].value = i;
    }
    ck_assert_uint_eq(pgrad_metrics_count(&report), 32);
    ck_assert_ptr_null(pgrad_metrics_name(&report, 32));
    ck_assert_int_eq(pgrad_metrics_json(&report, json, sizeof json, &length), PGRAD_OK);
    memset(&report, 0, sizeof report);
    ck_assert_int_eq(pgrad_metrics_json(&report, json, sizeof json, &length), PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "step_report.struct_size"));
}
END_TEST

static pgrad_step_report empty(void)
{
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    return report;
}

static void set(pgrad_step_report *report, int i, double value)
{
    memcpy((char *)report + NAMES[i].offset, &value, sizeof value);
}

/* Each number alone has the name that is promised, and all of them together theirs. */
START_TEST(names_and_values)
{
    pgrad_step_report all = empty();
    ck_assert_uint_eq(pgrad_metrics_count(&all), 0);
    ck_assert_ptr_null(pgrad_metrics_name(&all, 0));
    for (int i = 0; i < N_NAMES; i++) {
        pgrad_step_report one = empty();
        set(&one, i, 100.0 + i);
        set(&all, i, 100.0 + i);
        ck_assert_uint_eq(pgrad_metrics_count(&one), 1);
        ck_assert_str_eq(pgrad_metrics_name(&one, 0), NAMES[i].name);
        ck_assert(pgrad_metrics_value(&one, 0) == 100.0 + i);
        ck_assert_ptr_null(pgrad_metrics_name(&one, 1));
        ck_assert(isnan(pgrad_metrics_value(&one, 1)));
    }
    all.n_named = 1;
    strcpy(all.named[0].name, "rewards/mine/mean");
    all.named[0].value = -7.0;
    ck_assert_uint_eq(pgrad_metrics_count(&all), N_NAMES + 1);
    for (uint32_t i = 0; i < N_NAMES; i++) {
        ck_assert_str_eq(pgrad_metrics_name(&all, i), NAMES[i].name);
        ck_assert(pgrad_metrics_value(&all, i) == 100.0 + i);
    }
    ck_assert_str_eq(pgrad_metrics_name(&all, N_NAMES), "rewards/mine/mean");
    ck_assert(pgrad_metrics_value(&all, N_NAMES) == -7.0);
    ck_assert_ptr_null(pgrad_metrics_name(&all, N_NAMES + 1));
}
END_TEST

/* What an older host's struct ends before is not there. */
START_TEST(a_shorter_struct)
{
    pgrad_step_report report = empty();
    report.struct_size = offsetof(pgrad_step_report, reward_min);
    report.reward = 1.0;
    report.reward_std = 2.0;
    report.reward_min = 3.0;
    report.n_named = 1;
    ck_assert_uint_eq(pgrad_metrics_count(&report), 2);
    ck_assert_ptr_null(pgrad_metrics_name(&report, 2));
}
END_TEST

START_TEST(json_escapes_names)
{
    static const char WANTED[] = "{\"step\":3,\"reward\":0.5,\"loss\":null,\"rewards/say \\\"a\\\\b\\\" /mean\":2}";
    char json[256];
    size_t length = 0;
    pgrad_step_report report = empty();
    report.step = 3;
    report.reward = 0.5;
    report.loss = INFINITY; /* JSON has no word for it */
    report.n_named = 1;
    strcpy(report.named[0].name, "rewards/say \"a\\b\"\n/mean");
    report.named[0].value = 2.0;
    ck_assert_int_eq(pgrad_metrics_json(&report, json, sizeof json, &length), PGRAD_OK);
    ck_assert_str_eq(json, WANTED);
    ck_assert_uint_eq(length, strlen(WANTED));
}
END_TEST

/* The length comes with E_BUFFER; with one byte more than it everything fits. */
START_TEST(json_in_every_capacity)
{
    pgrad_step_report report = empty();
    size_t needed = 0, length = 0;
    report.reward = 0.25;
    ck_assert_int_eq(pgrad_metrics_json(&report, NULL, 0, &needed), PGRAD_E_BUFFER);
    ck_assert_uint_eq(needed, strlen("{\"step\":0,\"reward\":0.25}"));
    for (size_t capacity = 1; capacity <= needed + 1; capacity++) {
        char *json = malloc(capacity); /* a sanitizer sees a byte too many */
        pgrad_status status = pgrad_metrics_json(&report, json, capacity, &length);
        ck_assert_uint_eq(length, needed);
        ck_assert_int_eq(status, capacity <= needed ? PGRAD_E_BUFFER : PGRAD_OK);
        if (status == PGRAD_OK)
            ck_assert_str_eq(json, "{\"step\":0,\"reward\":0.25}");
        free(json);
    }
    ck_assert_int_eq(pgrad_metrics_json(NULL, NULL, 0, &length), PGRAD_E_INVALID);
    ck_assert_int_eq(pgrad_metrics_json(&report, NULL, 0, NULL), PGRAD_E_INVALID);
    ck_assert_int_eq(pgrad_metrics_json(&report, NULL, 5, &length), PGRAD_E_INVALID);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *cases = tcase_create("metrics");
    tcase_add_test(cases, a_report_of_any_bytes);
    tcase_add_test(cases, names_and_values);
    tcase_add_test(cases, a_shorter_struct);
    tcase_add_test(cases, json_escapes_names);
    tcase_add_test(cases, json_in_every_capacity);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
