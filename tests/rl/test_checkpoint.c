/* Checkpoints of a host's own loop: a run taken up again equals one that was never interrupted, bit for bit,
 * from every step, in every storage, with other threads and kernel sets; what does not fit is refused and
 * changes nothing. */
#include "checkpoint_test.h"

/* Reinforced three ways: without interruption, taken up from a file after k steps by three threads of
 * another kernel set, and begun cold after k steps, which must differ. */
START_TEST(resumed_equals_uninterrupted)
{
    static const uint32_t SETS[] = {PGRAD_KERNELS_GENERIC, PGRAD_KERNELS_HASWELL, PGRAD_KERNELS_SKX};
    options with = CASES[_i];
    run whole;
    size_t size, other_size;
    ck_assert(make_run(&whole, &with));
    steps(&whole, 0, STEPS);
    unsigned char *expected = state_of(&whole, file, &size);
    drop_run(&whole);
    for (uint32_t k = 0; k < STEPS; k++) {
        run first, second, cold;
        options others = with;
        others.n_threads = 3;
        others.kernel_set = SETS[k % 3];
        ck_assert(make_run(&first, &with));
        steps(&first, 0, k);
        OK(pgrad_checkpoint_write(first.checkpoint, file, NULL));
        drop_run(&first);
        if (!make_run(&second, &others))
            continue;
        steps(&second, 0, k == 0 ? 1 : 0); /* whatever it has done before goes */
        OK(restore(&second, file));
        steps(&second, k, STEPS);
        unsigned char *found = state_of(&second, other_file, &other_size);
        ck_assert_uint_eq(other_size, size);
        ck_assert_mem_eq(found, expected, size);
        free(found);
        drop_run(&second);
        ck_assert(make_run(&cold, &with));
        steps(&cold, k, STEPS);
        found = state_of(&cold, other_file, &other_size);
        ck_assert(k == 0 || other_size != size || memcmp(found, expected, size) != 0);
        free(found);
        drop_run(&cold);
    }
    free(expected);
}
END_TEST

/* A rollout in progress: sampled and scored, not yet learned from. */
START_TEST(in_the_middle_of_a_step)
{
    run whole, first, second;
    size_t size, other_size;
    ck_assert(make_run(&whole, &CASES[0]));
    steps(&whole, 0, 3);
    unsigned char *expected = state_of(&whole, file, &size);
    drop_run(&whole);
    ck_assert(make_run(&first, &CASES[0]));
    steps(&first, 0, 2);
    sample(&first, 2);
    OK(pgrad_checkpoint_write(first.checkpoint, file, NULL));
    drop_run(&first);
    ck_assert(make_run(&second, &CASES[0]));
    OK(restore(&second, file));
    ck_assert_uint_eq(pgrad_rollout_count(second.rollout), GROUPS * SIZE);
    ck_assert_str_eq(pgrad_rollout_data(second.rollout, 1, "answer", NULL), "the data");
    learn(&second);
    unsigned char *found = state_of(&second, other_file, &other_size);
    ck_assert_uint_eq(other_size, size);
    ck_assert_mem_eq(found, expected, size);
    steps(&second, 3, 4); /* its arrays have room for more */
    free(found);
    free(expected);
    drop_run(&second);
}
END_TEST

/* Every kernel set writes the same file, a frozen Q8_0 model included. */
START_TEST(one_file_for_all_kernel_sets)
{
    unsigned char *files[4] = {NULL};
    size_t sizes[4];
    for (uint32_t set = PGRAD_KERNELS_GENERIC; set <= PGRAD_KERNELS_SKX; set++) {
        run r;
        options with = CASES[2];
        pgrad_model *frozen;
        pgrad_model_params params;
        with.kernel_set = set;
        with.n_threads = set;
        if (!make_run(&r, &with))
            continue;
        pgrad_model_params_init(&params, sizeof params);
        params.storage = PGRAD_STORAGE_Q8_0;
        params.frozen = 1;
        OK(pgrad_model_create(r.context, LLAMA, 5, &params, &frozen));
        OK(pgrad_checkpoint_add(r.checkpoint, "frozen", PGRAD_KIND_MODEL, frozen));
        steps(&r, 0, 2);
        files[set] = state_of(&r, file, &sizes[set]);
        pgrad_checkpoint *opened;
        float before[97 * 72], after[97 * 72];
        size_t n;
        OK(pgrad_model_tensor_read(frozen, "model.embed_tokens.weight", before, 97 * 72, &n));
        pgrad_model_free(frozen);
        OK(pgrad_model_create(r.context, LLAMA, 6, &params, &frozen));
        OK(pgrad_checkpoint_open(r.context, file, &opened));
        OK(pgrad_checkpoint_restore(opened, "frozen", PGRAD_KIND_MODEL, frozen));
        OK(pgrad_model_tensor_read(frozen, "model.embed_tokens.weight", after, 97 * 72, &n));
        ck_assert_mem_eq(before, after, sizeof before);
        pgrad_checkpoint_free(opened);
        pgrad_model_free(frozen);
        drop_run(&r);
        ck_assert_uint_eq(sizes[set], sizes[PGRAD_KERNELS_GENERIC]);
        ck_assert_mem_eq(files[set], files[PGRAD_KERNELS_GENERIC], sizes[set]);
    }
    for (int i = 0; i < 4; i++)
        free(files[i]);
}
END_TEST

/* ---- what is in a file ---- */

START_TEST(a_file_lists_its_parts)
{
    run r;
    pgrad_checkpoint *opened;
    char text[16];
    size_t n;
    ck_assert(make_run(&r, &CASES[0]));
    ck_assert_uint_eq(pgrad_checkpoint_count(r.checkpoint), N_PARTS + 1);
    OK(pgrad_checkpoint_add_text(r.checkpoint, "notes", "eighteen\0more", 13));
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    OK(pgrad_checkpoint_open(r.context, file, &opened));
    ck_assert_uint_eq(pgrad_checkpoint_count(opened), N_PARTS + 1);
    for (uint32_t i = 0; i <= N_PARTS; i++) {
        pgrad_checkpoint_part part = {.struct_size = sizeof part};
        OK(pgrad_checkpoint_get_part(opened, i, &part));
        ck_assert_str_eq(part.name, i < N_PARTS ? PARTS[i].name : "notes");
        ck_assert_int_eq((int32_t)part.kind, i < N_PARTS ? PARTS[i].kind : PGRAD_KIND_TEXT);
        ck_assert_uint_gt(part.size, 0);
        ck_assert_uint_gt(part.stored_bytes, 0);
    }
    FAILS(PGRAD_E_BUFFER, "14 bytes", pgrad_checkpoint_get_text(opened, "notes", NULL, 0, &n));
    ck_assert_uint_eq(n, 13);
    OK(pgrad_checkpoint_get_text(opened, "notes", text, sizeof text, &n));
    ck_assert_mem_eq(text, "eighteen\0more", 14);
    FAILS(PGRAD_E_MISMATCH, "no part 'other'", pgrad_checkpoint_get_text(opened, "other", text, 16, &n));
    FAILS(PGRAD_E_MISMATCH, "kind 0", pgrad_checkpoint_get_text(opened, "policy", text, 16, &n));
    FAILS(PGRAD_E_STATE, "opened", pgrad_checkpoint_write(opened, file, NULL));
    FAILS(PGRAD_E_STATE, "opened", pgrad_checkpoint_add(opened, "x", PGRAD_KIND_MODEL, r.model));
    FAILS(PGRAD_E_STATE, "not opened", pgrad_checkpoint_restore(r.checkpoint, "policy", 0, r.model));
    pgrad_checkpoint_part part = {.struct_size = sizeof part};
    FAILS(PGRAD_E_INVALID, "checkpoint_get_part: checkpoint is NULL", pgrad_checkpoint_get_part(NULL, 0, &part));
    FAILS(PGRAD_E_INVALID, "checkpoint_get_part: out is NULL", pgrad_checkpoint_get_part(opened, 0, NULL));
    FAILS(PGRAD_E_INVALID, "checkpoint_get_part: index: expected below 8, found 8",
          pgrad_checkpoint_get_part(opened, N_PARTS + 1, &part));
    FAILS(PGRAD_E_INVALID, "checkpoint_get_text: an argument is NULL",
          pgrad_checkpoint_get_text(opened, "notes", text, 16, NULL));
    FAILS(PGRAD_E_INVALID, "checkpoint_restore: name or handle is NULL, or 99 is no kind of handle",
          pgrad_checkpoint_restore(opened, "policy", 99, r.model));
    FAILS(PGRAD_E_INVALID, "checkpoint_restore: name or handle is NULL",
          pgrad_checkpoint_restore(opened, "policy", PGRAD_KIND_MODEL, NULL));
    pgrad_context *other = test_context(PGRAD_KERNELS_AUTO, 1);
    pgrad_sampler *stranger;
    OK(pgrad_sampler_create(other, NULL, &stranger));
    FAILS(PGRAD_E_MISMATCH, "checkpoint_restore: 'sampler' is of another context",
          pgrad_checkpoint_restore(opened, "sampler", PGRAD_KIND_SAMPLER, stranger));
    pgrad_sampler_free(stranger);
    pgrad_context_free(other);
    pgrad_checkpoint_free(opened);
    drop_run(&r);
}
END_TEST

START_TEST(bad_arguments)
{
    run r;
    pgrad_context *other = test_context(PGRAD_KERNELS_AUTO, 1);
    pgrad_sampler *stranger;
    pgrad_checkpoint_params params;
    char long_name[80];
    ck_assert(make_run(&r, &CASES[0]));
    memset(long_name, 'n', sizeof long_name);
    long_name[64] = '\0';
    OK(pgrad_sampler_create(other, NULL, &stranger));
    pgrad_checkpoint_params_init(&params, sizeof params);
    params.keep = 101;
    FAILS(PGRAD_E_INVALID, "1 to 63", pgrad_checkpoint_add(r.checkpoint, long_name, 0, r.model));
    FAILS(PGRAD_E_INVALID, "1 to 63", pgrad_checkpoint_add(r.checkpoint, "", 0, r.model));
    FAILS(PGRAD_E_INVALID, "name: expected UTF-8 without control characters, found 'a\\x0a'",
          pgrad_checkpoint_add(r.checkpoint, "a\n", 0, r.model));
    FAILS(PGRAD_E_INVALID, "name: expected UTF-8 without control characters, found 'a\\xe9'",
          pgrad_checkpoint_add(r.checkpoint, "a\xe9", 0, r.model));
    FAILS(PGRAD_E_INVALID, "kind", pgrad_checkpoint_add(r.checkpoint, "a", PGRAD_KIND_TEXT, r.model));
    FAILS(PGRAD_E_INVALID, "kind", pgrad_checkpoint_add(r.checkpoint, "a", -1, r.model));
    FAILS(PGRAD_E_INVALID, "NULL", pgrad_checkpoint_add(r.checkpoint, "a", 0, NULL));
    FAILS(PGRAD_E_STATE, "already", pgrad_checkpoint_add(r.checkpoint, "policy", 0, r.model));
    FAILS(PGRAD_E_STATE, "a model", pgrad_checkpoint_add_text(r.checkpoint, "policy", "", 0));
    FAILS(PGRAD_E_MISMATCH, "another context",
          pgrad_checkpoint_add(r.checkpoint, "s", PGRAD_KIND_SAMPLER, stranger));
    FAILS(PGRAD_E_INVALID, "keep", pgrad_checkpoint_write(r.checkpoint, file, &params));
    FAILS(PGRAD_E_INVALID, "path", pgrad_checkpoint_write(r.checkpoint, "", NULL));
    FAILS(PGRAD_E_IO, "a folder", pgrad_checkpoint_write(r.checkpoint, folder, NULL));
    FAILS(PGRAD_E_INVALID, "checkpoint_write: checkpoint is NULL", pgrad_checkpoint_write(NULL, file, NULL));
    FAILS(PGRAD_E_INVALID, "checkpoint_create: out is NULL", pgrad_checkpoint_create(r.context, NULL));
    FAILS(PGRAD_E_INVALID, "checkpoint_add_text: an argument is NULL",
          pgrad_checkpoint_add_text(r.checkpoint, "notes", NULL, 3));
    FAILS(PGRAD_E_LIMIT, "memory: a text of 18446744073709551615 bytes is too long",
          pgrad_checkpoint_add_text(r.checkpoint, "notes", "x", SIZE_MAX));
    FAILS(PGRAD_E_INVALID, "checkpoint_wait: checkpoint is NULL", pgrad_checkpoint_wait(NULL));
    FAILS(PGRAD_E_INVALID, "checkpoint_open: path or out is NULL", pgrad_checkpoint_open(r.context, file, NULL));
    pgrad_sampler_free(stranger);
    pgrad_context_free(other);
    drop_run(&r);
}
END_TEST

static int32_t write_inside(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                            pgrad_scores *scores)
{
    run *r = user;
    FAILS(PGRAD_E_BUSY, "checkpoint: called from inside a callback of the rollout",
          pgrad_checkpoint_write(r->checkpoint, file, NULL));
    return score(NULL, rollout, first, count, scores);
}

/* A rollout that is being worked on cannot be written; nor are there parts without end. */
START_TEST(too_early_and_too_many)
{
    run r;
    char name[16];
    pgrad_reward *inside = NULL;
    ck_assert(make_run(&r, &CASES[0]));
    sample(&r, 0);
    OK(pgrad_reward_create(r.context, "inside", write_inside, &r, NULL, &inside));
    OK(pgrad_reward_apply(inside, r.rollout));
    ck_assert_int_ne(access(file, F_OK), 0);
    pgrad_reward_free(inside);
    for (int i = N_PARTS + 1; i <= 1024; i++) {
        snprintf(name, sizeof name, "text %d", i);
        if (i < 1024)
            OK(pgrad_checkpoint_add_text(r.checkpoint, name, "x", 1));
    }
    FAILS(PGRAD_E_LIMIT, "checkpoint_add: 'text 1024': there are 1024 parts already",
          pgrad_checkpoint_add_text(r.checkpoint, name, "x", 1));
    ck_assert_uint_eq(pgrad_checkpoint_count(r.checkpoint), 1024);
    drop_run(&r);
}
END_TEST

/* CK12: another model, storage, optimizer or option is refused by name, and the handle stays as it was. */
START_TEST(what_differs_is_refused)
{
    const struct {
        options with;
        const char *text;
    } OTHERS[] = {
        {{GPT2, 0, PGRAD_OPTIMIZER_ADAMW, 0, 0, 1, 0.9}, "part 'policy'"},
        {{LLAMA, PGRAD_STORAGE_BF16, PGRAD_OPTIMIZER_ADAMW, 0, 0, 1, 0.9},
         "'model.embed_tokens.weight': the checkpoint has f32 [97, 72], here is bf16 [97, 72]"},
        {{LLAMA, 0, PGRAD_OPTIMIZER_ADAM, 0, 0, 1, 0.9}, "'kind': the checkpoint has 2, here is 1"},
        {{LLAMA, 0, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_Q8, 0, 1, 0.9},
         "'moments': the checkpoint has 0, here is 2"},
        {{LLAMA, 0, PGRAD_OPTIMIZER_ADAMW, 0, 0, 1, 0.8},
         "'beta1': the checkpoint has 0.9, here is 0.8"}};
    run r;
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 2);
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    drop_run(&r);
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        run other;
        size_t before_size, after_size;
        pgrad_checkpoint *opened;
        ck_assert(make_run(&other, &OTHERS[i].with));
        unsigned char *before = state_of(&other, other_file, &before_size);
        const int part = i < 2 ? 0 : 2;
        OK(pgrad_checkpoint_open(other.context, file, &opened));
        FAILS(PGRAD_E_MISMATCH, OTHERS[i].text,
              pgrad_checkpoint_restore(opened, PARTS[part].name, PARTS[part].kind, handle_of(&other, part)));
        FAILS(PGRAD_E_MISMATCH, "not a sampler",
              pgrad_checkpoint_restore(opened, "policy", PGRAD_KIND_SAMPLER, other.sampler));
        pgrad_checkpoint_free(opened);
        unsigned char *after = state_of(&other, other_file, &after_size);
        ck_assert_uint_eq(before_size, after_size);
        ck_assert_mem_eq(before, after, after_size);
        free(before);
        free(after);
        drop_run(&other);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, resumed_equals_uninterrupted, 0, N_CASES);
    tcase_add_test(tests, in_the_middle_of_a_step);
    tcase_add_test(tests, one_file_for_all_kernel_sets);
    tcase_add_test(tests, a_file_lists_its_parts);
    tcase_add_test(tests, bad_arguments);
    tcase_add_test(tests, too_early_and_too_many);
    tcase_add_test(tests, what_differs_is_refused);
}

int main(void)
{
    return run_checkpoint_suite("checkpoint", add);
}
