/* Every malloc of the process fails in turn, those of jansson, PCRE2, utf8proc and the C library among them: an
 * error that says so, nothing lost, and the next try has the same bits. The functions here stand in for the C
 * library's, for shared libraries too; under sanitizers, which do the same, and with another C library than glibc
 * there is nothing to run. */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>

#if defined(__GLIBC__) && !defined(PGRAD_SANITIZED)

#include "blocks.h"

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

static int refused(void)
{
    if (!take_chance())
        return 0;
    errno = ENOMEM;
    return 1;
}

static void *counted_block(void *block)
{
    if (block != NULL)
        atomic_fetch_add(&blocks, 1);
    return block;
}

void *malloc(size_t size)
{
    return refused() ? NULL : counted_block(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return refused() ? NULL : counted_block(__libc_calloc(count, size));
}

void *realloc(void *block, size_t size)
{
    if (block == NULL)
        return malloc(size);
    if (size == 0) {
        free(block);
        return NULL;
    }
    return refused() ? NULL : __libc_realloc(block, size);
}

void *memalign(size_t alignment, size_t size)
{
    return refused() ? NULL : counted_block(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *block = memalign(alignment, size);
    if (block == NULL)
        return ENOMEM;
    *out = block;
    return 0;
}

void free(void *block)
{
    if (block != NULL)
        atomic_fetch_sub(&blocks, 1);
    __libc_free(block);
}

static const fault MALLOC = {"malloc", 0, 200, held_blocks, no_memory};

/* Twice: what a first failure leaves with the C library is no loss. */
START_TEST(al01_every_malloc)
{
    static stage s;
    open_stage(&s, NULL, 1);
    const uint64_t result = undisturbed(&s, &SCENARIOS[_i]); /* and what a first call leaves */
    SCENARIOS[_i].begin(&s);
    arm(2, 2);
    (void)SCENARIOS[_i].run(&s);
    (void)disarm();
    clear_stage(&s);
    (void)drop_left_overs(&s);
    ck_assert_int_gt(sweep(&s, &SCENARIOS[_i], &MALLOC), 0);
    ck_assert(undisturbed(&s, &SCENARIOS[_i]) == result);
    close_stage(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fault_malloc");
    TCase *tests = tcase_create("fault_malloc");
    tcase_set_timeout(tests, 240);
    tcase_add_loop_test(tests, al01_every_malloc, 0, N_SCENARIOS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}

#else

int main(void)
{
    fprintf(stderr, "skipped: malloc is the sanitizer's, or the C library is not glibc\n");
    return 77;
}

#endif
