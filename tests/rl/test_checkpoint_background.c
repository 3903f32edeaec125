/* Checkpoints written behind the run: their state is that of the call; forks, failures and memory that runs out. */
#include "checkpoint_test.h"

#include <math.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../failing_allocator.h"

static pgrad_checkpoint_params background(void)
{
    pgrad_checkpoint_params params;
    pgrad_checkpoint_params_init(&params, sizeof params);
    params.background = 1;
    params.keep = 2;
    return params;
}

/* The file has the state of the moment it was asked for, whatever the run does meanwhile. */
START_TEST(behind_the_run)
{
    run r;
    size_t size, other_size;
    char old[620];
    pgrad_checkpoint_params params = background();
    snprintf(old, sizeof old, "%s.1", other_file);
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 2);
    unsigned char *expected = state_of(&r, file, &size);
    OK(pgrad_checkpoint_write(r.checkpoint, other_file, &params));
    steps(&r, 2, 4);
    OK(pgrad_checkpoint_add_text(r.checkpoint, "notes", "changed", 7));
    OK(pgrad_checkpoint_write(r.checkpoint, other_file, &params));
    OK(pgrad_checkpoint_wait(r.checkpoint));
    OK(pgrad_checkpoint_wait(r.checkpoint));
    FILE *from = fopen(old, "rb");
    ck_assert_ptr_nonnull(from);
    unsigned char *found = malloc(size);
    other_size = fread(found, 1, size, from);
    fclose(from);
    ck_assert_uint_eq(other_size, size);
    ck_assert_mem_eq(found, expected, size);
    free(found);
    free(expected);
    OK(pgrad_checkpoint_write(r.checkpoint, other_file, &params));
    drop_run(&r); /* waits */
}
END_TEST

/* CK16: a relative path is what it was at the call, though the file gets there later: the first one and the next,
 * before which it becomes an older one. */
START_TEST(the_process_goes_elsewhere)
{
    run r;
    char before[4096], old[620], elsewhere[600];
    pgrad_checkpoint_params params = background();
    pgrad_checkpoint *opened;
    ck_assert_ptr_nonnull(getcwd(before, sizeof before));
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", folder);
    snprintf(old, sizeof old, "%s.1", file);
    ck_assert_int_eq(mkdir(elsewhere, 0777), 0);
    ck_assert(make_run(&r, &CASES[0]));
    for (int round = 0; round < 2; round++) {
        ck_assert_int_eq(chdir(folder), 0);
        hold = 1;
        OK(pgrad_checkpoint_write(r.checkpoint, "run.pgrad", &params));
        ck_assert_int_eq(chdir(elsewhere), 0);
        ck_assert_int_eq(access(round == 0 ? file : old, F_OK), -1);
        hold = 0;
        OK(pgrad_checkpoint_wait(r.checkpoint));
        OK(pgrad_checkpoint_open(r.context, round == 0 ? file : old, &opened));
        pgrad_checkpoint_free(opened);
    }
    ck_assert_int_eq(chdir(before), 0);
    ck_assert_int_eq(rmdir(elsewhere), 0); /* it is empty */
    drop_run(&r);
}
END_TEST

/* A child of the process has no thread to wait for, and the parent's file is none of its business. */
START_TEST(a_forked_child_lets_go)
{
    run r;
    int status;
    pgrad_checkpoint_params params = background();
    pgrad_checkpoint *opened;
    ck_assert(make_run(&r, &CASES[0]));
    hold = 1;
    OK(pgrad_checkpoint_write(r.checkpoint, file, &params));
    steps(&r, 0, 1);
    ck_assert_int_ne(access(file, F_OK), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        hold = 0;
        if (pgrad_checkpoint_write(r.checkpoint, file, &params) != PGRAD_E_STATE)
            _exit(1);
        pgrad_checkpoint_free(r.checkpoint);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    hold = 0;
    OK(pgrad_checkpoint_wait(r.checkpoint));
    OK(pgrad_checkpoint_open(r.context, file, &opened));
    pgrad_checkpoint_free(opened);
    drop_run(&r);
}
END_TEST

/* What failed behind the run is told by the next call, once. */
START_TEST(failures_behind_the_run)
{
    run r;
    pgrad_checkpoint_params params = background();
    float nothing[72];
    size_t n;
    ck_assert(make_run(&r, &CASES[0]));
    OK(pgrad_model_tensor_read(r.model, "model.norm.weight", nothing, 72, &n));
    ((float *)r.model->tensors[r.model->n_tensors - 1].data)[0] = NAN;
    OK(pgrad_checkpoint_write(r.checkpoint, file, &params));
    FAILS(PGRAD_E_NUMERIC, "not finite", pgrad_checkpoint_write(r.checkpoint, file, &params));
    ck_assert_int_ne(access(file, F_OK), 0); /* CK18 */
    FAILS(PGRAD_E_NUMERIC, "not finite", pgrad_checkpoint_write(r.checkpoint, file, NULL));
    drop_run(&r);
}
END_TEST

static void count_lines(void *user, int32_t level, const char *line)
{
    (void)level;
    *(int *)user += strstr(line, "not in the background") != NULL;
}

/* Each allocation of write, background or not, open and restore fails in turn. */
START_TEST(out_of_memory)
{
    counted state = {-1, 0};
    pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context_params context_params;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_checkpoint *checkpoint, *opened;
    pgrad_checkpoint_params params = background();
    int fallbacks = 0;
    pgrad_context_params_init(&context_params, sizeof context_params);
    context_params.n_threads = 1;
    context_params.allocator = &allocator;
    OK(pgrad_context_create(&context_params, &context));
    OK(pgrad_context_set_log(context, count_lines, &fallbacks, PGRAD_LOG_WARNING));
    OK(pgrad_model_create(context, LLAMA, 3, NULL, &model));
    OK(pgrad_checkpoint_create(context, &checkpoint));
    OK(pgrad_checkpoint_add(checkpoint, "policy", PGRAD_KIND_MODEL, model));
    const long alive = state.live;
    for (int call = 0; call < 3; call++)
        for (long n = 1;; n++) {
            params.background = call == 1;
            state.left = n;
            pgrad_status status = call < 2 ? pgrad_checkpoint_write(checkpoint, file, &params)
                                           : pgrad_checkpoint_open(context, file, &opened);
            if (call == 2 && status == PGRAD_OK) {
                status = pgrad_checkpoint_restore(opened, "policy", PGRAD_KIND_MODEL, model);
                pgrad_checkpoint_free(opened);
            }
            const int failed = state.left <= 0;
            state.left = -1;
            OK(pgrad_checkpoint_wait(checkpoint));
            ck_assert(status == PGRAD_OK || status == PGRAD_E_NOMEM);
            ck_assert(failed || status == PGRAD_OK);
            ck_assert_int_le(state.live, alive + (call > 0)); /* the copy's memory stays */
            if (!failed)
                break;
        }
    ck_assert_int_gt(fallbacks, 0);
    pgrad_checkpoint_free(checkpoint);
    pgrad_model_free(model);
    pgrad_context_free(context);
    ck_assert_int_eq(state.live, 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, behind_the_run);
    tcase_add_test(tests, the_process_goes_elsewhere);
    tcase_add_test(tests, a_forked_child_lets_go);
    tcase_add_test(tests, failures_behind_the_run);
    tcase_add_test(tests, out_of_memory);
}

int main(void)
{
    return run_checkpoint_suite("checkpoint_background", add);
}
