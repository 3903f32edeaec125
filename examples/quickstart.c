/* A language model learns from reward, where you can watch it.
 *
 * usage: sh examples/quickstart.sh [--model PATH] [--steps N] [--out FOLDER] [--resume]
 * (which installs, builds and runs this program with the same options)
 *
 * The embedded model tells of coloured things. Its prompt asks for a colour, "paint it green:", and
 * it does not listen: four lines in five of what it learned from had nothing to do with the colour
 * asked for. The reward is the share of colour words that are the one asked for, of two at least; 0
 * when the sentence does not end. Random weights score 0, the embedded model about a third, a
 * perfect one 1; longer sentences gain nothing.
 *
 * With --model (a GGUF file or a Hugging Face folder) the task is alliteration: different words
 * that begin with "s", over all words.
 *
 * With --resume the run's state is kept in FOLDER/run.pgrad as it goes, and taken up from there:
 * stop it when you like, start it again, and it ends as if it had never been stopped. Every tenth
 * step is kept.
 *
 * Beside it runs a control whose advantages are shuffled within their group: it sees the same
 * rewards, but not which completion earned them, so it must not learn. */
#include "quickstart.h"

#include <math.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <time.h>

double now(void)
{
    struct timespec at;
    timespec_get(&at, TIME_UTC);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

/* ---- the two tasks ---- */

static const char *const COLOURS[] = {"red", "blue", "green", "white", "black", "gold"};
enum { N_COLOURS = 6 };

static int is_colour(const char *word, size_t length)
{
    for (int i = 0; i < N_COLOURS; i++)
        if (strlen(COLOURS[i]) == length && memcmp(COLOURS[i], word, length) == 0)
            return 1;
    return 0;
}

static double colour_score(const char *text, const char *asked, uint32_t finish)
{
    double colours = 0.0, right = 0.0;
    if (finish != PGRAD_FINISH_STOP)
        return 0.0;
    for (const char *word = text; *word != '\0';) {
        size_t length = strcspn(word, " .,");
        if (is_colour(word, length)) {
            colours += 1.0;
            right += strlen(asked) == length && memcmp(word, asked, length) == 0 ? 1.0 : 0.0;
        }
        word += length;
        word += strspn(word, " .,");
    }
    return right / (colours < 2.0 ? 2.0 : colours);
}

/* 1 when the word, small letters and capitals alike, stands earlier in the text. */
static int came_before(const char *text, const char *word, size_t length)
{
    for (const char *p = text; p < word; p++)
        if ((p == text || strchr(" \n", p[-1])) && strncasecmp(p, word, length) == 0 &&
            strcspn(p, " .,;:!?\n") == length)
            return 1;
    return 0;
}

/* Different words with "s" over all words: saying one of them again and again gains nothing. */
static double alliteration_score(const char *text, const char *asked, uint32_t finish)
{
    double words = 0.0, right = 0.0;
    (void)asked;
    (void)finish;
    for (const char *p = text; *p != '\0'; p++) {
        if ((p != text && !strchr(" \n", p[-1])) || strchr(" \n", *p))
            continue;
        words += 1.0;
        if ((*p == 's' || *p == 'S') && !came_before(text, p, strcspn(p, " .,;:!?\n")))
            right += 1.0;
    }
    return words < 5.0 ? 0.0 : right / words;
}

static const char *const COLOUR_PROMPTS[] = {
    "paint it red:",   "paint it blue:",  "paint it green:",
    "paint it white:", "paint it black:", "paint it gold:"};
static const char *const TOPICS[] = {
    "Write a sentence about the sea.",     "Write a sentence about the night.",
    "Write a sentence about a small dog.", "Write a sentence about winter.",
    "Write a sentence about music.",       "Write a sentence about a garden.",
    "Write a sentence about the city.",    "Write a sentence about breakfast."};

static const task EMBEDDED = {.name = "colours",
                              .scale = "the share of colour words that are the one asked for: random "
                                       "weights score 0, this model about a third, a perfect one 1",
                              .score = colour_score,
                              .prompts = COLOUR_PROMPTS,
                              .data = COLOURS,
                              .n_prompts = 6,
                              .steps = 150,
                              .prompts_per_step = 6,
                              .group_size = 16,
                              .max_new_tokens = 24,
                              .learning_rate = 1.5e-4};
static const task GENERAL = {.name = "words with s",
                             .scale = "the share of words that begin with s, each counted once: random "
                                      "weights score near 0, a chat model about 0.1, a perfect one 1",
                             .score = alliteration_score,
                             .prompts = TOPICS,
                             .data = TOPICS,
                             .n_prompts = 8,
                             .chat = 1,
                             .steps = 40,
                             .prompts_per_step = 4,
                             .group_size = 8,
                             .max_new_tokens = 32,
                             .learning_rate = 5e-5};

static int32_t score_all(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                         pgrad_scores *scores)
{
    const task *t = user;
    for (uint32_t i = 0; i < count; i++) {
        pgrad_sequence_info info = {.struct_size = sizeof info};
        if (pgrad_rollout_sequence(rollout, first + i, &info) != PGRAD_OK)
            return -1;
        pgrad_scores_data(scores)[i] =
            (float)t->score(pgrad_rollout_text(rollout, first + i, NULL),
                            pgrad_rollout_data(rollout, info.group, "asked", NULL), info.finish);
    }
    return (int32_t)count;
}

/* ---- one run ---- */

/* Ctrl-C ends the run behind the step; a second one ends the program. */
static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = 1;
    signal(number, SIG_DFL);
}

static int32_t on_step(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    run *r = user;
    (void)rollout;
    if (r->n_points == r->n_steps) /* refused steps are reported too */
        return 1;
    r->points[r->n_points++] = (point){report->reward, report->reward_q1, report->reward_q3,
                                       report->reward_min, report->reward_max};
    r->tokens += report->n_tokens;
    double elapsed = now() - r->started;
    double left =
        elapsed / (double)(r->n_points - r->n_restored) * (double)(r->n_steps - r->n_points);
    if (!r->terminal && r->n_points % 10 != 0 && r->n_points != 1 && r->n_points != r->n_steps)
        return interrupted ? 0 : 1; /* in a file, a line for ten steps */
    printf("%s%-8s step %3u/%u  reward %.3f  %5.0f tokens/s  %3.0f s left  ",
           r->terminal ? "\r" : "", r->label, r->n_points, r->n_steps, report->reward,
           report->tokens_per_second, left);
    printf(r->terminal ? "" : "\n");
    fflush(stdout);
    return interrupted ? 0 : 1;
}

/* Fisher-Yates within each group by a small generator of our own: the control must not learn. */
static int32_t shuffle_advantages(void *user, pgrad_rollout *rollout)
{
    uint64_t *state = user;
    uint32_t n = pgrad_rollout_count(rollout), size = n / pgrad_rollout_count_groups(rollout);
    for (uint32_t group = 0; group < n; group += size)
        for (uint32_t i = size - 1; i > 0; i--) {
            *state = *state * 6364136223846793005u + 1442695040888963407u;
            uint32_t j = (uint32_t)((*state >> 33) % (i + 1));
            float a = *pgrad_rollout_array(rollout, PGRAD_ADVANTAGES, group + i, NULL);
            float b = *pgrad_rollout_array(rollout, PGRAD_ADVANTAGES, group + j, NULL);
            if (pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, group + i, &b, 1) != PGRAD_OK ||
                pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, group + j, &a, 1) != PGRAD_OK)
                return -1;
        }
    return 1;
}

static pgrad_prompts prompts_of(const task *t, const char *const *const *columns,
                                const char *const *column_names)
{
    pgrad_prompts prompts;
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = t->n_prompts;
    prompts.texts = t->prompts;
    prompts.chat = t->chat;
    prompts.n_columns = 1;
    prompts.column_names = column_names;
    prompts.columns = columns;
    return prompts;
}

/* A text of the host in the checkpoint: the points of the curve. */
static int32_t add_points(void *user, pgrad_checkpoint *checkpoint)
{
    const run *r = user;
    char *text = points_to_text(r);
    pgrad_status status = pgrad_checkpoint_add_text(checkpoint, "points", text, strlen(text));
    free(text);
    return status == PGRAD_OK;
}

/* Takes the points of an earlier run over, where there is a checkpoint. */
static void read_points(pgrad_context *context, const char *path, run *r)
{
    pgrad_checkpoint *checkpoint;
    size_t length = 0;
    if (!file_is_there(path))
        return;
    CHECK(pgrad_checkpoint_open(context, path, &checkpoint));
    (void)pgrad_checkpoint_get_text(checkpoint, "points", NULL, 0, &length);
    char *text = calloc(length + 1, 1);
    CHECK(text == NULL ? PGRAD_E_NOMEM
                       : pgrad_checkpoint_get_text(checkpoint, "points", text, length + 1, &length));
    points_from_text(text, r);
    free(text);
    pgrad_checkpoint_free(checkpoint);
    printf("resumed: %u of %u steps are done\n", r->n_restored, r->n_steps);
}

/* checkpoint_path NULL: none is kept. */
static void train(pgrad_context *context, pgrad_model *model, pgrad_tokenizer *tokenizer,
                  const task *t, run *r, int control, const char *metrics_path,
                  const char *checkpoint_path)
{
    static const char *const COLUMN_NAMES[] = {"asked"};
    const char *const *const columns[] = {t->data};
    pgrad_prompts prompts = prompts_of(t, columns, COLUMN_NAMES);
    pgrad_train_params params;
    pgrad_reward *reward;
    uint64_t shuffle_state = 1;
    task copy = *t;
    CHECK(pgrad_reward_create(context, t->name, score_all, &copy, NULL, &reward));
    pgrad_train_params_init(&params, sizeof params);
    params.steps = r->n_steps;
    params.prompts_per_step = t->prompts_per_step;
    params.group_size = t->group_size;
    params.max_new_tokens = t->max_new_tokens;
    params.learning_rate = t->learning_rate;
    params.seed = 1;
    params.report = on_step;
    params.report_user = r;
    params.metrics_path = metrics_path;
    if (checkpoint_path != NULL) {
        read_points(context, checkpoint_path, r);
        params.checkpoint_path = checkpoint_path;
        params.checkpoint_every = 10;
        params.checkpoint_keep = 1;
        params.resume = PGRAD_RESUME_AUTO;
        params.on_checkpoint = add_points;
        params.on_checkpoint_user = r;
    }
    if (control) {
        params.on_advantages = shuffle_advantages;
        params.on_advantages_user = &shuffle_state;
    }
    r->started = now();
    CHECK(pgrad_train(model, tokenizer, reward, &prompts, &params, NULL));
    r->seconds = now() - r->started;
    printf("\n");
    if (interrupted) {
        printf("stopped after step %u of %u; %s\n", r->n_points, r->n_steps,
               checkpoint_path != NULL ? "the same command goes on from there"
                                       : "with --resume a run keeps its state");
        exit(130);
    }
    pgrad_reward_free(reward);
}

/* ---- completions to look at ---- */

static void sample(pgrad_context *context, pgrad_model *model, pgrad_tokenizer *tokenizer,
                   const task *t, char texts[][TEXT_SIZE], double *scores)
{
    pgrad_rollout_params rollout_params;
    pgrad_sampler_params sampler_params;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = 1;
    rollout_params.max_new_tokens = t->max_new_tokens;
    CHECK(pgrad_rollout_create(model, tokenizer, &rollout_params, &rollout));
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.seed = 7;
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));
    for (size_t i = 0; i < SHOWN; i++) {
        pgrad_token ids[256];
        size_t n;
        pgrad_message message = {"user", t->prompts[i], strlen(t->prompts[i])};
        CHECK(pgrad_chat_format(tokenizer, &message, 1,
                                PGRAD_CHAT_GENERATE | (t->chat ? 0 : PGRAD_CHAT_PLAIN), ids, 256,
                                &n));
        CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
    }
    CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < SHOWN; i++) {
        pgrad_sequence_info info = {.struct_size = sizeof info};
        const char *text = pgrad_rollout_text(rollout, i, NULL);
        CHECK(pgrad_rollout_sequence(rollout, i, &info));
        scores[i] = t->score(text, t->data[i], info.finish);
        snprintf(texts[i], TEXT_SIZE, "%s", text);
    }
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
}

/* A completion on one line of at most 100 bytes, no character cut. */
static void print_line(const char *label, double score, const char *text)
{
    char line[101];
    size_t n = 0;
    for (; text[n] != '\0' && n < sizeof line - 1; n++)
        line[n] = (unsigned char)text[n] < 0x20 ? ' ' : text[n];
    while (text[n] != '\0' && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--;
    printf("  %-6s %4.2f %.*s\n", label, score, (int)n, line);
}

static void print_table(const task *t, char before[][TEXT_SIZE], const double *before_score,
                        char after[][TEXT_SIZE], const double *after_score)
{
    printf("\n%-7s %5s  completion\n", "", "score");
    for (int i = 0; i < SHOWN; i++) {
        printf("%s\n", t->prompts[i]);
        print_line("before", before_score[i], before[i]);
        print_line("after", after_score[i], after[i]);
    }
    printf("\n");
}

/* ---- the whole ---- */

/* The trained model, written and read again, must sample the same. */
static void save_and_check(pgrad_context *context, pgrad_model *model, pgrad_tokenizer *tokenizer,
                           const task *t, const char *path, char expected[][TEXT_SIZE])
{
    static char texts[SHOWN][TEXT_SIZE];
    double scores[SHOWN];
    pgrad_save_params params;
    pgrad_model *loaded;
    pgrad_tokenizer *words;
    pgrad_save_params_init(&params, sizeof params);
    params.tokenizer = tokenizer;
    CHECK(pgrad_model_save(model, path, &params));
    CHECK(pgrad_model_load(context, path, NULL, &loaded));
    CHECK(pgrad_tokenizer_load(context, path, &words));
    sample(context, loaded, words, t, texts, scores);
    for (int i = 0; i < SHOWN; i++)
        if (strcmp(texts[i], expected[i]) != 0) {
            fprintf(stderr, "the saved model samples differently: '%s', not '%s'\n", texts[i],
                    expected[i]);
            exit(1);
        }
    printf("saved to %s and loaded again: the same completions\n", path);
    pgrad_tokenizer_free(words);
    pgrad_model_free(loaded);
}

static double last_mean(const run *r)
{
    double sum = 0.0;
    uint32_t n = r->n_points < 5 ? r->n_points : 5;
    for (uint32_t i = r->n_points - n; i < r->n_points; i++)
        sum += r->points[i].mean;
    return sum / n;
}

static run make_run(const char *label, uint32_t n_steps)
{
    run r = {.label = label, .n_steps = n_steps, .terminal = is_terminal()};
    r.points = calloc(n_steps, sizeof *r.points);
    if (r.points == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return r;
}

/* Fills what the command line says; 0 when it makes no sense, and then it was said why. */
static int read_options(int argc, char **argv, task *t, const char **path, const char **out,
                        int *resume)
{
    const char *steps = NULL;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--resume") == 0) {
            *resume = 1;
            continue;
        }
        if (value != NULL && strcmp(argv[i], "--model") == 0)
            *path = value;
        else if (value != NULL && strcmp(argv[i], "--out") == 0)
            *out = value;
        else if (value != NULL && strcmp(argv[i], "--steps") == 0)
            steps = value;
        else {
            fprintf(stderr, "%s: %s\n", argv[i], value == NULL ? "expected a value" : "no such option");
            return 0;
        }
        i++;
    }
    *t = *path == NULL ? EMBEDDED : GENERAL;
    if (*path == NULL)
        *path = QUICKSTART_MODEL;
    if (steps == NULL)
        return 1;
    char *end;
    unsigned long n = strtoul(steps, &end, 10);
    t->steps = (uint32_t)n;
    if (*steps >= '0' && *steps <= '9' && *end == '\0' && n >= 1 && n <= 1000000)
        return 1;
    fprintf(stderr, "--steps: expected 1 to 1000000, found '%s'\n", steps);
    return 0;
}

int main(int argc, char **argv)
{
    static char before[SHOWN][TEXT_SIZE], after[SHOWN][TEXT_SIZE];
    double before_score[SHOWN], after_score[SHOWN], started = now();
    const char *path = NULL, *out = "quickstart-out";
    int resume = 0;
    task t;
    char file[4096], checkpoint[4096];
    pgrad_context *context;
    pgrad_model *model, *control;
    pgrad_tokenizer *tokenizer;
    signal(SIGINT, on_interrupt);
    if (!read_options(argc, argv, &t, &path, &out, &resume)) {
        fprintf(stderr, "usage: sh examples/quickstart.sh [--model PATH] [--steps N] [--out FOLDER] [--resume]\n");
        return 2;
    }
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    t.chat &= pgrad_tokenizer_find(tokenizer, "<|im_start|>", 12) >= 0; /* else plain texts */
    make_folder(out);
    describe(context, model, &t);

    run learned = make_run("learning", t.steps), shuffled = make_run("control", t.steps);
    sample(context, model, tokenizer, &t, before, before_score);
    snprintf(file, sizeof file, "%s/metrics.jsonl", out);
    snprintf(checkpoint, sizeof checkpoint, "%s/run.pgrad", out);
    if (!resume || !file_is_there(checkpoint))
        remove(file);
    train(context, model, tokenizer, &t, &learned, 0, file, resume ? checkpoint : NULL);
    sample(context, model, tokenizer, &t, after, after_score);
    print_table(&t, before, before_score, after, after_score);
    snprintf(file, sizeof file, "%s/model", out);
    save_and_check(context, model, tokenizer, &t, file, after);
    describe_cost(context, &learned);
    pgrad_model_free(model);

    CHECK(pgrad_model_load(context, path, NULL, &control));
    train(context, control, tokenizer, &t, &shuffled, 1, NULL, NULL);
    snprintf(file, sizeof file, "%s/reward.svg", out);
    draw_curves(file, t.name, &learned, &shuffled);
    printf("the control, advantages shuffled: reward %.2f -> %.2f; curves in %s%s\n",
           shuffled.points[0].mean, last_mean(&shuffled), file,
           convert_to_png(file) ? " and .png" : "");
    printf("quickstart: reward %.2f -> %.2f in %.0f s\n", learned.points[0].mean,
           last_mean(&learned), now() - started);
    free(learned.points);
    free(shuffled.points);
    pgrad_model_free(control);
    pgrad_tokenizer_free(tokenizer);
    pgrad_context_free(context);
    return 0;
}
