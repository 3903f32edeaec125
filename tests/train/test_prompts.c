/* The prompts of a run as ids: plain and chat texts, the system's message, columns. */
#include "../rl/rl_test.h"

#include "train/prompts.h"

enum { TEXTS = 3 };
static const char *const texts[TEXTS] = {"hey", "you there", "x"};

/* The ids that the set gives to a rollout for text i are these, and its texts are beside them. */
static void becomes(const world *w, const pgrad_prompts *prompts, size_t i, const pgrad_token *expected,
                    size_t n_expected)
{
    pgrad__prompt_set set;
    size_t n;
    pgrad_rollout *rollout = make_rollout(w, 1, 1, 4, 0);
    OK(pgrad__prompt_set_init(&set, w->model, w->tokenizer, prompts, 3));
    OK(pgrad__prompt_set_add(&set, i, rollout));
    const pgrad_token *ids = pgrad_rollout_prompt(rollout, 0, &n);
    ck_assert_uint_eq(n, n_expected);
    ck_assert_mem_eq(ids, expected, n * sizeof *ids);
    ck_assert_str_eq(pgrad_rollout_data(rollout, 0, "prompt", NULL), texts[i]);
    const char *found = pgrad_rollout_data(rollout, 0, "answer", NULL);
    const char *wanted = prompts->n_columns > 0 ? prompts->columns[0][i] : NULL;
    ck_assert_pstr_eq(found, wanted);
    pgrad__prompt_set_free(&set);
    pgrad_rollout_free(rollout);
}

/* A plain text is what the tokenizer makes of it; chat's turns are the system's, if there is one, and the
 * user's, and the opening of an answer. */
START_TEST(texts_become_ids)
{
    static const char *const names[] = {"answer"}, *const answers[TEXTS] = {"1", NULL, "3"};
    static const char *const *const columns[] = {answers};
    static const char SYSTEM[] = "Be brief.";
    world w = begin_world(LLAMA_CONFIG);
    pgrad_tokenizer_free(w.tokenizer);
    w.tokenizer = make_tokenizer_with(
        w.context, ",{\"id\":259,\"content\":\"<|im_start|>\",\"special\":true,\"normalized\":false}");
    for (size_t i = 0; i < TEXTS; i++) {
        pgrad_token plain[200], chat[200], with_system[200];
        size_t n_plain, n_chat, n_with_system;
        const pgrad_message turns[2] = {{"system", SYSTEM, strlen(SYSTEM)}, {"user", texts[i], strlen(texts[i])}};
        OK(pgrad_tokenizer_encode(w.tokenizer, texts[i], strlen(texts[i]), PGRAD_ENCODE_ADD, plain, 200,
                                  &n_plain));
        OK(pgrad_chat_format(w.tokenizer, turns + 1, 1, PGRAD_CHAT_GENERATE, chat, 200, &n_chat));
        OK(pgrad_chat_format(w.tokenizer, turns, 2, PGRAD_CHAT_GENERATE, with_system, 200, &n_with_system));
        ck_assert(n_plain < n_chat && n_chat < n_with_system);
        pgrad_prompts prompts;
        pgrad_prompts_init(&prompts, sizeof prompts);
        prompts.n = TEXTS;
        prompts.texts = texts;
        becomes(&w, &prompts, i, plain, n_plain);
        pgrad__prompt_set set;
        prompts.system = SYSTEM; /* without turns there is no place for it */
        ck_assert_int_eq(pgrad__prompt_set_init(&set, w.model, w.tokenizer, &prompts, 3), PGRAD_E_INVALID);
        prompts.chat = 1;
        prompts.n_columns = 1;
        prompts.column_names = names;
        prompts.columns = columns;
        becomes(&w, &prompts, i, with_system, n_with_system);
        prompts.system = NULL;
        becomes(&w, &prompts, i, chat, n_chat);
    }
    end_world(&w);
}
END_TEST

/* What a set of prompts may not be, by field and index. */
START_TEST(sets_that_are_refused)
{
    static const char *const names[] = {"answer"};
    const char *with_null[] = {"hey", NULL, "x"}, *with_bad[] = {"hey", "x", "\xff"};
    const struct {
        pgrad_status code;
        const char *text;
    } expected[] = {{PGRAD_E_UNSUPPORTED, "prompts: a newer program's field at byte "},
                    {PGRAD_E_LIMIT, "prompts.n: at most 4294967295, found "},
                    {PGRAD_E_INVALID, "prompts.columns: 1 announced, none given"},
                    {PGRAD_E_INVALID, "prompts.texts[1] is NULL"},
                    {PGRAD_E_FORMAT, "prompts.texts[2]: text: invalid UTF-8 at byte 0 of 1"},
                    {PGRAD_E_UNSUPPORTED, "prompts.chat: chat_format: PGRAD_CHAT_GENERATE"}};
    world w = begin_world(LLAMA_CONFIG); /* its tokenizer has no <|im_start|> */
    for (size_t k = 0; k < sizeof expected / sizeof expected[0]; k++) {
        struct {
            pgrad_prompts prompts;
            uint64_t newer;
        } given = {.newer = 0};
        pgrad_prompts *prompts = &given.prompts;
        pgrad__prompt_set set;
        pgrad_prompts_init(prompts, sizeof *prompts);
        prompts->n = TEXTS;
        prompts->texts = k == 3 ? with_null : k == 4 ? with_bad : texts;
        if (k == 0) {
            prompts->struct_size = sizeof given;
            given.newer = 1;
        }
        if (k == 1)
            prompts->n = (size_t)UINT32_MAX + 1;
        if (k == 2) {
            prompts->n_columns = 1;
            prompts->column_names = names;
        }
        prompts->chat = k == 5;
        FAILS(expected[k].code, expected[k].text,
              pgrad__prompt_set_init(&set, w.model, w.tokenizer, prompts, 3));
    }
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prompts");
    TCase *tcase = tcase_create("prompts");
    tcase_add_test(tcase, texts_become_ids);
    tcase_add_test(tcase, sets_that_are_refused);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
