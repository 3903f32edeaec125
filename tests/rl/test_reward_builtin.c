/* Rewards ready to use: worked values, any bytes, limits, arguments that are wrong, memory that ends. */
#include "../failing_allocator.h"
#include "rl_test.h"

enum { MAX_TEXT = 400 };

static const char CONFIG[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":8,\"intermediate_size\":8,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":1,\"num_key_value_heads\":1,\"max_position_embeddings\":512,"
    "\"vocab_size\":272,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"hidden_act\":\"silu\"}";

static world w;
static pgrad_rollout *rollout;

static void setup(void)
{
    w = begin_world(CONFIG);
    rollout = make_rollout(&w, 2, 2, MAX_TEXT, 0);
}

static void teardown(void)
{
    pgrad_rollout_free(rollout);
    end_world(&w);
}

/* One completion, its bytes as ids; data (may be NULL) under "answer". */
static void put_bytes(const char *text, size_t n, const char *data, uint32_t finish)
{
    pgrad_token ids[MAX_TEXT];
    pgrad_sequence_params params;
    ck_assert_uint_le(n, MAX_TEXT);
    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)text[i];
    pgrad_rollout_clear(rollout);
    const uint32_t group = add_text_prompt(rollout, "q", NULL);
    if (data != NULL)
        OK(pgrad_rollout_set_data(rollout, group, "answer", data, strlen(data)));
    pgrad_sequence_params_init(&params, sizeof params);
    params.finish = finish;
    OK(pgrad_rollout_add_sequence(rollout, group, ids, n, &params));
}

static void put(const char *text, const char *data)
{
    put_bytes(text, strlen(text), data, PGRAD_FINISH_STOP);
}

static pgrad_reward *make(const char *name, const char *arguments)
{
    pgrad_reward *reward = NULL;
    OK(pgrad_reward_builtin(w.context, name, arguments, &reward));
    return reward;
}

static double score_now(const char *name, const char *arguments)
{
    pgrad_reward *reward = make(name, arguments);
    OK(pgrad_reward_apply(reward, rollout));
    pgrad_reward_free(reward);
    return info_of(rollout, 0).reward;
}

typedef struct worked {
    const char *name, *arguments, *text, *data;
    double score;
} worked;

static const worked WORKED[] = {
    {"regex", "{\"pattern\":\"b+\"}", "abbc", NULL, 1},
    {"regex", "{\"pattern\":\"b+\"}", "acc", NULL, 0},
    {"regex", "{\"pattern\":\"b+\",\"where\":\"start\"}", "abbc", NULL, 0},
    {"regex", "{\"pattern\":\"ab+\",\"where\":\"start\"}", "abbc", NULL, 1},
    {"regex", "{\"pattern\":\"ab+\",\"where\":\"whole\"}", "abbc", NULL, 0},
    {"regex", "{\"pattern\":\"ab|abbc\",\"where\":\"whole\"}", "abbc", NULL, 1}, /* goes back for the whole */
    {"regex", "{\"pattern\":\"A\\\\w\",\"ignore_case\":true}", "a\xc3\xa9", NULL, 1}, /* \w is Unicode's */
    {"regex", "{\"pattern\":\"a.b\"}", "a\nb", NULL, 0},
    {"regex", "{\"pattern\":\"a.b\",\"dot_all\":true}", "a\nb", NULL, 1},
    {"regex", "{\"pattern\":\"^b$\"}", "a\nb\nc", NULL, 0},
    {"regex", "{\"pattern\":\"^b$\",\"multi_line\":true}", "a\nb\nc", NULL, 1},
    {"exact", NULL, " forty two\n", "forty two", 1},
    {"exact", NULL, "Forty two", "forty two", 0},
    {"exact", "{\"ignore_case\":true}", "\xc3\x89T\xc3\x89", "\xc3\xa9t\xc3\xa9", 1},
    {"exact", "{\"ignore_case\":true}", "et", "ete", 0},
    {"exact", "{\"strip\":false}", " a", "a", 0},
    {"exact", "{\"after\":\"####\",\"data_after\":\"####\"}", "so 6*7 #### 41 #### 42", "since #### 42", 1},
    {"exact", "{\"after\":\"####\"}", "42", "42", 0},
    {"exact", "{\"within\":true}", "I say Paris, of course", "Paris", 1},
    {"exact", "{\"within\":true}", "I say Parisian", "Paris", 0},
    {"numeric", NULL, "first 3, then it is 1,234.5.", "1234.5", 1},
    {"numeric", NULL, "first 3, then it is 1234", "1234.5", 0},
    {"numeric", "{\"which\":\"first\"}", "3 and 4", "3", 1},
    {"numeric", NULL, "10-3", "3", 1},
    {"numeric", NULL, "is -3", "-3", 1},
    {"numeric", NULL, "is \xe2\x88\x92" "3e2", "-300", 1},
    {"numeric", NULL, "x3 v4 no number", "4", 0},
    {"numeric", NULL, "1.0000005", "1", 1},
    {"numeric", NULL, "1.000002", "1", 0},
    {"numeric", "{\"relative\":0.1}", "about 91", "100", 1},
    {"numeric", "{\"relative\":0,\"absolute\":2}", "98", "100", 1},
    {"numeric", "{\"relative\":0,\"absolute\":1.5}", "98", "100", 0},
    {"numeric", NULL, ".5 of it", "0.5", 1},
    {"numeric", NULL, "1,23", "23", 1}, /* no thousands: two numbers */
    {"choice", NULL, "A is wrong. (B)", "B", 1},
    {"choice", NULL, "A is wrong. (B)", "A", 0},
    {"choice", "{\"which\":\"first\"}", "A is right, not B", "A", 1},
    {"choice", NULL, "ABC", "A", 0},
    {"choice", "{\"choices\":[\"yes\",\"no\",\"no idea\"],\"ignore_case\":true}", "Well, NO IDEA.", "no idea", 1},
    {"choice", "{\"choices\":[\"yes\",\"no\",\"no idea\"]}", "no idea", "no", 0},
    {"length", "{\"target\":4}", "abcd", NULL, 1},
    {"length", "{\"target\":4}", "abc", NULL, 0.75},
    {"length", "{\"target\":4}", "abcdefghijkl", NULL, 0},
    {"length", "{\"target\":4,\"tolerance\":2,\"width\":8}", "abcdefgh", NULL, 0.75},
    {"length", "{\"target\":2,\"unit\":\"words\"}", " one  two\n", NULL, 1},
    {"length", "{\"target\":2,\"unit\":\"characters\"}", "\xc3\xa9\xc3\xa9", NULL, 1},
    {"length", "{\"target\":4,\"unit\":\"bytes\"}", "\xc3\xa9\xc3\xa9", NULL, 1},
    {"words", "{\"required\":[\"red\",\"fox\"]}", "The RED dog", NULL, 0.5},
    {"words", "{\"required\":[\"red\"],\"ignore_case\":false}", "The RED dog", NULL, 0},
    {"words", "{\"required\":[\"red\"]}", "redder", NULL, 0},
    {"words", "{\"forbidden\":[\"dog\",\"cat\",\"red dog\",\"x\"]}", "The RED dog", NULL, -0.5},
    {"words", "{\"required\":[\"the\"],\"forbidden\":[\"dog\"]}", "The dog", NULL, 0},
    {"json", NULL, " {\"a\": [1, 2]} ", NULL, 1},
    {"json", NULL, "{\"a\": [1, 2}", NULL, 0},
    {"json", NULL, "3 4", NULL, 0},
    {"json", "{\"keys\":[\"a\",\"b\"]}", "{\"a\":1,\"b\":2}", NULL, 1},
    {"json", "{\"keys\":[\"a\",\"b\"]}", "{\"a\":1,\"b\":null}", NULL, 0},
    {"json", "{\"keys\":[\"a\",\"b\"],\"partial\":true}", "{\"a\":1}", NULL, 2.0 / 3.0},
    {"json", "{\"keys\":[\"a\",\"b\"],\"partial\":true}", "[]", NULL, 1.0 / 3.0},
    {"json", "{\"type\":\"object\",\"partial\":true}", "[]", NULL, 0},
    {"json", "{\"type\":\"array\"}", "[]", NULL, 1},
    {"json", NULL, "```json\n{}\n```", NULL, 0},
    {"json", "{\"fenced\":true}", "```json\n{}\n```\n", NULL, 1},
    {"json", "{\"fenced\":true}", "{}", NULL, 1},
    {"json", "{\"fenced\":true}", "``````", NULL, 0},
    {"repetition", "{\"n\":2}", "aaaaa", NULL, -0.75},
    {"repetition", "{\"n\":2,\"max_penalty\":-2}", "abab", NULL, -2.0 / 3.0},
    {"repetition", NULL, "ab", NULL, 0},
    {"repetition", "{\"n\":1,\"unit\":\"words\"}", "the cat the  dog", NULL, -0.25},
    {"repetition", "{\"n\":1,\"unit\":\"characters\"}", "\xc3\xa9\xc3\xa9\xc3\xa8\xc3\xa9", NULL, -0.5},
    {"script", "{\"scripts\":[\"Latin\"]}", "ab, 12 \xd0\xb0\xd0\xb1!", NULL, 0.5},
    {"script", "{\"scripts\":[\"Cyrillic\",\"Latin\"]}", "ab \xd0\xb0\xd0\xb1", NULL, 1},
    {"script", "{\"scripts\":[\"Han\"]}", "\xe6\xbc\xa2\xe5\xad\x97 kan", NULL, 0.4},
    {"script", "{\"scripts\":[\"Han\"]}", "123 !", NULL, 0},
    {"think_then_answer", NULL, "<think>hm</think> 42", NULL, 1},
    {"think_then_answer", NULL, "\n<think>\nhm\n</think>\n42", NULL, 1},
    {"think_then_answer", NULL, "<think> </think> 42", NULL, 0},
    {"think_then_answer", NULL, "<think>hm</think> \n", NULL, 0},
    {"think_then_answer", "{\"answer\":false}", "<think>hm</think>", NULL, 1},
    {"think_then_answer", NULL, "so <think>hm</think> 42", NULL, 0},
    {"think_then_answer", NULL, "<think>hm <think></think> 42", NULL, 0},
    {"think_then_answer", NULL, "<think>hm</think> 42 </think>", NULL, 0},
    {"think_then_answer", NULL, "<think>hm 42", NULL, 0},
    {"think_then_answer", "{\"opened\":true}", "hm</think> 42", NULL, 1},
    {"think_then_answer", "{\"opened\":true}", "<think>hm</think> 42", NULL, 0},
    {"think_then_answer", "{\"open\":\"[\",\"close\":\"]\"}", "[a] b", NULL, 1},
    {"overlong", "{\"max_length\":20,\"buffer\":4}", "0123456789abcdef", NULL, 0},
    {"overlong", "{\"max_length\":20,\"buffer\":4}", "0123456789abcdefg", NULL, -0.25},
    {"overlong", "{\"max_length\":20,\"buffer\":4,\"factor\":3}", "0123456789abcdefgh", NULL, -1.5},
    {"overlong", "{\"max_length\":20,\"buffer\":4}", "0123456789abcdefghij", NULL, -1},
    {"overlong", "{\"max_length\":20,\"buffer\":4}", "0123456789abcdefghijk", NULL, -1},
    {"end_reached", NULL, "a", NULL, 1},
    {"end_reached", "{\"reached\":2.5}", "a", NULL, 2.5},
};

START_TEST(worked_values)
{
    for (size_t i = 0; i < sizeof WORKED / sizeof WORKED[0]; i++) {
        const worked *row = &WORKED[i];
        put(row->text, row->data);
        const double found = score_now(row->name, row->arguments);
        ck_assert_msg((float)found == (float)row->score, "%s %s of '%s': expected %g, found %g", row->name,
                      row->arguments == NULL ? "" : row->arguments, row->text, row->score, found);
    }
}
END_TEST

START_TEST(the_end)
{
    put_bytes("abc", 3, NULL, PGRAD_FINISH_LENGTH);
    ck_assert(score_now("end_reached", NULL) == 0.0);
    ck_assert(score_now("end_reached", "{\"cut\":-1}") == -1.0);
    put_bytes("abc", 3, NULL, PGRAD_FINISH_STRING);
    ck_assert(score_now("end_reached", "{\"cut\":-1}") == 1.0);
}
END_TEST

START_TEST(they_add_up)
{
    pgrad_reward *parts[3] = {make("regex", "{\"pattern\":\"a\",\"name\":\"has_a\"}"),
                              make("regex", "{\"pattern\":\"z\"}"), make("length", "{\"target\":4}")};
    pgrad_reward *sum = NULL;
    pgrad_step_report report;
    OK(pgrad_reward_combine(w.context, parts, (const double[]){2.0, 5.0, 1.0}, 3, &sum));
    put("abc", NULL);
    OK(pgrad_reward_apply(sum, rollout));
    ck_assert(info_of(rollout, 0).reward == 2.75);
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_rollout_report(rollout, &report));
    ck_assert_str_eq(report.named[0].name, "rewards/has_a/mean");
    ck_assert_str_eq(report.named[2].name, "rewards/regex/mean");
    for (int i = 0; i < 3; i++)
        pgrad_reward_free(parts[i]);
    pgrad_reward_free(sum);
}
END_TEST

/* A prompt without the answer: an error by default, left out when the arguments say so. */
START_TEST(answers_that_are_missing)
{
    static const char *const NAMES[] = {"exact", "numeric", "choice", "accuracy_reward"};
    put("5", NULL);
    for (size_t i = 0; i < 4; i++) {
        pgrad_reward *reward = make(NAMES[i], NULL);
        FAILS(PGRAD_E_STATE, NAMES[i], pgrad_reward_apply(reward, rollout));
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "sequence 0: its prompt has no data"));
        ck_assert(isnan(info_of(rollout, 0).reward));
        pgrad_reward_free(reward);
        if (i < 3)
            ck_assert(isnan(score_now(NAMES[i], "{\"missing\":\"skip\"}")));
    }
    put("5", "no number or letter");
    pgrad_reward *numeric = make("numeric", NULL), *choice = make("choice", NULL);
    FAILS(PGRAD_E_FORMAT, "expected a number, found 'no number", pgrad_reward_apply(numeric, rollout));
    FAILS(PGRAD_E_FORMAT, "one of the choices", pgrad_reward_apply(choice, rollout));
    ck_assert(isnan(score_now("numeric", "{\"missing\":\"skip\"}")));
    pgrad_reward_free(numeric);
    pgrad_reward_free(choice);
    put("5", " ");
    pgrad_reward *within = make("exact", "{\"within\":true}");
    FAILS(PGRAD_E_FORMAT, "some text", pgrad_reward_apply(within, rollout));
    pgrad_reward_free(within);
}
END_TEST

/* Patterns that would take years end at a limit: the score is 0, or the call fails, as asked for. */
START_TEST(catastrophic_patterns)
{
    static const char *const PATTERNS[] = {"(a+)+[bc]", "(a|a)*[bc]", "(a*)*\\\\1[bc]", "(.*)*[xy]\\\\d", "^(([a-z])+.)+[A-Z]([a-z])+$",
                                           "(?:(?:a?){30})*[cd]", "(?<x>a(?&x)?a?)+[bc]"};
    char text[MAX_TEXT];
    pgrad_reward *reward;
    memset(text, 'a', sizeof text);
    put_bytes(text, sizeof text, NULL, PGRAD_FINISH_STOP);
    for (size_t i = 0; i < sizeof PATTERNS / sizeof PATTERNS[0]; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "{\"pattern\":\"%s[!?]\"}", PATTERNS[i]);
        ck_assert(score_now("regex", arguments) == 0.0);
        snprintf(arguments, sizeof arguments, "{\"pattern\":\"%s[!?]\",\"on_limit\":\"error\"}", PATTERNS[i]);
        reward = make("regex", arguments);
        FAILS(PGRAD_E_LIMIT, "sequence 0: a regular expression", pgrad_reward_apply(reward, rollout));
        pgrad_reward_free(reward);
    }
    reward = make("regex", "{\"pattern\":\"(a+)+[!?]\",\"on_limit\":\"error\",\"match_limit\":1000}");
    FAILS(PGRAD_E_LIMIT, "'regex', sequence 0: a regular expression", pgrad_reward_apply(reward, rollout));
    pgrad_reward_free(reward);
    reward = make("regex", "{\"pattern\":\"(a|b)*[!?]\",\"on_limit\":\"error\",\"depth_limit\":10}");
    FAILS(PGRAD_E_LIMIT, "sequence 0", pgrad_reward_apply(reward, rollout));
    pgrad_reward_free(reward);
    reward = make("regex", "{\"pattern\":\"(a|b)*(a|b)*[!?]\",\"on_limit\":\"error\",\"heap_limit\":0}");
    FAILS(PGRAD_E_LIMIT, "sequence 0", pgrad_reward_apply(reward, rollout));
    pgrad_reward_free(reward);
    ck_assert(score_now("regex", "{\"pattern\":\"(a|b)*[!?]\",\"depth_limit\":10}") == 0.0);
    ck_assert(score_now("regex", "{\"pattern\":\"a{400}\",\"where\":\"whole\"}") == 1.0);
}
END_TEST

/* ---- any bytes ---- */

/* What is no UTF-8 matches nothing, and parts a text for no anchor. */
START_TEST(bytes_that_are_no_text)
{
    static const struct {
        const char *arguments;
        double score;
    } ROWS[] = {
        {"{\"pattern\":\"b\"}", 1},
        {"{\"pattern\":\"a.b\"}", 0},
        {"{\"pattern\":\"a\",\"where\":\"whole\"}", 0},
        {"{\"pattern\":\"b\",\"where\":\"whole\"}", 0},
        {"{\"pattern\":\"a\",\"where\":\"start\"}", 1},
        {"{\"pattern\":\"b\",\"where\":\"start\"}", 0},
        {"{\"pattern\":\"^b\"}", 0},
    };
    pgrad__sequence *sequence;
    put("a?b", NULL);
    sequence = &rollout->sequences[0]; /* whatever the tokenizer's decoder makes of such bytes */
    ck_assert_uint_eq(sequence->text_length, 3);
    rollout->text[sequence->text_offset + 1] = (char)0xff;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++)
        ck_assert_msg(score_now("regex", ROWS[i].arguments) == ROWS[i].score, "%s", ROWS[i].arguments);
    ck_assert(score_now("length", "{\"target\":3,\"unit\":\"characters\"}") == 1.0);
    ck_assert(score_now("script", "{\"scripts\":[\"Latin\"]}") == 1.0);
    ck_assert(score_now("json", NULL) == 0.0);
}
END_TEST

static const struct {
    const char *name, *arguments;
} ALL[] = {
    {"exact", "{\"within\":true,\"ignore_case\":true,\"after\":\"<\"}"},
    {"numeric", "{\"missing\":\"skip\"}"},
    {"choice", "{\"missing\":\"skip\",\"choices\":[\"a\",\"b c\"],\"ignore_case\":true}"},
    {"regex", "{\"pattern\":\"(a|<|\\\\d)+x\"}"},
    {"words", "{\"required\":[\"a\",\"\xc3\xa9\"],\"forbidden\":[\"<think>\"]}"},
    {"json", "{\"keys\":[\"a\"],\"fenced\":true,\"partial\":true}"},
    {"script", "{\"scripts\":[\"Latin\",\"Han\"]}"},
    {"think_then_answer", NULL},
    {"end_reached", NULL},
    {"length", "{\"target\":7,\"unit\":\"words\"}"},
    {"overlong", "{\"max_length\":9,\"buffer\":3}"},
    {"repetition", "{\"n\":2,\"unit\":\"words\"}"},
    {"accuracy_reward", "{\"column\":\"answer\"}"},
    {"reasoning_accuracy_reward", "{\"column\":\"answer\"}"},
    {"get_cosine_scaled_reward", "{\"column\":\"answer\",\"max_len\":30}"},
    {"think_format_reward", NULL},
    {"get_repetition_penalty_reward", NULL},
    {"get_soft_overlong_punishment", "{\"max_completion_len\":9,\"soft_punish_cache\":3}"},
};
enum { N_ALL = sizeof ALL / sizeof ALL[0] };

/* Pieces of what the rewards look for, and bytes, in disorder. */
static size_t disorder(uint64_t seed, char *out)
{
    static const char *const PIECES[] = {"\\boxed{", "}", "$", "$$", "\\frac", "{1}{2}", "answer: ", "\\[", "\\]", "\\(",
                                         "^", "_", "\\sqrt[", "x", "12", ",345", ".", "-", "(", "[", ")", "\\text{", "\\",
                                         "<think>", "</think>", "{\"a\":", "\"", "\\u00", "```", "\n", " and ", "\\pm", "=", "<", "|", "!",
                                         "%", "\\log_", "\\in", "\\infty", "\\sin", "\\exp", "9999999999", "\\ln", "\xc3\xa9", "\xe6\xbc", "\xff", "\xc3", "\xe2\x88\x92"};
    size_t n = 0;
    const uint64_t most = 1 + pgrad__uniform_below(seed, 1, 0, 40);
    for (uint64_t i = 1; i <= most; i++) {
        const char *piece = PIECES[pgrad__uniform_below(seed, 2, i, sizeof PIECES / sizeof PIECES[0])];
        const size_t length = strlen(piece);
        if (n + length > MAX_TEXT)
            break;
        memcpy(out + n, piece, length);
        n += length;
    }
    return n;
}

START_TEST(disorder_is_scored)
{
    pgrad_reward *rewards[N_ALL];
    char text[MAX_TEXT], data[MAX_TEXT + 1];
    uint32_t n_right = 0;
    for (int k = 0; k < N_ALL; k++)
        rewards[k] = make(ALL[k].name, ALL[k].arguments);
    for (uint64_t seed = 0; seed < 3000; seed++) {
        const size_t n = disorder(seed, text);
        data[disorder(seed % 3 == 0 ? seed : seed + 5000, data)] = '\0';
        put_bytes(text, n, data, PGRAD_FINISH_STOP);
        for (int k = 0; k < N_ALL; k++) {
            if (k == 0 && strspn(data, " \n") == strlen(data))
                continue;
            OK(pgrad_reward_apply(rewards[k], rollout));
            const double score = info_of(rollout, 0).reward;
            ck_assert(isnan(score) || (score >= -1.0 && score <= 1.0));
            n_right += k == 12 && score == 1.0;
        }
    }
    ck_assert_uint_gt(n_right, 20);
    for (int k = 0; k < N_ALL; k++)
        pgrad_reward_free(rewards[k]);
}
END_TEST

/* What overflows, or has no value, is no answer but itself. */
START_TEST(values_beyond_all_bounds)
{
    static const char *const WILD[] = {"\\sin{10^{300}}", "\\cos{\\infty}", "\\ln{\\infty}", "\\infty^{0.5}",
                                       "2^{\\infty}", "10^{10^{10}}", "(9!)!", "\\frac{1}{0}", "\\infty-\\infty", "(-2)^{0.5}",
                                       "\\exp(10^9)", "\\binom{900}{2}", "\\sqrt[0]{2}", "\\log_1 2", "0^{-1}"};
    char text[64];
    for (size_t i = 0; i < sizeof WILD / sizeof WILD[0]; i++) {
        snprintf(text, sizeof text, "\\boxed{%s}", WILD[i]);
        put(text, "5");
        ck_assert(score_now("accuracy_reward", "{\"column\":\"answer\"}") == 0.0);
        put(text, text);
        ck_assert(score_now("accuracy_reward", "{\"column\":\"answer\"}") == 1.0);
    }
}
END_TEST

/* Brackets by the thousand end in a score, not in the stack. */
START_TEST(deep_brackets)
{
    static const char *const OPENING[] = {"(", "{", "[", "|", "\\sqrt{", "\\frac{", "-(", "\\sin(", "\\log_{", "x^{", "\\text{"};
    for (size_t k = 0; k < sizeof OPENING / sizeof OPENING[0]; k++) {
        char text[MAX_TEXT] = "\\boxed{";
        size_t n = strlen(text);
        while (n + strlen(OPENING[k]) + 2 < MAX_TEXT) {
            memcpy(text + n, OPENING[k], strlen(OPENING[k]));
            n += strlen(OPENING[k]);
        }
        text[n++] = '1';
        text[n++] = '}';
        put_bytes(text, n, "5", PGRAD_FINISH_STOP);
        ck_assert(score_now("accuracy_reward", "{\"column\":\"answer\"}") == 0.0);
    }
}
END_TEST

START_TEST(without_a_tokenizer)
{
    pgrad_rollout_params params;
    pgrad_rollout *plain = NULL;
    const pgrad_token ids[] = {1, 1, 1};
    uint32_t group;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = params.max_prompts = 1;
    OK(pgrad_rollout_create(w.model, NULL, &params, &plain));
    OK(pgrad_rollout_add_prompt(plain, ids, 1, NULL, &group));
    OK(pgrad_rollout_add_sequence(plain, group, ids, 3, NULL));
    pgrad_reward *reward = make("regex", "{\"pattern\":\"a\"}");
    FAILS(PGRAD_E_STATE, "no tokenizer", pgrad_reward_apply(reward, plain));
    pgrad_reward_free(reward);
    reward = make("repetition", "{\"n\":1,\"unit\":\"words\"}");
    FAILS(PGRAD_E_STATE, "no tokenizer", pgrad_reward_apply(reward, plain));
    pgrad_reward_free(reward);
    reward = make("repetition", "{\"n\":1}");
    OK(pgrad_reward_apply(reward, plain));
    ck_assert((float)info_of(plain, 0).reward == (float)(-2.0 / 3.0));
    pgrad_reward_free(reward);
    pgrad_rollout_free(plain);
}
END_TEST

/* ---- arguments ---- */

START_TEST(wrong_arguments)
{
    static const struct {
        const char *name, *arguments, *message;
    } WRONG[] = {
        {"regexp", NULL, "expected one of exact, numeric"},
        {"regexp", NULL, "get_soft_overlong_punishment, found 'regexp'"},
        {NULL, NULL, "found '(NULL)'"},
        {"regex", NULL, "'regex': pattern: expected a string of 1 to 65536 bytes without NUL, found nothing"},
        {"regex", "{\"patern\":\"a\"}", "expected some of name, pattern, where"},
        {"regex", "{\"patern\":\"a\"}", "found \"patern\""},
        {"regex", "{\"pattern\":3}", "pattern: expected a string of 1 to 65536 bytes without NUL, found 3"},
        {"regex", "{\"pattern\":\"\"}", "pattern: expected"},
        {"regex", "{\"pattern\":\"a\\u0000b\"}", "without NUL"},
        {"regex", "{\"pattern\":\"(a\"}", "'regex': pattern: regular expression, byte 2: missing closing parenthesis"},
        {"regex", "{\"pattern\":\"\\\\C\"}", "regular expression"},
        {"regex", "{\"pattern\":\"a\",\"where\":\"end\"}", "one of \"anywhere\", \"start\", \"whole\", found \"end\""},
        {"regex", "{\"pattern\":\"a\",\"match_limit\":0}", "match_limit: expected a whole number from 1 to 1000000000"},
        {"regex", "{\"pattern\":\"a\",\"match_limit\":1.5}", "match_limit: expected a whole number"},
        {"regex", "{\"pattern\":\"a\",\"dot_all\":1}", "dot_all: expected true or false, found 1"},
        {"regex", "{\"pattern\":\"a\",\"pattern\":\"b\"}", "duplicate"},
        {"regex", "[]", "arguments: expected a JSON object, found an array"},
        {"regex", "pattern", "JSON"},
        {"regex", "", "JSON"},
        {"regex", "{\"pattern\":\"a\",\"name\":\"12345678901234567890123456789012345678901\"}", "name: expected a string"},
        {"regex", "{\"pattern\":\"a\",\"name\":\"a\\nb\"}", "control"},
        {"words", NULL, "expected a word in one of them"},
        {"words", "{\"required\":\"a\"}", "required: expected a list of 0 to 1000 strings, none empty, found \"a\""},
        {"words", "{\"required\":[\"a\",\"\"]}", "required: expected a list"},
        {"words", "{\"required\":[\"a\",2]}", "found 2"},
        {"choice", "{\"choices\":[\"A\"]}", "a list of 2 to 1000 strings"},
        {"script", "{\"scripts\":[\"Klingon\"]}", "names of Unicode scripts, found \"Klingon\""},
        {"script", "{\"scripts\":[\"Latin}|.{\"]}", "names of Unicode scripts"},
        {"script", "{\"scripts\":[\"L\"]}", "names of Unicode scripts"},
        {"length", "{\"target\":-1}", "target: expected a whole number from 1 to 1000000000, found -1"},
        {"repetition", "{\"max_penalty\":0.5}", "max_penalty: expected a number from -1e+06 to 0, found 0.5"},
        {"get_cosine_scaled_reward", NULL, "max_len: expected a whole number"},
        {"reasoning_accuracy_reward", "{\"reasoning_delimiters\":[]}", "a list of 1 to 64 strings"},
    };
    pgrad_reward *reward = NULL;
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++)
        FAILS(PGRAD_E_INVALID, WRONG[i].message,
              pgrad_reward_builtin(w.context, WRONG[i].name, WRONG[i].arguments, &reward));
    FAILS(PGRAD_E_INVALID, "out", pgrad_reward_builtin(w.context, "regex", "{\"pattern\":\"a\"}", NULL));
    FAILS(PGRAD_E_INVALID, "context", pgrad_reward_builtin(NULL, "regex", "{\"pattern\":\"a\"}", &reward));
    ck_assert_ptr_null(reward);
    put("abc", NULL); /* null is the default */
    ck_assert(score_now("length", "{\"target\":3,\"unit\":null,\"tolerance\":null}") == 1.0);
}
END_TEST

/* Everything listed describes itself in JSON, and its defaults are good. */
START_TEST(descriptions)
{
    char json[8192];
    const char *name;
    size_t length, needed, n = 0;
    for (; (name = pgrad_reward_builtin_name((uint32_t)n)) != NULL; n++) {
        pgrad__json *root = NULL;
        ck_assert_str_eq(name, ALL[n].name);
        FAILS(PGRAD_E_BUFFER, "bytes are needed", pgrad_reward_builtin_describe(name, NULL, 0, &needed));
        memset(json, '#', sizeof json);
        FAILS(PGRAD_E_BUFFER, "bytes are needed", pgrad_reward_builtin_describe(name, json, needed, &length));
        ck_assert(json[0] == '#' && length == needed);
        OK(pgrad_reward_builtin_describe(name, json, needed + 1, &length));
        ck_assert_uint_eq(strlen(json), needed);
        ck_assert(json[needed + 1] == '#');
        OK(pgrad__json_parse(w.context, json, length, name, &root));
        ck_assert_str_eq(pgrad__json_string(pgrad__json_get(root, "name"), NULL), name);
        const pgrad__json *arguments = pgrad__json_get(root, "arguments");
        ck_assert_uint_ge(pgrad__json_count(arguments), 1);
        for (size_t i = 0; i < pgrad__json_count(arguments); i++) {
            const pgrad__json *argument = pgrad__json_at(arguments, i);
            const int required = pgrad__json_bool(pgrad__json_get(argument, "required"), 0);
            ck_assert_int_eq(required, pgrad__json_get(argument, "default") == NULL);
            ck_assert_ptr_nonnull(pgrad__json_string(pgrad__json_get(argument, "help"), NULL));
        }
        pgrad__json_free(root);
    }
    ck_assert_uint_eq(n, N_ALL);
    FAILS(PGRAD_E_INVALID, "found 'x'", pgrad_reward_builtin_describe("x", json, sizeof json, &length));
    FAILS(PGRAD_E_INVALID, "length", pgrad_reward_builtin_describe("regex", json, sizeof json, NULL));
}
END_TEST

START_TEST(cancelled)
{
    pgrad_reward *reward = make("length", "{\"target\":3}");
    put("abc", NULL);
    pgrad_context_cancel(w.context);
    FAILS(PGRAD_E_CANCELLED, "", pgrad_reward_apply(reward, rollout));
    ck_assert(isnan(info_of(rollout, 0).reward));
    pgrad_context_clear_cancel(w.context);
    OK(pgrad_reward_apply(reward, rollout));
    pgrad_reward_free(reward);
}
END_TEST

/* A whole number that jansson cannot hold is copied, a match takes memory: what the context refuses is told, not
 * scored, though the regex reward scores 0 where the pattern's own limits are met. */
START_TEST(refused_memory_is_no_score)
{
    char text[300]; /* below the largest double */
    pgrad_reward *reward = _i == 0 ? make("json", NULL) : make("regex", "{\"pattern\":\"9+\",\"on_limit\":\"zero\"}");
    const uint64_t held = memory_now(w.context);
    uint64_t more = 0;
    memset(text, '9', sizeof text);
    put_bytes(text, sizeof text, NULL, PGRAD_FINISH_STOP);
    for (pgrad_status status = PGRAD_E_LIMIT; status != PGRAD_OK; more += 64) {
        w.context->memory_limit = held + more;
        status = pgrad_reward_apply(reward, rollout);
        if (status == PGRAD_OK) {
            ck_assert(info_of(rollout, 0).reward == 1.0);
        } else {
            ck_assert_int_eq(status, PGRAD_E_LIMIT);
            ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "the context allows"));
        }
        ck_assert_uint_lt(more, 1 << 16);
    }
    ck_assert_uint_gt(more, sizeof text);
    w.context->memory_limit = 0;
    pgrad_reward_free(reward);
}
END_TEST

/* ---- the n-th allocation fails, for every n ---- */

static void sweep(const char *name, const char *arguments)
{
    counted state = {-1, 0};
    pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context_params params;
    world own = {.memory = 0};
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 1;
    params.allocator = &allocator;
    OK(pgrad_context_create(&params, &own.context));
    own.model = make_model(own.context, CONFIG);
    own.tokenizer = make_tokenizer(own.context);
    rollout = make_rollout(&own, 2, 2, MAX_TEXT, 0);
    put("<think>\\boxed{1}</think> {\"a\": \\boxed{\\frac{1}{2}, 3 b c}", "$\\frac{1}{2}, 3$ a");
    for (long n = 1, failed = 1; failed; n++) {
        pgrad_reward *reward = NULL;
        const long live = state.live;
        state.left = n;
        pgrad_status status = pgrad_reward_builtin(own.context, name, arguments, &reward);
        if (status == PGRAD_OK)
            status = pgrad_reward_apply(reward, rollout);
        failed = state.left <= 0;
        state.left = -1;
        ck_assert_int_eq(status, failed ? PGRAD_E_NOMEM : PGRAD_OK);
        if (failed && reward != NULL)
            OK(pgrad_reward_apply(reward, rollout)); /* good for the next try */
        pgrad_reward_free(reward);
        ck_assert_int_eq(state.live, live);
        ck_assert_int_lt(n, 200);
    }
    pgrad_rollout_free(rollout);
    pgrad_tokenizer_free(own.tokenizer);
    pgrad_model_free(own.model);
    pgrad_context_free(own.context);
    ck_assert_int_eq(state.live, 0);
}

START_TEST(out_of_memory)
{
    sweep(ALL[_i].name, ALL[_i].arguments);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reward_builtin");
    TCase *all = tcase_create("all"), *memory = tcase_create("memory");
    tcase_set_timeout(all, 120);
    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, worked_values);
    tcase_add_test(all, the_end);
    tcase_add_test(all, they_add_up);
    tcase_add_test(all, answers_that_are_missing);
    tcase_add_test(all, catastrophic_patterns);
    tcase_add_test(all, bytes_that_are_no_text);
    tcase_add_test(all, disorder_is_scored);
    tcase_add_test(all, values_beyond_all_bounds);
    tcase_add_test(all, deep_brackets);
    tcase_add_test(all, without_a_tokenizer);
    tcase_add_test(all, wrong_arguments);
    tcase_add_test(all, descriptions);
    tcase_add_test(all, cancelled);
    tcase_add_loop_test(all, refused_memory_is_no_score, 0, 2);
    suite_add_tcase(suite, all);
    tcase_set_timeout(memory, 60);
    tcase_add_loop_test(memory, out_of_memory, 0, N_ALL);
    suite_add_tcase(suite, memory);
    return run_suite(suite);
}
