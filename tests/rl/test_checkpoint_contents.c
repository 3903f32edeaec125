/* What is in a checkpoint counts: every number and array of every part; and any of it may be a lie. */
#include "checkpoint_test.h"

#include "io/checkpoint_file.h"
#include "io/little_endian.h"

typedef struct contents {
    unsigned char *bytes[N_PARTS + 1];
    size_t sizes[N_PARTS + 1];
    pgrad__checkpoint_part parts[N_PARTS + 1];
} contents;

static contents read_contents(pgrad_context *context)
{
    contents c;
    pgrad__checkpoint_file from = {0};
    OK(pgrad__checkpoint_file_open(context, file, &from));
    for (int i = 0; i <= N_PARTS; i++) {
        pgrad__checkpoint_stream stream;
        c.parts[i] = from.parts[i];
        c.sizes[i] = (size_t)from.parts[i].size;
        c.bytes[i] = malloc(c.sizes[i]);
        pgrad__checkpoint_stream_begin(&stream, &from, &from.parts[i]);
        OK(pgrad__checkpoint_stream_read(&stream, c.bytes[i], c.sizes[i]));
    }
    pgrad__checkpoint_file_close(&from);
    return c;
}

static void write_contents(pgrad_context *context, const contents *c, int first, int end)
{
    pgrad__checkpoint_writer to = {0};
    OK(pgrad__checkpoint_writer_open(context, other_file, N_PARTS + 1, &to));
    for (int i = first; i < end; i++) {
        OK(pgrad__checkpoint_writer_begin(&to, c->parts[i].kind, c->parts[i].name));
        OK(pgrad__checkpoint_writer_put(&to, c->bytes[i], c->sizes[i]));
        OK(pgrad__checkpoint_writer_end(&to));
    }
    OK(pgrad__checkpoint_writer_finish(&to, 1));
    pgrad__checkpoint_writer_close(&to);
}

/* Restores the changed file and goes on: refused, or another end than `expected`. */
static void must_count(const contents *c, const unsigned char *expected, size_t size, const char *what)
{
    run r;
    ck_assert(make_run(&r, &CASES[2]));
    write_contents(r.context, c, 0, N_PARTS + 1);
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
    contents c = read_contents(r.context);
    steps(&r, 2, 3);
    unsigned char *expected = state_of(&r, other_file, &size);
    drop_run(&r);
    for (int part = 0; part < N_PARTS; part++) {
        if (part == ROLLOUT)
            continue;
        unsigned char *bytes = c.bytes[part];
        const uint32_t n_records = pgrad__get_u32(bytes);
        size_t at = 8;
        for (uint32_t i = 0; i < n_records; i++) {
            char name[100];
            const size_t length = bytes[at] | (size_t)bytes[at + 1] << 8;
            snprintf(name, sizeof name, "%s: %.*s", c.parts[part].name, (int)length, bytes + at + 2);
            at += 2 + length + 1;
            const size_t byte = i % 2 == 0 ? 0 : 7; /* of the number: low or high */
            bytes[at + byte] ^= 1;
            must_count(&c, expected, size, name);
            bytes[at + byte] ^= 1;
            at += 8;
        }
        const size_t last = c.sizes[part] - 1;
        for (int end = 0; end < 2 && c.sizes[part] > at; end++) {
            unsigned char *byte = &bytes[end == 0 ? at : last];
            *byte ^= 4;
            must_count(&c, expected, size, c.parts[part].name);
            *byte ^= 4;
        }
    }
    for (int i = 0; i <= N_PARTS; i++)
        free(c.bytes[i]);
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
    contents c = read_contents(r.context);
    int refused = 0, tried = 0;
    for (size_t at = 0; at < c.sizes[ROLLOUT]; at += at < 1500 ? 1 : 37) {
        static const unsigned char VALUES[] = {0xff, 0x80, 1};
        pgrad_checkpoint *opened;
        const unsigned char before = c.bytes[ROLLOUT][at];
        c.bytes[ROLLOUT][at] ^= VALUES[at % 3];
        write_contents(r.context, &c, ROLLOUT, ROLLOUT + 1);
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
    for (int i = 0; i <= N_PARTS; i++)
        free(c.bytes[i]);
    drop_run(&r);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, every_field_counts);
    tcase_add_test(tests, hostile_rollouts);
}

int main(void)
{
    return run_checkpoint_suite("checkpoint_contents", add);
}
