/* The files of a run that is taken up: damaged ones are told and older ones taken; another run's are refused, by what
 * differs; numbers of no run are told, and each number that a run has counts. */
#include "resume_test.h"

#include "../checkpoint_contents.h"

static void damage(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(file);
    ck_assert_int_eq(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, file);
    fclose(file);
}

/* CK08, CK09, CK10: the one before is taken, and the log says so; with none left the run fails and lists them. */
START_TEST(damaged_files)
{
    left expected = uninterrupted(0);
    setting s;
    char old[100];
    heard warning = {.word = "an older file"}, info = {.word = "taken up after 3 steps"};
    snprintf(old, sizeof old, "%s.1", checkpoint_path);
    make(&s, 0, 1);
    s.params.checkpoint_every = 1;
    s.stop_after = 4;
    (void)run(&s, PGRAD_OK);
    drop(&s);
    damage(checkpoint_path, 3000);
    make(&s, 0, 1);
    s.params.resume = PGRAD_RESUME_ON;
    ck_assert_int_eq(pgrad_context_set_log(s.context, listen, &warning, PGRAD_LOG_WARNING), PGRAD_OK);
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps_before, 3);
    ck_assert_int_eq(warning.n, 1);
    ck_assert_ptr_nonnull(strstr(warning.line, "chunk at offset"));
    left found = what_is_left(&s, &report);
    same_end(&found, &expected);
    free_left(&found);
    drop(&s);
    damage(checkpoint_path, 9);
    damage(old, -1);
    make(&s, 0, 1);
    s.params.resume = PGRAD_RESUME_AUTO;
    ck_assert_int_eq(pgrad_context_set_log(s.context, listen, &info, PGRAD_LOG_INFO), PGRAD_OK);
    (void)run(&s, PGRAD_E_UNSUPPORTED); /* of a newer version: to be updated, not to be thrown away */
    damage(checkpoint_path, 9);
    damage(checkpoint_path, 0);
    (void)run(&s, PGRAD_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "run.pgrad: not a checkpoint"));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "run.pgrad.1: cut short"));
    ck_assert_int_eq(info.n, 0);
    drop(&s);
    free_left(&expected);
}
END_TEST

/* ---- another run's file ---- */

static void smaller_groups(setting *s)
{
    s->params.group_size = 2;
}

static void fewer_prompts_a_step(setting *s)
{
    s->params.prompts_per_step = 2;
}

static void shorter_completions(setting *s)
{
    s->params.max_new_tokens = 5;
}

static void one_epoch(setting *s)
{
    s->params.epochs_per_step = 1;
}

static void longer_window(setting *s)
{
    s->params.target_window = 4;
}

/* Of the prompts' order: the sampler has the seed of the file. */
static void another_seed(setting *s)
{
    pgrad_sampler_params params;
    pgrad_sampler_params_init(&params, sizeof params);
    params.seed = s->params.seed;
    ck_assert_int_eq(pgrad_sampler_create(s->context, &params, &s->sampler), PGRAD_OK);
    s->params.sampler = s->sampler;
    s->params.seed = 8;
}

static void fewer_prompts(setting *s)
{
    s->n_prompts = PROMPTS - 1;
}

static void other_prompts(setting *s)
{
    s->first_prompt = 1;
}

static void another_reference(setting *s)
{
    pgrad_model_free(s->reference);
    ck_assert_int_eq(pgrad_model_create(s->context, CONFIG, 6, NULL, &s->reference), PGRAD_OK);
    s->params.reference = s->reference;
}

static void another_estimator(setting *s)
{
    pgrad_advantage_params params;
    pgrad_advantage_params_init(&params, sizeof params);
    params.estimator = PGRAD_ADVANTAGE_RLOO;
    ck_assert_int_eq(pgrad_advantage_create(s->context, &params, &s->advantage), PGRAD_OK);
    s->params.advantage = s->advantage;
}

static void set_kl(setting *s, uint32_t kl, double beta)
{
    pgrad_objective_params params;
    pgrad_objective_params_init(&params, sizeof params);
    params.kl = kl;
    params.kl_beta = beta;
    pgrad_objective_free(s->objective);
    ck_assert_int_eq(pgrad_objective_create(s->model, &params, &s->objective), PGRAD_OK);
    s->params.objective = s->objective;
}

static void another_beta(setting *s)
{
    set_kl(s, PGRAD_KL_K3_RATIO, 0.1);
}

static void another_kl(setting *s)
{
    set_kl(s, PGRAD_KL_K2, 0.05);
}

static const struct {
    int number; /* of the run that wrote the file */
    void (*change)(setting *s);
    const char *said;
} DIFFERENCES[] = {
    {0, smaller_groups, "part 'train': 'group_size': the checkpoint has 4, here is 2"},
    {0, fewer_prompts_a_step, "part 'train': 'prompts_per_step': the checkpoint has 3, here is 2"},
    {0, shorter_completions, "part 'train': 'max_new_tokens': the checkpoint has 6, here is 5"},
    {0, longer_window, "part 'train': 'target_window': the checkpoint has 3, here is 4"},
    {0, another_seed, "part 'train': 'seed': the checkpoint has 9, here is 8"},
    {0, fewer_prompts, "part 'train': 'n_prompts': the checkpoint has 5, here is 4"},
    {0, other_prompts, "part 'train': 'prompts': the checkpoint has "},
    {0, another_estimator, "part 'advantage': 'estimator': the checkpoint has "},
    {1, another_reference, "part 'train': 'reference': the checkpoint has "},
    {1, another_beta, "part 'objective': 'kl_beta': the checkpoint has 0.05, here is 0.1"},
    {1, another_kl, "part 'objective': 'kl': the checkpoint has "},
    {2, one_epoch, "part 'train': 'epochs_per_step': the checkpoint has 2, here is 1"},
};

/* CK12: each option that counts, the prompts and the reference, by name; nothing is changed by the attempt. */
START_TEST(another_runs_file)
{
    setting s;
    float before[64], after[64];
    size_t n;
    int written = -1;
    for (size_t i = 0; i < sizeof DIFFERENCES / sizeof DIFFERENCES[0]; i++) {
        const int number = DIFFERENCES[i].number;
        if (number != written) {
            make(&s, number, 1);
            s.params.steps = 2;
            (void)run(&s, PGRAD_OK);
            drop(&s);
            written = number;
        }
        make(&s, number, 1);
        s.params.resume = PGRAD_RESUME_ON;
        DIFFERENCES[i].change(&s);
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", before, 64, &n), PGRAD_OK);
        (void)run(&s, PGRAD_E_MISMATCH);
        ck_assert_msg(strstr(pgrad_error_message(), DIFFERENCES[i].said) != NULL, "%s", pgrad_error_message());
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", after, 64, &n), PGRAD_OK);
        ck_assert_mem_eq(before, after, n * sizeof *before);
        drop(&s);
    }
}
END_TEST

/* ---- files that lie ---- */

/* Whole, with good checksums, and of no run: a prompt beyond the last, a reward that is no number. */
START_TEST(numbers_that_no_run_has)
{
    setting s;
    make(&s, 0, 1);
    s.stop_after = 3;
    (void)run(&s, PGRAD_OK);
    contents c = read_contents(s.context, checkpoint_path);
    drop(&s);
    const uint32_t train = part_named(&c, "train");
    const struct {
        unsigned char *at;
        uint64_t value;
        const char *said;
    } lies[] = {
        {number_named(&c, "train", "cursor"), PROMPTS + 1, "checkpoint: prompt 6 of 5 comes next"},
        {number_named(&c, "train", "n_skipped"), (uint64_t)1 << 32, "'n_skipped': a number beyond 32 bits"},
        {c.bytes[train] + c.sizes[train] - 8, pgrad__bits_of_real(NAN), "checkpoint: window: reward 2 is not finite"},
    };
    for (int k = 0; k < 3; k++) {
        unsigned char *at = lies[k].at;
        const uint64_t old = pgrad__get_u64(at);
        float before[16], after[16];
        size_t n;
        pgrad__put_u64(at, lies[k].value);
        make(&s, 0, 1);
        write_contents(s.context, checkpoint_path, &c, 0, c.n);
        pgrad__put_u64(at, old);
        s.params.resume = PGRAD_RESUME_ON;
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", before, 16, &n), PGRAD_OK);
        (void)run(&s, PGRAD_E_FORMAT);
        ck_assert_msg(strstr(pgrad_error_message(), lies[k].said) != NULL, "%s", pgrad_error_message());
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", after, 16, &n), PGRAD_OK);
        ck_assert_mem_eq(after, before, sizeof before);
        ck_assert_uint_eq(s.n_reports, 0);
        drop(&s);
    }
    free_contents(&c);
}
END_TEST

/* What a run of three steps leaves in its files; a line of metrics behind that, which goes when it is taken up. */
typedef struct halfway {
    contents c;
    char metrics[1 << 12];
} halfway;

enum { HALF = 3 };

static halfway run_halfway(void)
{
    halfway h = {.metrics = ""};
    setting s;
    make(&s, 0, 1);
    s.stop_after = HALF;
    (void)run(&s, PGRAD_OK);
    h.c = read_contents(s.context, checkpoint_path);
    drop(&s);
    FILE *file = fopen(metrics_path, "r");
    ck_assert_ptr_nonnull(file);
    const size_t n = fread(h.metrics, 1, sizeof h.metrics - 8, file);
    fclose(file);
    ck_assert_uint_lt(n, sizeof h.metrics - 8);
    strcpy(h.metrics + n, "behind\n");
    return h;
}

/* What a run leaves that takes this up to so many steps; where it does some, with its own part of the file that is
 * written then, as far as that is the same every time. */
typedef struct outcome {
    int refused;
    left left;
    contents parts;
} outcome;

static outcome take_up(const halfway *h, uint64_t steps)
{
    outcome o = {.refused = 0};
    setting s;
    pgrad_train_report report;
    FILE *file = fopen(metrics_path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(h->metrics, file);
    ck_assert_int_eq(fclose(file), 0);
    make(&s, 0, 1);
    write_contents(s.context, checkpoint_path, &h->c, 0, h->c.n);
    s.params.resume = PGRAD_RESUME_ON;
    s.params.steps = steps;
    const pgrad_status status = try_run(&s, &report);
    o.refused = status != PGRAD_OK;
    ck_assert_msg(!o.refused || status == PGRAD_E_FORMAT || status == PGRAD_E_MISMATCH, "%s: %s",
                  pgrad_status_name(status), pgrad_error_message());
    if (!o.refused)
        o.left = what_is_left(&s, &report);
    if (!o.refused && steps > HALF) {
        o.parts = read_contents(s.context, checkpoint_path);
        pgrad__put_u64(number_named(&o.parts, "train", "metrics_size"), 0); /* times are in it */
        pgrad__put_u64(number_named(&o.parts, "train", "metrics_crc"), 0);
    }
    drop(&s);
    return o;
}

static int is_same_outcome(const outcome *a, const outcome *b)
{
    if (a->refused != b->refused || !is_same_end(&a->left, &b->left) || a->parts.n != b->parts.n)
        return 0;
    const uint32_t i = a->parts.n == 0 ? 0 : part_named(&a->parts, "train");
    return a->parts.n == 0 || (a->parts.sizes[i] == b->parts.sizes[i] &&
                               memcmp(a->parts.bytes[i], b->parts.bytes[i], a->parts.sizes[i]) == 0);
}

static void free_outcome(outcome *o)
{
    free_left(&o->left);
    free_contents(&o->parts);
}

/* The byte is another one: refused, or the run ends otherwise, with no further step or with one. */
static void must_count(halfway *h, const outcome expected[2], unsigned char *byte, const char *what)
{
    int noticed = 0;
    *byte ^= 1;
    for (uint64_t more = 0; more < 2 && !noticed; more++) {
        outcome found = take_up(h, HALF + more);
        noticed = !is_same_outcome(&found, &expected[more]);
        free_outcome(&found);
    }
    *byte ^= 1;
    ck_assert_msg(noticed, "%s: changed, and nobody noticed", what);
}

/* CK14: of the run's own part each number counts, and each reward of the window but the one that the next takes the
 * place of. How many updates were refused in a row counts when the next one is. */
START_TEST(every_number_of_a_run_counts)
{
    halfway h = run_halfway();
    const uint32_t train = part_named(&h.c, "train");
    const unsigned char *name;
    unsigned char *number;
    size_t length;
    outcome expected[2] = {take_up(&h, HALF), take_up(&h, HALF + 1)};
    ck_assert_ptr_null(strstr(expected[0].left.metrics, "behind"));
    for (uint32_t i = 0; (number = number_at(&h.c, train, i, &name, &length)) != NULL; i++) {
        char what[64];
        snprintf(what, sizeof what, "%.*s", (int)length, name);
        if (strcmp(what, "refused_in_a_row") != 0)
            must_count(&h, expected, number, what);
    }
    for (size_t back = 1; back < HALF; back++)
        must_count(&h, expected, h.c.bytes[train] + h.c.sizes[train] - back * sizeof(double), "window");
    setting s;
    make(&s, 0, 1);
    pgrad__put_u64(number_named(&h.c, "train", "refused_in_a_row"), 2);
    write_contents(s.context, checkpoint_path, &h.c, 0, h.c.n);
    s.params.resume = PGRAD_RESUME_ON;
    s.params.learning_rate = 1e300; /* beyond f32 */
    pgrad_train_report report = run(&s, PGRAD_E_NUMERIC);
    ck_assert_uint_eq(report.n_skipped, 1);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "3 steps in a row"));
    drop(&s);
    free_outcome(&expected[0]);
    free_outcome(&expected[1]);
    free_contents(&h.c);
}
END_TEST

/* CK11: a part of a kind of tomorrow is none of the run's; a number of tomorrow in its own part may matter. */
START_TEST(what_a_newer_library_adds)
{
    static const unsigned char TOMORROW[] = "anything at all";
    halfway h = run_halfway();
    outcome expected = take_up(&h, HALF + 1);
    add_part(&h.c, 77, "of tomorrow", TOMORROW, sizeof TOMORROW);
    outcome found = take_up(&h, HALF + 1);
    ck_assert(is_same_outcome(&found, &expected));
    free_outcome(&found);
    free_outcome(&expected);
    setting s;
    make(&s, 0, 1);
    *(number_named(&h.c, "train", "cursor") - sizeof "cursor") = 'k'; /* in front of the number: its kind, its name */
    write_contents(s.context, checkpoint_path, &h.c, 0, h.c.n);
    s.params.resume = PGRAD_RESUME_ON;
    (void)run(&s, PGRAD_E_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "part 'train' has 'kursor', which this library does not know"));
    drop(&s);
    free_contents(&h.c);
}
END_TEST

/* A learning rate may change, and the log says so. CK13: a file without the optimizer is no run's. */
START_TEST(what_may_change)
{
    setting s;
    heard warning = {.word = "learning_rate"};
    pgrad_checkpoint *weights;
    make(&s, 0, 1);
    s.params.steps = 2;
    (void)run(&s, PGRAD_OK);
    drop(&s);
    make(&s, 0, 1);
    ck_assert_int_eq(pgrad_context_set_log(s.context, listen, &warning, PGRAD_LOG_WARNING), PGRAD_OK);
    s.params.resume = PGRAD_RESUME_ON;
    s.params.learning_rate = 5e-3;
    s.params.steps = 3;
    (void)run(&s, PGRAD_OK);
    ck_assert_int_eq(warning.n, 1);
    ck_assert_ptr_nonnull(strstr(warning.line, "the one given is used"));
    ck_assert_int_eq(pgrad_checkpoint_create(s.context, &weights), PGRAD_OK);
    ck_assert_int_eq(pgrad_checkpoint_add(weights, "policy", PGRAD_KIND_MODEL, s.model), PGRAD_OK);
    ck_assert_int_eq(pgrad_checkpoint_write(weights, checkpoint_path, NULL), PGRAD_OK);
    pgrad_checkpoint_free(weights);
    (void)run(&s, PGRAD_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "no part 'optimizer'"));
    clear_folder();
    (void)run(&s, PGRAD_E_IO);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "there is no checkpoint"));
    s.params.checkpoint_path = NULL;
    (void)run(&s, PGRAD_E_INVALID);
    drop(&s);
}
END_TEST

/* A metrics file that is not the one of the checkpoint is left alone. */
START_TEST(foreign_metrics)
{
    setting s;
    heard warning = {.word = "not the file"};
    char text[1 << 14];
    make(&s, 0, 1);
    s.stop_after = 2;
    (void)run(&s, PGRAD_OK);
    drop(&s);
    FILE *file = fopen(metrics_path, "w");
    for (int i = 0; i < 500; i++)
        fputs("not ours\n", file);
    fclose(file);
    make(&s, 0, 1);
    ck_assert_int_eq(pgrad_context_set_log(s.context, listen, &warning, PGRAD_LOG_WARNING), PGRAD_OK);
    s.params.resume = PGRAD_RESUME_ON;
    (void)run(&s, PGRAD_OK);
    ck_assert_int_eq(warning.n, 1);
    file = fopen(metrics_path, "r");
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    ck_assert_uint_gt(n, 4500);
    ck_assert_int_eq(memcmp(text + 4491, "not ours\n{", 10), 0);
    drop(&s);
}
END_TEST

/* A folder that is not there is told before the first step. */
START_TEST(nowhere_to_write)
{
    setting s;
    make(&s, 0, 1);
    s.params.checkpoint_path = "/nonexistent/run.pgrad";
    s.params.checkpoint_every = 1;
    pgrad_train_report report = run(&s, PGRAD_E_IO);
    ck_assert_uint_eq(report.steps, 0);
    drop(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resume_files");
    TCase *tests = tcase_create("resume_files");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 240);
    tcase_add_test(tests, damaged_files);
    tcase_add_test(tests, another_runs_file);
    tcase_add_test(tests, numbers_that_no_run_has);
    tcase_add_test(tests, every_number_of_a_run_counts);
    tcase_add_test(tests, what_a_newer_library_adds);
    tcase_add_test(tests, what_may_change);
    tcase_add_test(tests, foreign_metrics);
    tcase_add_test(tests, nowhere_to_write);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
