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

/* Each number of each part, and the first and last byte of its arrays. The rollout's go by the next step, which begins
 * another one: they have a test of their own. */
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

/* Restores the rollout alone from this file. */
static pgrad_status restore_rollout(run *r, const char *path)
{
    pgrad_checkpoint *opened;
    OK(pgrad_checkpoint_open(r->context, path, &opened));
    const pgrad_status status = pgrad_checkpoint_restore(opened, "rollout", PGRAD_KIND_ROLLOUT, r->rollout);
    pgrad_checkpoint_free(opened);
    return status;
}

/* With this byte changed it is refused, and stays as it was; or it is taken, and written again with the change. */
static int comes_back(run *r, pgrad_checkpoint *alone, const contents *c, unsigned char *byte, unsigned char mask)
{
    *byte ^= mask;
    write_contents(r->context, other_file, c, 0, 1);
    const pgrad_status status = restore_rollout(r, other_file);
    ck_assert(status == PGRAD_OK || status == PGRAD_E_FORMAT);
    if (status != PGRAD_OK)
        *byte ^= mask;
    OK(pgrad_checkpoint_write(alone, other_file, NULL));
    contents again = read_contents(r->context, other_file);
    ck_assert_uint_eq(again.sizes[0], c->sizes[0]);
    ck_assert_msg(memcmp(again.bytes[0], c->bytes[0], c->sizes[0]) == 0, "byte %td: %s", byte - c->bytes[0],
                  status == PGRAD_OK ? "changed, and nobody noticed" : "refused, and yet not as it was");
    free_contents(&again);
    if (status == PGRAD_OK)
        *byte ^= mask;
    OK(restore_rollout(r, file));
    return status == PGRAD_OK;
}

/* A rollout is what its part says: each number of its tables, low byte and high byte, and each array's first and last
 * byte. */
START_TEST(every_number_of_a_rollout_counts)
{
    enum { TABLES = 4, WORD = 8 };
    run r;
    pgrad_checkpoint *alone;
    int taken = 0;
    size_t size = 0;
    unsigned char *values;
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 1);
    sample(&r, 1);
    OK(pgrad_checkpoint_create(r.context, &alone));
    OK(pgrad_checkpoint_add(alone, "rollout", PGRAD_KIND_ROLLOUT, r.rollout));
    OK(pgrad_checkpoint_write(alone, file, NULL));
    contents c = read_contents(r.context, file);
    for (uint32_t array = 0; (values = array_at(&c, 0, array, &size)) != NULL; array++) {
        const size_t stride = array < TABLES ? WORD : size;
        for (size_t at = 0; at < size; at += stride) {
            taken += comes_back(&r, alone, &c, values + at, 1);
            taken += comes_back(&r, alone, &c, values + at + stride - 1, 0x40);
        }
    }
    ck_assert_int_gt(taken, 20);
    free_contents(&c);
    pgrad_checkpoint_free(alone);
    drop_run(&r);
}
END_TEST

static const options TINY = {
    "{\"model_type\":\"llama\",\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"max_position_embeddings\":64,\"vocab_size\":48,"
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"initializer_range\":0.2}",
    PGRAD_STORAGE_F32, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_F32, 0, 1, 0.9};

/* What reads that which a file may have brought; whatever comes of it. */
static void look_at(run *r)
{
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    (void)pgrad_rollout_report(r->rollout, &report);
    (void)pgrad_rollout_data(r->rollout, 0, "answer", NULL);
    for (uint32_t i = 0; i < pgrad_rollout_count(r->rollout); i++)
        (void)pgrad_rollout_text(r->rollout, i, NULL);
    (void)pgrad_rollout_score(r->rollout, r->reference, PGRAD_REFERENCE);
}

static void learn_from(run *r)
{
    (void)pgrad_advantage_apply(r->advantage, r->rollout);
    (void)pgrad_model_zero_grad(r->model);
    (void)pgrad_objective_backward(r->objective, r->rollout, NULL, 0, NULL, NULL);
    (void)pgrad_optimizer_step(r->optimizer, NULL);
}

/* Byte k of those that are tried: most are of what comes before the values and of the first of them, where a rollout
 * has its tables; the rest are spread over the others. */
enum { TRIED = 1500, IN_FRONT = 1400 };

static size_t byte_tried(const contents *c, uint32_t part, size_t k)
{
    size_t bytes;
    const size_t front = (size_t)(array_at(c, part, 0, &bytes) - c->bytes[part]) + 650;
    const size_t size = c->sizes[part], dense = front < size ? front : size;
    return k < IN_FRONT ? k * dense / IN_FRONT : dense + (k - IN_FRONT) * (size - dense) / (TRIED - IN_FRONT);
}

/* CK14: any byte of any part may be anything: told, or taken and used, and nothing else. One of each part in a file; and
 * the handles are good for the right one, still. */
START_TEST(hostile_parts)
{
    static const unsigned char MASKS[] = {0xff, 0x80, 1};
    run r;
    size_t size, size_after;
    int refused[N_PARTS + 1] = {0};
    ck_assert(make_run(&r, &TINY));
    steps(&r, 0, 1);
    unsigned char *before = state_of(&r, file, &size);
    contents c = read_contents(r.context, file);
    for (size_t k = 0; k < TRIED; k++) {
        pgrad_checkpoint *opened;
        unsigned char *bytes[N_PARTS + 1];
        char text[16];
        size_t n;
        for (uint32_t part = 0; part <= N_PARTS; part++) {
            const size_t at = byte_tried(&c, part, k);
            bytes[part] = &c.bytes[part][at < c.sizes[part] ? at : 0];
            *bytes[part] ^= MASKS[k % 3];
        }
        write_contents(r.context, other_file, &c, 0, c.n);
        for (uint32_t part = 0; part <= N_PARTS; part++)
            *bytes[part] ^= MASKS[k % 3];
        OK(pgrad_checkpoint_open(r.context, other_file, &opened));
        for (int part = 0; part <= N_PARTS; part++) {
            const pgrad_status status =
                part == N_PARTS
                    ? pgrad_checkpoint_get_text(opened, "notes", text, sizeof text, &n)
                    : pgrad_checkpoint_restore(opened, PARTS[part].name, PARTS[part].kind, handle_of(&r, part));
            ck_assert_msg(status == PGRAD_OK || status == PGRAD_E_FORMAT || status == PGRAD_E_MISMATCH ||
                              status == PGRAD_E_UNSUPPORTED || status == PGRAD_E_LIMIT,
                          "%s: %s: %s", c.parts[part].name, pgrad_status_name(status), pgrad_error_message());
            refused[part] += status != PGRAD_OK;
        }
        pgrad_checkpoint_free(opened);
        look_at(&r);
        if (k % 8 == 0)
            learn_from(&r);
    }
    for (int part = 0; part <= N_PARTS; part++)
        ck_assert_msg(refused[part] > TRIED / 4, "%s: %d refused", c.parts[part].name, refused[part]);
    OK(restore(&r, file));
    unsigned char *after = state_of(&r, other_file, &size_after);
    ck_assert_uint_eq(size_after, size);
    ck_assert_mem_eq(after, before, size);
    free(after);
    free(before);
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

/* CK14: values that no run has, in each storage: weights and first moments that are not finite, second moments that are
 * below zero, exponents of no number. An optimizer's part without its first number. */
static const struct {
    int with; /* CASES */
    uint32_t part, array;
    int last; /* value of the array; 0: the first */
    uint32_t bits;
    size_t width;
    const char *said;
} VALUES[] = {
    {0, 0, 0, 1, 0x7fc00000, 4, "': a value that is not finite"},
    {0, 2, 0, 0, 0x7fc00000, 4, "'m model.embed_tokens.weight': a value that is not finite"},
    {0, 2, 0, 1, 0xff800000, 4, "'m model.embed_tokens.weight': a value that is not finite"},
    {0, 2, 1, 0, 0xbf800000, 4, "'v model.embed_tokens.weight': a value that is negative or not finite"},
    {0, 2, 1, 1, 0x80000001, 4, "'v model.embed_tokens.weight': a value that is negative or not finite"},
    {0, 2, 1, 1, 0x7f800000, 4, "'v model.embed_tokens.weight': a value that is negative or not finite"},
    {1, 0, 0, 0, 0x7f80, 2, "'model.embed_tokens.weight': a value that is not finite"},
    {1, 2, 0, 0, 0x7fc0, 2, "'m model.embed_tokens.weight': a value that is not finite"},
    {1, 2, 1, 1, 0xbf80, 2, "'v model.embed_tokens.weight': a value that is negative or not finite"},
    {2, 2, 1, 0, 254, 1, "'m exponents model.embed_tokens.weight': an exponent that no number has"},
    {2, 2, 3, 1, 255, 1, "'v exponents model.embed_tokens.weight': an exponent that no number has"},
};

START_TEST(values_that_no_run_has)
{
    run r;
    size_t size, size_after;
    ck_assert(make_run(&r, &CASES[_i]));
    steps(&r, 0, 1);
    unsigned char *before = state_of(&r, file, &size);
    contents c = read_contents(r.context, file);
    for (size_t i = 0; i < sizeof VALUES / sizeof VALUES[0]; i++) {
        pgrad_checkpoint *opened;
        unsigned char old[4], lie[4];
        const uint32_t part = VALUES[i].part;
        const size_t width = VALUES[i].width;
        if (VALUES[i].with != _i)
            continue;
        size_t bytes = 0;
        unsigned char *at = array_at(&c, part, VALUES[i].array, &bytes);
        at += VALUES[i].last ? bytes - width : 0;
        pgrad__put_u32(lie, VALUES[i].bits);
        memcpy(old, at, width);
        memcpy(at, lie, width);
        write_contents(r.context, other_file, &c, part, part + 1);
        memcpy(at, old, width);
        OK(pgrad_checkpoint_open(r.context, other_file, &opened));
        FAILS(PGRAD_E_FORMAT, VALUES[i].said,
              pgrad_checkpoint_restore(opened, PARTS[part].name, PARTS[part].kind, handle_of(&r, (int)part)));
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

/* An optimizer's part without its first number. */
START_TEST(a_number_is_missing)
{
    run r;
    pgrad_checkpoint *opened;
    ck_assert(make_run(&r, &CASES[0]));
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    contents c = read_contents(r.context, file);
    const unsigned char *name;
    size_t length;
    unsigned char *optimizer = c.bytes[2], *second = number_at(&c, 2, 0, &name, &length) + 8;
    c.sizes[2] -= (size_t)(second - (optimizer + 8));
    pgrad__put_u32(optimizer, pgrad__get_u32(optimizer) - 1);
    char said[100];
    snprintf(said, sizeof said, "'%.*s': missing", (int)length, name);
    memmove(optimizer + 8, second, c.sizes[2] - 8);
    write_contents(r.context, other_file, &c, 2, 3);
    OK(pgrad_checkpoint_open(r.context, other_file, &opened));
    FAILS(PGRAD_E_FORMAT, said, pgrad_checkpoint_restore(opened, "optimizer", PGRAD_KIND_OPTIMIZER, r.optimizer));
    pgrad_checkpoint_free(opened);
    free_contents(&c);
    drop_run(&r);
}
END_TEST

/* CK11: a part of a kind of tomorrow is listed and left alone; a number of tomorrow in a part that is known may matter. */
START_TEST(what_a_newer_library_adds)
{
    static const unsigned char ANYTHING[] = "anything at all";
    run r;
    size_t size, size_after;
    pgrad_checkpoint *opened;
    pgrad_checkpoint_part listed = {.struct_size = sizeof listed};
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 1);
    unsigned char *before = state_of(&r, file, &size);
    contents c = read_contents(r.context, file);
    add_part(&c, 77, "of tomorrow", ANYTHING, sizeof ANYTHING);
    write_contents(r.context, other_file, &c, 0, c.n);
    steps(&r, 1, 2);
    OK(restore(&r, other_file));
    OK(pgrad_checkpoint_open(r.context, other_file, &opened));
    ck_assert_uint_eq(pgrad_checkpoint_count(opened), N_PARTS + 2);
    OK(pgrad_checkpoint_get_part(opened, N_PARTS + 1, &listed));
    ck_assert_str_eq(listed.name, "of tomorrow");
    ck_assert_uint_eq(listed.kind, 77);
    ck_assert_uint_eq(listed.size, sizeof ANYTHING);
    FAILS(PGRAD_E_MISMATCH, "part 'of tomorrow' is of kind 77, not a model",
          pgrad_checkpoint_restore(opened, "of tomorrow", PGRAD_KIND_MODEL, r.model));
    pgrad_checkpoint_free(opened);
    for (uint32_t part = 0; part < N_PARTS; part++) {
        char said[200];
        const unsigned char *name;
        size_t length;
        unsigned char *number = number_at(&c, part, 0, &name, &length);
        number[-1 - (ptrdiff_t)length] = '2';
        snprintf(said, sizeof said, "part '%s' has '%.*s', which this library does not know", PARTS[part].name,
                 (int)length, name);
        write_contents(r.context, other_file, &c, part, part + 1);
        OK(pgrad_checkpoint_open(r.context, other_file, &opened));
        FAILS(PGRAD_E_UNSUPPORTED, said,
              pgrad_checkpoint_restore(opened, PARTS[part].name, PARTS[part].kind, handle_of(&r, (int)part)));
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
    tcase_add_loop_test(tests, values_that_no_run_has, 0, 3);
    tcase_add_test(tests, a_number_is_missing);
    tcase_add_test(tests, every_number_of_a_rollout_counts);
    tcase_add_test(tests, hostile_parts);
    tcase_add_test(tests, what_a_newer_library_adds);
    tcase_add_test(tests, names_that_are_too_long_or_taken);
}

int main(void)
{
    return run_checkpoint_suite("checkpoint_contents", add);
}
