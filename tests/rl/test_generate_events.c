/* What a host hears while sequences are made, how it stops them and what it may not do meanwhile. Names carry
 * the row (PR, RW) of the catalogue of bad inputs they check. */
#include "rl_test.h"

/* ---- events ---- */

typedef struct listener {
    char text[16][1024];
    size_t length[16];
    uint32_t n_tokens[16], finished[16];
    uint32_t n_events, stop_at; /* 0: never */
    uint32_t n_pieces;
    pgrad_context *cancel; /* at stop_at instead */
} listener;

static int32_t listen(void *user, const pgrad_rollout *rollout, const pgrad_event *event)
{
    listener *l = user;
    const uint32_t i = event->sequence;
    size_t n, length;
    ck_assert_uint_lt(i, 16);
    ck_assert_uint_eq(event->struct_size, sizeof *event);
    ck_assert_int_eq(event->text[event->length], '\0');
    const char *text = pgrad_rollout_text(rollout, i, &length);
    if (event->kind == PGRAD_EVENT_TOKEN) {
        ck_assert_uint_eq(l->finished[i], 0);
        l->n_tokens[i]++;
        l->n_pieces += event->length > 0;
        memcpy(l->text[i] + l->length[i], event->text, event->length);
        l->length[i] += event->length;
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, i, &n);
        ck_assert_uint_ge(n, l->n_tokens[i]);
        ck_assert_int_eq(tokens[l->n_tokens[i] - 1], event->token);
        ck_assert(pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i, NULL)[l->n_tokens[i] - 1] == event->logprob);
        ck_assert_uint_eq(length, l->length[i]); /* what is there so far */
        ck_assert(memcmp(text, l->text[i], length) == 0);
        ck_assert_uint_eq(info_of(rollout, i).finish, PGRAD_FINISH_NONE);
    } else {
        ck_assert_uint_eq(event->kind, PGRAD_EVENT_FINISHED);
        ck_assert_uint_eq(l->finished[i]++, 0);
        ck_assert_uint_eq(info_of(rollout, i).n_tokens, l->n_tokens[i]);
        ck_assert_uint_eq(length, event->length);
        ck_assert_uint_ge(length, l->length[i]); /* a cut character may have come to it */
        ck_assert(memcmp(text, event->text, length) == 0 && memcmp(text, l->text[i], l->length[i]) == 0);
        memcpy(l->text[i], text, length + 1);
        l->length[i] = length;
    }
    if (++l->n_events != l->stop_at)
        return 1;
    if (l->cancel == NULL)
        return 0;
    pgrad_context_cancel(l->cancel);
    return 1;
}

static pgrad_generate_params listening(listener *l)
{
    pgrad_generate_params params;
    pgrad_generate_params_init(&params, sizeof params);
    params.event = listen;
    params.user = l;
    return params;
}

START_TEST(events_tell_everything_once)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 5, 3, 20, 4);
    listener *l = calloc(1, sizeof *l);
    pgrad_generate_params g = listening(l);
    for (uint64_t i = 0; i < 3; i++)
        (void)add_long_prompt(rollout, i, 10 + 30 * i);
    OK(pgrad_rollout_generate(rollout, sampler, &g));
    uint32_t n = 0;
    for (uint32_t i = 0; i < 15; i++) {
        ck_assert_uint_eq(l->finished[i], 1);
        ck_assert_uint_eq(info_of(rollout, i).n_tokens, l->n_tokens[i]);
        size_t length;
        const char *text = pgrad_rollout_text(rollout, i, &length);
        ck_assert_uint_eq(length, l->length[i]);
        ck_assert(memcmp(text, l->text[i], length) == 0);
        n += l->n_tokens[i] + 1;
    }
    ck_assert_uint_eq(n, l->n_events);
    free(l);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* A whole emoji in four tokens, then one that is cut: whole code points, and a flush at the end. */
START_TEST(pr10_characters_split_over_tokens)
{
    static const pgrad_token forced[] = {0xf0, 0x9f, 0x98, 0x80, 0xf0, 0x9f};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_prompt_params prompt;
    pgrad_prompt_params_init(&prompt, sizeof prompt);
    prompt.prefix = forced;
    prompt.n_prefix = 6;
    prompt.tag = 77;
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 2, 1, 6, 0);
    listener *l = calloc(1, sizeof *l);
    pgrad_generate_params g = listening(l);
    (void)add_text_prompt(rollout, "smile", &prompt);
    OK(pgrad_rollout_generate(rollout, sampler, &g));
    ck_assert_uint_eq(l->n_pieces, 2); /* one of each completion */
    for (uint32_t i = 0; i < 2; i++) {
        ck_assert_str_eq(l->text[i], "\xf0\x9f\x98\x80\xef\xbf\xbd");
        ck_assert_uint_eq(info_of(rollout, i).finish, PGRAD_FINISH_LENGTH);
        ck_assert_uint_eq(info_of(rollout, i).tag, 77);
        for (int t = 0; t < 6; t++) {
            ck_assert(pgrad_rollout_array(rollout, PGRAD_MASK, i, NULL)[t] == 0.0f);
            ck_assert_int_eq(pgrad_rollout_tokens(rollout, i, NULL)[t], forced[t]);
        }
    }
    free(l);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* ---- stopping ---- */

enum { BY_EVENT, BY_CANCEL, BY_DEADLINE, BY_PROGRESS };

static int32_t refuse_late(void *user, const char *what, uint64_t done, uint64_t total)
{
    ck_assert_str_eq(what, "generate");
    ck_assert_uint_le(done, total);
    ck_assert_uint_ge(done, *(uint64_t *)user % 1000);
    *(uint64_t *)user = done;
    return done < 40;
}

START_TEST(stopping_keeps_what_is_finished)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 5, 3, 12, 3);
    listener *l = calloc(1, sizeof *l);
    pgrad_generate_params g = listening(l);
    uint64_t seen = 0;
    uint32_t kept = 0;
    for (uint64_t i = 0; i < 3; i++)
        (void)add_long_prompt(rollout, i, 20);
    l->stop_at = 60;
    switch (_i) {
    case BY_EVENT:
        FAILS(PGRAD_E_CALLBACK, "event", pgrad_rollout_generate(rollout, sampler, &g));
        break;
    case BY_CANCEL:
        l->cancel = w.context;
        FAILS(PGRAD_E_CANCELLED, "", pgrad_rollout_generate(rollout, sampler, &g));
        FAILS(PGRAD_E_CANCELLED, "", pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT));
        pgrad_context_clear_cancel(w.context);
        break;
    case BY_DEADLINE:
        g.max_seconds = 0.0;
        FAILS(PGRAD_E_DEADLINE, "0 seconds", pgrad_rollout_generate(rollout, sampler, &g));
        break;
    default:
        OK(pgrad_context_set_progress(w.context, refuse_late, &seen));
        FAILS(PGRAD_E_CALLBACK, "progress", pgrad_rollout_generate(rollout, sampler, NULL));
        OK(pgrad_context_set_progress(w.context, NULL, NULL));
        ck_assert_uint_ge(seen, 40);
    }
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 15);
    for (uint32_t i = 0; i < 15; i++) {
        pgrad_sequence_info info = info_of(rollout, i);
        if (_i != BY_PROGRESS)
            ck_assert_uint_eq(info.n_tokens, l->n_tokens[i]);
        if (info.finish == PGRAD_FINISH_NONE) { /* its beginning is there to look at */
            ck_assert_ptr_nonnull(pgrad_rollout_text(rollout, i, NULL));
            continue;
        }
        ck_assert(_i == BY_PROGRESS || l->finished[i] == 1);
        kept++;
    }
    ck_assert_uint_lt(kept, 15);
    if (_i == BY_DEADLINE) {
        ck_assert_uint_eq(kept, 0);
        FAILS(PGRAD_E_STATE, "no completions", pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT));
    } else {
        ck_assert_uint_gt(kept, 0);
        OK(pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT));
        for (uint32_t i = 0; i < 15; i++)
            ck_assert((pgrad_rollout_array(rollout, PGRAD_CURRENT, i, NULL) != NULL) ==
                      (info_of(rollout, i).finish != PGRAD_FINISH_NONE));
    }
    OK(pgrad_rollout_generate(rollout, sampler, NULL)); /* every group has its sequences */
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 15);
    pgrad_rollout_clear(rollout); /* and all goes on */
    (void)add_text_prompt(rollout, "again", NULL);
    OK(pgrad_sampler_set_next_sequence(sampler, 500));
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    record *after = take_record(rollout);
    pgrad_rollout *fresh = make_rollout(&w, 5, 3, 12, 3);
    OK(pgrad_sampler_set_next_sequence(sampler, 500));
    (void)add_text_prompt(fresh, "again", NULL);
    OK(pgrad_rollout_generate(fresh, sampler, NULL));
    record *wanted = take_record(fresh);
    same_record(wanted, after);
    free(wanted);
    free(after);
    free(l);
    pgrad_rollout_free(fresh);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* ---- RW07: what a callback may not do ---- */

typedef struct meddler {
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_model *model;
    int called;
} meddler;

static int32_t meddle(void *user, const pgrad_rollout *rollout, const pgrad_event *event)
{
    meddler *m = user;
    const pgrad_token id = 1;
    const float one = 1.0f, norm[32] = {0};
    (void)event;
    if (m->called++ > 0)
        return 1;
    ck_assert_ptr_eq(rollout, m->rollout);
    pgrad_rollout_clear(m->rollout); /* has no effect */
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 3);
    FAILS(PGRAD_E_BUSY, "callback", pgrad_rollout_add_prompt(m->rollout, &id, 1, NULL, NULL));
    FAILS(PGRAD_E_BUSY, "callback", pgrad_rollout_add_sequence(m->rollout, 0, &id, 1, NULL));
    FAILS(PGRAD_E_BUSY, "callback", pgrad_rollout_set_data(m->rollout, 0, "k", "v", 1));
    FAILS(PGRAD_E_BUSY, "callback", pgrad_rollout_set_array(m->rollout, PGRAD_REWARDS, 0, &one, 1));
    FAILS(PGRAD_E_BUSY, "callback", pgrad_rollout_generate(m->rollout, m->sampler, NULL));
    FAILS(PGRAD_E_BUSY, "callback", pgrad_rollout_score(m->rollout, m->model, PGRAD_CURRENT));
    FAILS(PGRAD_E_BUSY, "", pgrad_model_tensor_write(m->model, "model.norm.weight", norm, 32));
    pgrad_rollout_free(m->rollout); /* the host's references, not the call's */
    pgrad_sampler_free(m->sampler);
    return 1;
}

START_TEST(rw07_callbacks_cannot_change_what_is_worked_on)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_generate_params g;
    meddler m = {make_rollout(&w, 3, 1, 6, 2), make_sampler(w.context, &params), w.model, 0};
    pgrad_generate_params_init(&g, sizeof g);
    g.event = meddle;
    g.user = &m;
    (void)add_text_prompt(m.rollout, "x", NULL);
    OK(pgrad_rollout_generate(m.rollout, m.sampler, &g));
    ck_assert_int_gt(m.called, 3);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("generate_events");
    TCase *tcase = tcase_create("generate_events");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, events_tell_everything_once);
    tcase_add_test(tcase, pr10_characters_split_over_tokens);
    tcase_add_loop_test(tcase, stopping_keeps_what_is_finished, BY_EVENT, BY_PROGRESS + 1);
    tcase_add_test(tcase, rw07_callbacks_cannot_change_what_is_worked_on);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
