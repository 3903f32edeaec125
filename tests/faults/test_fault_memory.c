/* AL01: the host's allocator refuses the n-th block, or all from the n-th on, in every call of stage.h: E_NOMEM,
 * or success where the memory was only good to have; no block is lost, no file is half or left, and the next try has
 * the bits of a run that was never refused. */
#include "blocks.h"

static void *take(void *user, size_t size, size_t alignment)
{
    (void)user;
    void *block = take_chance() ? NULL : aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (block != NULL)
        atomic_fetch_add(&blocks, 1);
    return block;
}

static void give(void *user, void *block, size_t size)
{
    (void)user;
    (void)size;
    atomic_fetch_sub(&blocks, 1);
    free(block);
}

static const fault FAULTS[] = {{"allocation", 0, 200, held_blocks, no_memory},
                               {"allocations from", 1, 60, held_blocks, no_memory}};

static void refuse_memory(const fault *f, int row)
{
    static stage s;
    static const pgrad_allocator allocator = {NULL, take, give};
    open_stage(&s, &allocator, 1);
    ck_assert_int_gt(sweep(&s, &SCENARIOS[row], f), 0);
    close_stage(&s);
    ck_assert_int_eq(blocks, 0);
}

START_TEST(al01_once)
{
    refuse_memory(&FAULTS[0], _i);
}
END_TEST

START_TEST(al01_for_good)
{
    refuse_memory(&FAULTS[1], _i);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fault_memory");
    TCase *tests = tcase_create("fault_memory");
    tcase_set_timeout(tests, 240);
    tcase_add_loop_test(tests, al01_once, 0, N_SCENARIOS);
    tcase_add_loop_test(tests, al01_for_good, 0, N_SCENARIOS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
