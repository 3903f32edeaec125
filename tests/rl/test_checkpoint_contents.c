/* What is in a checkpoint counts: every number and array of every part; and any of it may be a lie. */
#include "checkpoint_test.h"

#include "../checkpoint_contents.h"
#include "rl/state.h"

/* Restores the changed file and goes on: refused, or another end than `expected`. */
static void must_count(const contents *c, const unsigned char *expected, size_t size, const char *what)
{
    run r;
    ck_assert(make_run(&r, &CASES[2]));
    write_contents(r.context, other_file, c, 0, N_PARTS + 1);
    pgrad_status status = restore(&r, other_file);
    if (status == PGRAD_OK) {
        size_t n;
        steps(&r, 2, 3);
        unsigned char *found = state_of(&r, other_file, &n);
        ck_assert_msg(n != size || memcmp(found, expected, n) != 0, "%s: changed, and nobody noticed", what);
        free(found);
    } else {
        ck_assert_msg(status == PGRAD_E_FORMAT || status == PGRAD_E_MISMATCH ||
                          status == PGRAD_E_UNSUPPORTED || status == PGRAD_E_LIMIT,
                      "%s: %s: %s", what, pgrad_status_name(status), pgrad_error_message());
    }
    drop_run(&r);
}

/* Each number of each part, and the first and last byte of its arrays. The rollout is put aside: the next
 * step begins another one. */
START_TEST(every_field_counts)
{
    run r;
    size_t size;
    ck_assert(make_run(&r, &CASES[2]));
    steps(&r, 0, 2);
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    contents c = read_contents(r.context, file);
    steps(&r, 2, 3);
    unsigned char *expected = state_of(&r, other_file, &size);
    drop_run(&r);
    for (uint32_t part = 0; part < N_PARTS; part++) {
        if (part == ROLLOUT)
            continue;
        const unsigned char *name;
        unsigned char *number;
        size_t length;
        for (uint32_t i = 0; (number = number_at(&c, part, i, &name, &length)) != NULL; i++) {
            char what[100];
            const size_t byte = i % 2 == 0 ? 0 : 7; /* low or high */
            snprintf(what, sizeof what, "%s: %.*s", c.parts[part].name, (int)length, name);
            number[byte] ^= 1;
            must_count(&c, expected, size, what);
            number[byte] ^= 1;
        }
        const size_t at = (size_t)(name - c.bytes[part]);
        const size_t last = c.sizes[part] - 1;
        for (int end = 0; end < 2 && c.sizes[part] > at; end++) {
            unsigned char *byte = &c.bytes[part][end == 0 ? at : last];
            *byte ^= 4;
            must_count(&c, expected, size, c.parts[part].name);
            *byte ^= 4;
        }
    }
    free_contents(&c);
    free(expected);
}
END_TEST

/* CK14: any byte of a rollout's part may be anything: told, or taken and used, and nothing else. */
START_TEST(hostile_rollouts)
{
    run r;
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 1);
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    contents c = read_contents(r.context, file);
    int refused = 0, tried = 0;
    for (size_t at = 0; at < c.sizes[ROLLOUT]; at += at < 1500 ? 1 : 37) {
        static const unsigned char VALUES[] = {0xff, 0x80, 1};
        pgrad_checkpoint *opened;
        const unsigned char before = c.bytes[ROLLOUT][at];
        c.bytes[ROLLOUT][at] ^= VALUES[at % 3];
        write_contents(r.context, other_file, &c, ROLLOUT, ROLLOUT + 1);
        OK(pgrad_checkpoint_open(r.context, other_file, &opened));
        pgrad_status status =
            pgrad_checkpoint_restore(opened, "rollout", PGRAD_KIND_ROLLOUT, r.rollout);
        pgrad_checkpoint_free(opened);
        c.bytes[ROLLOUT][at] = before;
        tried++;
        refused += status != PGRAD_OK;
        if (status == PGRAD_OK) {
            pgrad_step_report report;
            pgrad_step_report_init(&report, sizeof report);
            (void)pgrad_rollout_report(r.rollout, &report);
            (void)pgrad_rollout_data(r.rollout, 0, "answer", NULL);
            for (uint32_t i = 0; i < pgrad_rollout_count(r.rollout); i++)
                (void)pgrad_rollout_text(r.rollout, i, NULL);
            (void)pgrad_rollout_score(r.rollout, r.reference, PGRAD_REFERENCE);
        }
    }
    ck_assert_int_gt(refused, tried / 4);
    free_contents(&c);
    drop_run(&r);
}
END_TEST

/* Numbers that no run has: told by part and name, and the handle stays as it was. */
START_TEST(numbers_that_no_run_has)
{
    static const struct {
        int part;
        const char *number, *text;
        uint64_t value;
        double real; /* where value is 0 */
    } LIES[] = {
        {2, "learning_rate", "optimizer.learning_rate: expected a number >= 0, the checkpoint has -0.5", 0, -0.5},
        {2, "learning_rate", "'learning_rate': it is not finite", 0, NAN},
        {2, "step", "'step': a count beyond 2^53", (1ull << 53) + 1, 0},
    };
    run r;
    size_t size, size_after;
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 1);
    unsigned char *before = state_of(&r, file, &size);
    contents c = read_contents(r.context, file);
    for (size_t i = 0; i < sizeof LIES / sizeof LIES[0]; i++) {
        const int part = LIES[i].part;
        unsigned char *number = number_named(&c, PARTS[part].name, LIES[i].number);
        const uint64_t old = pgrad__get_u64(number);
        pgrad_checkpoint *opened;
        pgrad__put_u64(number, LIES[i].value != 0 ? LIES[i].value
                                                              : pgrad__bits_of_real(LIES[i].real));
        write_contents(r.context, other_file, &c, 0, c.n);
        pgrad__put_u64(number, old);
        OK(pgrad_checkpoint_open(r.context, other_file, &opened));
        FAILS(PGRAD_E_FORMAT, LIES[i].text,
              pgrad_checkpoint_restore(opened, PARTS[part].name, PARTS[part].kind, handle_of(&r, part)));
        pgrad_checkpoint_free(opened);
    }
    unsigned char *after = state_of(&r, other_file, &size_after);
    ck_assert_uint_eq(size_after, size);
    ck_assert_mem_eq(after, before, size);
    free(after);
    free(before);
    free_contents(&c);
    drop_run(&r);
}
END_TEST

/* A weight that is no number; an optimizer's part without its first number. */
START_TEST(parts_that_no_run_has)
{
    run r;
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 1);
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    contents c = read_contents(r.context, file);
    const unsigned char *name;
    size_t length;
    const float not_a_number = NAN;
    memcpy(c.bytes[0] + c.sizes[0] - sizeof not_a_number, &not_a_number, sizeof not_a_number);
    unsigned char *optimizer = c.bytes[2], *second = number_at(&c, 2, 0, &name, &length) + 8;
    c.sizes[2] -= (size_t)(second - (optimizer + 8));
    pgrad__put_u32(optimizer, pgrad__get_u32(optimizer) - 1);
    char said[100];
    snprintf(said, sizeof said, "'%.*s': missing", (int)length, name);
    memmove(optimizer + 8, second, c.sizes[2] - 8);
    write_contents(r.context, other_file, &c, 0, c.n);
    for (int part = 0; part <= 2; part += 2) {
        pgrad_checkpoint *opened;
        OK(pgrad_checkpoint_open(r.context, other_file, &opened));
        FAILS(PGRAD_E_FORMAT, part == 0 ? "': a value that is not finite" : said,
              pgrad_checkpoint_restore(opened, PARTS[part].name, PARTS[part].kind, handle_of(&r, part)));
        pgrad_checkpoint_free(opened);
    }
    free_contents(&c);
    drop_run(&r);
}
END_TEST

/* Names that the file has no room for, or has already, are refused where they would be written. */
START_TEST(names_that_are_too_long_or_taken)
{
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 1);
    pgrad__checkpoint_writer to = {0};
    pgrad__state state;
    char name[513];
    uint64_t number = 7;
    memset(name, 'n', sizeof name);
    name[512] = '\0';
    pgrad__state_init(&state, context);
    OK(pgrad__state_u64(&state, name, &number, 0));
    FAILS(PGRAD_E_INTERNAL, "two numbers are called 'nnn", pgrad__state_u64(&state, name, &number, 0));
    OK(pgrad__checkpoint_writer_open(context, file, 2, &to));
    FAILS(PGRAD_E_LIMIT, "a name of 512 bytes is too long",
          pgrad__state_write(&state, PGRAD_KIND_SAMPLER, "part", &to, NULL, 0));
    FAILS(PGRAD_E_INTERNAL, "a part's name of 64 bytes",
          pgrad__checkpoint_writer_begin(&to, PGRAD_KIND_SAMPLER, name + 512 - 64));
    pgrad__checkpoint_writer_close(&to);
    pgrad__state_free(&state);
    pgrad_context_free(context);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, every_field_counts);
    tcase_add_test(tests, numbers_that_no_run_has);
    tcase_add_test(tests, parts_that_no_run_has);
    tcase_add_test(tests, hostile_rollouts);
    tcase_add_test(tests, names_that_are_too_long_or_taken);
}

int main(void)
{
    return run_checkpoint_suite("checkpoint_contents", add);
}
