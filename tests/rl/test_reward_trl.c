/* The rewards shipped with TRL, against values that TRL's own functions gave (golden/make_trl_rewards.py). */
#include "rl_test.h"

typedef struct golden {
    const char *name, *arguments, *text, *right;
    double theirs, ours;
} golden;

static const golden ROWS[] = {
#include "../golden/trl_rewards.inc"
};
enum { N_ROWS = sizeof ROWS / sizeof ROWS[0], MAX_TEXT = 160 };

static double score_row(const world *w, pgrad_rollout *rollout, const golden *row)
{
    pgrad_reward *reward = NULL;
    pgrad_token ids[MAX_TEXT];
    const size_t n = strlen(row->text);
    ck_assert_uint_le(n, MAX_TEXT);
    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)row->text[i];
    pgrad_rollout_clear(rollout);
    const uint32_t group = add_text_prompt(rollout, "q", NULL);
    OK(pgrad_rollout_set_data(rollout, group, "solution", row->right, strlen(row->right)));
    OK(pgrad_rollout_add_sequence(rollout, group, ids, n, NULL));
    OK(pgrad_reward_builtin(w->context, row->name, row->arguments, &reward));
    OK(pgrad_reward_apply(reward, rollout));
    pgrad_reward_free(reward);
    return info_of(rollout, 0).reward;
}

START_TEST(values_are_those_of_trl)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_rollout(&w, 1, 1, MAX_TEXT, 0);
    uint32_t n_different = 0, n_wrong = 0;
    for (uint32_t i = 0; i < N_ROWS; i++) {
        const golden *row = &ROWS[i];
        const double found = score_row(&w, rollout, row);
        const int same = isnan(row->ours) ? isnan(found) : (float)row->ours == (float)found;
        n_different += !(isnan(row->ours) ? isnan(row->theirs) : row->ours == row->theirs);
        if (same)
            continue;
        n_wrong++;
        printf("%s %s: '%s' for '%s': expected %g, found %g\n", row->name, row->arguments, row->text, row->right,
               row->ours, found);
    }
    ck_assert_uint_eq(n_wrong, 0);
    ck_assert_uint_gt(N_ROWS, 500);
    ck_assert_uint_le(n_different, N_ROWS / 50); /* those that the generator names, and why */
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reward_trl");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 120);
    tcase_add_test(all, values_are_those_of_trl);
    suite_add_tcase(suite, all);
    return run_suite(suite);
}
