/* pgrad_train taken up again: from every step, with other threads, stopped in order or killed in the middle, it
 * ends as if nothing had been, wherever the process goes meanwhile; and where it is at work no other run is. */
#include <sys/wait.h>

#include "resume_test.h"

/* ---- resuming ---- */

/* The host stops it after k steps; three threads take it up. Begun cold, it ends elsewhere. */
START_TEST(stopped_in_order)
{
    left expected = uninterrupted(_i);
    for (uint32_t k = 1; k < STEPS; k++) {
        setting s;
        make(&s, _i, 1);
        s.stop_after = k;
        (void)run(&s, PGRAD_OK);
        drop(&s);
        make(&s, _i, 3);
        s.params.resume = PGRAD_RESUME_ON;
        s.params.checkpoint_background = k % 2;
        pgrad_train_report report = run(&s, PGRAD_OK);
        ck_assert_uint_ge(report.steps_before, k);
        left found = what_is_left(&s, &report);
        same_end(&found, &expected);
        free_left(&found);
        drop(&s);
        clear_folder();
        make(&s, _i, 1); /* cold */
        s.params.steps = STEPS - k;
        report = run(&s, PGRAD_OK);
        found = what_is_left(&s, &report);
        ck_assert_int_ne(memcmp(found.weights, expected.weights, expected.n * sizeof(float)), 0);
        free_left(&found);
        drop(&s);
        clear_folder();
    }
    free_left(&expected);
}
END_TEST

/* It fails in the middle of a step that no checkpoint has: the metrics of the steps behind the last one go. */
START_TEST(failed_in_the_middle)
{
    left expected = uninterrupted(_i);
    for (uint32_t every = 1; every <= 2; every++)
        for (uint32_t k = 1; k <= (_i == 2 ? STEPS / 2 : STEPS); k++) {
            setting s;
            uint32_t tries = 0;
            make(&s, _i, 2);
            s.params.resume = PGRAD_RESUME_AUTO;
            s.params.checkpoint_every = every;
            s.die_at = k;
            (void)run(&s, PGRAD_E_CALLBACK);
            drop(&s);
            if (access(checkpoint_path, F_OK) != 0)
                remove(metrics_path); /* nothing to take up: the host begins anew */
            else
                tries = 1;
            make(&s, _i, 1);
            s.params.resume = tries ? PGRAD_RESUME_ON : PGRAD_RESUME_AUTO;
            s.params.checkpoint_every = every;
            pgrad_train_report report = run(&s, PGRAD_OK);
            left found = what_is_left(&s, &report);
            same_end(&found, &expected);
            free_left(&found);
            drop(&s);
            clear_folder();
        }
    free_left(&expected);
}
END_TEST

/* CK01: killed again and again, each time a little later, until it is through. */
START_TEST(killed_again_and_again)
{
    left expected = uninterrupted(1);
    int kills = 0, status = -1;
    for (; kills < 20 && status != 0; kills++) {
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            setting s;
            make(&s, 1, 1 + (uint32_t)kills % 3);
            s.params.resume = PGRAD_RESUME_AUTO;
            s.params.checkpoint_every = 1;
            s.kill = 1;
            s.die_at = 3;
            pgrad_train_report report = run(&s, PGRAD_OK);
            left found = what_is_left(&s, &report);
            same_end(&found, &expected);
            _exit(0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
        ck_assert_int_eq(access(lock_path, F_OK), WIFSIGNALED(status) ? 0 : -1); /* CK15: no obstacle */
    }
    ck_assert_int_eq(status, 0);
    ck_assert_int_ge(kills, 3);
    free_left(&expected);
}
END_TEST

/* The time is over in a rollout: its prompts are the next ones again. */
static int32_t dawdle(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user, (void)total;
    if (strcmp(what, "generate") == 0 && done > 0)
        usleep(400000);
    return 1;
}

START_TEST(the_time_is_over)
{
    left expected = uninterrupted(0);
    setting s;
    make(&s, 0, 1);
    ck_assert_int_eq(pgrad_context_set_progress(s.context, dawdle, NULL), PGRAD_OK);
    s.params.max_seconds = 0.3;
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_SECONDS);
    ck_assert_uint_lt(report.steps, STEPS);
    drop(&s);
    make(&s, 0, 1);
    s.params.resume = PGRAD_RESUME_ON;
    report = run(&s, PGRAD_OK);
    left found = what_is_left(&s, &report);
    same_end(&found, &expected);
    free_left(&found);
    free_left(&expected);
    drop(&s);
}
END_TEST

static int32_t add_notes(void *user, pgrad_checkpoint *checkpoint)
{
    char text[40];
    int *calls = user;
    snprintf(text, sizeof text, "the host was asked %d times", ++*calls);
    ck_assert_int_eq(pgrad_checkpoint_add_text(checkpoint, "host", text, strlen(text)), PGRAD_OK);
    return *calls < 4;
}

START_TEST(texts_of_the_host)
{
    setting s;
    pgrad_checkpoint *opened;
    int calls = 0;
    char text[64];
    size_t n;
    make(&s, 0, 1);
    s.params.on_checkpoint = add_notes;
    s.params.on_checkpoint_user = &calls;
    s.params.checkpoint_every = 1;
    s.params.steps = 3;
    (void)run(&s, PGRAD_OK); /* the end is the third */
    ck_assert_int_eq(calls, 3);
    ck_assert_int_eq(pgrad_checkpoint_open(s.context, checkpoint_path, &opened), PGRAD_OK);
    ck_assert_int_eq(pgrad_checkpoint_get_text(opened, "host", text, sizeof text, &n), PGRAD_OK);
    ck_assert_str_eq(text, "the host was asked 3 times");
    ck_assert_uint_eq(pgrad_checkpoint_count(opened), 7);
    pgrad_checkpoint_free(opened);
    s.params.resume = PGRAD_RESUME_ON;
    s.params.steps = 5;
    (void)run(&s, PGRAD_E_CALLBACK);
    drop(&s);
}
END_TEST

/* The last three rewards are those of the last three steps, on whichever side of the stop. */
START_TEST(the_target_is_reached_as_ever)
{
    for (uint32_t k = 1; k <= 3; k++) { /* 3: nobody stops it */
        setting s;
        pgrad_train_report report;
        make(&s, 0, 1);
        s.params.target_reward = -1.0; /* of all, as soon as there are three */
        if (k < 3) {
            s.stop_after = k;
            report = run(&s, PGRAD_OK);
            ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_HOST);
            s.stop_after = 0;
            s.params.resume = PGRAD_RESUME_ON;
        }
        report = run(&s, PGRAD_OK);
        ck_assert_uint_eq(report.steps, 3);
        ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_TARGET);
        drop(&s);
        clear_folder();
    }
}
END_TEST

/* ---- the host goes elsewhere, and other runs come ---- */

static int32_t go_elsewhere(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    (void)user, (void)report, (void)rollout;
    ck_assert_int_eq(chdir("/"), 0);
    return 1;
}

/* CK16: relative paths are what they were when the run was called for, in every step: also that of the metrics, whose
 * lines behind the last checkpoint go. */
START_TEST(the_host_goes_elsewhere)
{
    left expected = uninterrupted(0);
    setting s;
    char before[4096], saved[96];
    snprintf(saved, sizeof saved, "%s/saved/model.safetensors", folder);
    ck_assert_ptr_nonnull(getcwd(before, sizeof before));
    for (int half = 0; half < 2; half++) {
        ck_assert_int_eq(chdir(folder), 0);
        make(&s, 0, 1);
        s.params.report = go_elsewhere;
        s.params.checkpoint_path = "run.pgrad";
        s.params.metrics_path = "metrics.jsonl";
        s.params.save_path = "saved";
        s.params.checkpoint_every = 2;
        s.die_at = half == 0 ? 4 : 0; /* the third step's line is there, its checkpoint is not */
        s.params.resume = half == 0 ? PGRAD_RESUME_OFF : PGRAD_RESUME_ON;
        pgrad_train_report report = run(&s, half == 0 ? PGRAD_E_CALLBACK : PGRAD_OK);
        ck_assert_int_eq(access(checkpoint_path, F_OK), 0);
        ck_assert_int_eq(access(saved, F_OK), half == 0 ? -1 : 0);
        if (half == 1) {
            left found = what_is_left(&s, &report);
            same_end(&found, &expected);
            free_left(&found);
        }
        drop(&s);
    }
    ck_assert_int_eq(chdir(before), 0);
    free_left(&expected);
}
END_TEST

typedef struct company {
    setting run;
    char link[96];
    int told[2]; /* a pipe: when it is closed the child that waits ends */
    pid_t waits; /* it has all descriptors of the run */
    int in_child;
} company;

/* A run of these paths (NULL: none), in a context of its own. */
static void is_refused(const char *checkpoint, const char *metrics, const char *said)
{
    setting s;
    make(&s, 0, 1);
    s.params.checkpoint_path = checkpoint;
    s.params.metrics_path = metrics;
    (void)run(&s, PGRAD_E_BUSY);
    ck_assert_msg(strstr(pgrad_error_message(), said) != NULL, "%s", pgrad_error_message());
    ck_assert_uint_eq(s.n_reports, 0);
    drop(&s);
}

/* By this process and another one; through a link, too. */
static void all_are_refused(const company *c)
{
    is_refused(checkpoint_path, NULL, "run.pgrad.lock: another run is at work there");
    is_refused(c->link, NULL, "run.pgrad.lock: another run is at work there");
    is_refused(NULL, metrics_path, "metrics.jsonl: another run is at work there");
}

static void in_a_child(const company *c)
{
    int status;
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        all_are_refused(c);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int32_t others_come(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    company *c = user;
    int status;
    (void)rollout;
    if (report->step != 2)
        return 1;
    all_are_refused(c);
    in_a_child(c);
    c->waits = fork();
    ck_assert_int_ge(c->waits, 0);
    if (c->waits == 0) {
        char byte;
        close(c->told[1]);
        _exit(read(c->told[0], &byte, 1) == 0 ? 0 : 1);
    }
    const pid_t leaves = fork();
    ck_assert_int_ge(leaves, 0);
    if (leaves == 0) {
        c->in_child = 1;
        return 0; /* the child leaves the run; it is not its own */
    }
    ck_assert_int_eq(waitpid(leaves, &status, 0), leaves);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    all_are_refused(c);
    return 1;
}

/* CK15: where a run is at work another one is refused, and this one not disturbed; behind its end nothing stays locked,
 * not even by a child of its time. */
START_TEST(another_run_is_at_work)
{
    static company c;
    left expected = uninterrupted(0);
    int status;
    snprintf(c.link, sizeof c.link, "%s/link", folder);
    ck_assert_int_eq(symlink("run.pgrad", c.link), 0);
    ck_assert_int_eq(pipe(c.told), 0);
    make(&c.run, 0, 1);
    c.run.params.report = others_come;
    c.run.params.report_user = &c;
    c.run.params.checkpoint_every = 1;
    c.run.params.checkpoint_background = 0; /* the link leads somewhere when the others come */
    pgrad_train_report report;
    const pgrad_status ended = try_run(&c.run, &report);
    if (c.in_child) {
        is_refused(checkpoint_path, NULL, "another run is at work");
        is_refused(NULL, metrics_path, "another run is at work");
        _exit(0);
    }
    ck_assert_int_eq(ended, PGRAD_OK);
    left found = what_is_left(&c.run, &report);
    same_end(&found, &expected);
    free_left(&found);
    drop(&c.run);
    ck_assert_int_eq(access(lock_path, F_OK), -1);
    make(&c.run, 0, 1);
    c.run.params.resume = PGRAD_RESUME_ON;
    (void)run(&c.run, PGRAD_OK);
    drop(&c.run);
    ck_assert_int_eq(close(c.told[1]), 0);
    ck_assert_int_eq(waitpid(c.waits, &status, 0), c.waits);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    free_left(&expected);
}
END_TEST

/* What is no regular file is shared as ever: a device, a pipe. */
static int32_t shares_a_device(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    setting s;
    (void)user, (void)rollout;
    if (report->step != 1)
        return 1;
    make(&s, 0, 1);
    s.params.checkpoint_path = NULL;
    s.params.metrics_path = "/dev/null";
    s.params.steps = 1;
    (void)run(&s, PGRAD_OK);
    drop(&s);
    return 1;
}

START_TEST(devices_are_shared)
{
    setting s;
    make(&s, 0, 1);
    s.params.metrics_path = "/dev/null";
    s.params.report = shares_a_device;
    s.params.steps = 1;
    (void)run(&s, PGRAD_OK);
    drop(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resume");
    TCase *tests = tcase_create("resume");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 240);
    tcase_add_loop_test(tests, stopped_in_order, 0, 3);
    tcase_add_loop_test(tests, failed_in_the_middle, 0, 3);
    tcase_add_test(tests, killed_again_and_again);
    tcase_add_test(tests, the_time_is_over);
    tcase_add_test(tests, the_target_is_reached_as_ever);
    tcase_add_test(tests, texts_of_the_host);
    tcase_add_test(tests, the_host_goes_elsewhere);
    tcase_add_test(tests, another_run_is_at_work);
    tcase_add_test(tests, devices_are_shared);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
