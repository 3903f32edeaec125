#include "base_test.h"

#include <math.h>

#include <policygrad.h>

#include "base/params_check.h"
#include "base/params_tables.h"

static size_t width_of(const pgrad__field *field)
{
    switch (field->type) {
    case PGRAD__FIELD_U64:
    case PGRAD__FIELD_F64:
        return 8;
    case PGRAD__FIELD_SIZE:
        return sizeof(size_t);
    case PGRAD__FIELD_POINTER:
        return sizeof(void *);
    default:
        return 4;
    }
}

/* Each table covers its struct: fields ascend without a gap from struct_size to the end, so no padding
 * and no forgotten field. */
START_TEST(tables_cover_their_structs)
{
    for (size_t t = 0; t < pgrad__n_params_tables; t++) {
        const pgrad__params_table *table = &pgrad__params_tables[t];
        size_t at = sizeof(size_t);
        ck_assert_uint_eq(pgrad_struct_size(table->name), table->size);
        if (table->n_fields == 0)
            continue; /* an out struct */
        ck_assert_uint_le(table->size, PGRAD__PARAMS_MAX);
        for (size_t f = 0; f < table->n_fields; f++) {
            const pgrad__field *field = &table->fields[f];
            ck_assert_msg(field->offset == at, "%s.%s stands at %zu, the field before it ends at %zu",
                          table->name, field->name, field->offset, at);
            ck_assert_uint_gt(strlen(field->help), 0);
            at += width_of(field);
            if (field->type == PGRAD__FIELD_CHOICE) {
                size_t n = 0;
                while (field->choices[n] != NULL)
                    n++;
                ck_assert_msg((double)n == field->max + 1, "%s.%s: names", table->name, field->name);
            }
        }
        ck_assert_msg(at == table->size, "%s: %zu bytes are described, %zu there", table->name, at,
                      table->size);
    }
    ck_assert_uint_eq(pgrad_struct_size("no such"), 0);
    ck_assert_uint_eq(pgrad_struct_size(NULL), 0);
}
END_TEST

#define REFUSED()                                                                                  \
    do {                                                                                           \
        pgrad_status refused_ = pgrad__params_read(table->name, bad, out);                         \
        ck_assert_msg(refused_ == PGRAD_E_INVALID, "%s is not checked", name);                     \
        ck_assert_msg(strstr(pgrad_error_message(), name) != NULL, "%s: %s", name,                 \
                      pgrad_error_message());                                                      \
    } while (0)

/* PR08; CF02's way for options: defaults pass; each bound holds; beyond it and NaN are refused by name. */
START_TEST(op01_bounds_of_every_field)
{
    for (size_t t = 0; t < pgrad__n_params_tables; t++) {
        const pgrad__params_table *table = &pgrad__params_tables[t];
        if (table->n_fields == 0)
            continue;
        _Alignas(16) unsigned char params[PGRAD__PARAMS_MAX], out[PGRAD__PARAMS_MAX];
        pgrad__params_init(table->name, params, table->size);
        OK(pgrad__params_read(table->name, params, out));
        ck_assert_mem_eq(params, out, table->size);
        OK(pgrad__params_read(table->name, NULL, out));
        ck_assert_mem_eq(params, out, table->size);
        for (size_t f = 0; f < table->n_fields; f++) {
            const pgrad__field *field = &table->fields[f];
            char name[128];
            snprintf(name, sizeof name, "%s.%s", table->name, field->name);
            _Alignas(16) unsigned char bad[PGRAD__PARAMS_MAX];
            memcpy(bad, params, table->size);
            if (field->type == PGRAD__FIELD_F64) {
                const double beyond[] = {NAN, field->min > -INFINITY ? -INFINITY : NAN,
                                         field->min > -INFINITY ? nextafter(field->min, -INFINITY) : NAN,
                                         field->open_min ? field->min : NAN,
                                         field->open_max ? field->max : NAN,
                                         isfinite(field->max) ? nextafter(field->max, INFINITY) : NAN};
                for (size_t i = 0; i < sizeof beyond / sizeof beyond[0]; i++) {
                    memcpy(bad + field->offset, &beyond[i], 8);
                    REFUSED();
                }
                double edge = field->open_max ? nextafter(field->max, -INFINITY) : field->max;
                memcpy(bad + field->offset, &edge, 8);
                OK(pgrad__params_read(table->name, bad, out));
            } else if (field->type == PGRAD__FIELD_FLAG || field->type == PGRAD__FIELD_CHOICE ||
                       field->type == PGRAD__FIELD_RESERVED) {
                uint32_t value = (uint32_t)field->max + 1;
                memcpy(bad + field->offset, &value, 4);
                REFUSED();
            } else if (field->type == PGRAD__FIELD_U32 && field->max < UINT32_MAX) {
                uint32_t value = (uint32_t)field->max + 1;
                memcpy(bad + field->offset, &value, 4);
                REFUSED();
            } else if (field->type == PGRAD__FIELD_SIZE) {
                size_t value = SIZE_MAX;
                memcpy(bad + field->offset, &value, sizeof value);
                REFUSED();
            }
        }
    }
}
END_TEST

/* OP09: programs older and newer than the library. */
START_TEST(op09_size_prefix)
{
    pgrad_sampler_params full, read;
    struct {
        pgrad_sampler_params known;
        unsigned char tail[24];
    } newer;
    pgrad_sampler_params_init(&full, sizeof full);
    ck_assert_uint_eq(full.struct_size, sizeof full);
    full.temperature = 0.5;
    full.top_k = 40;
    full.struct_size = offsetof(pgrad_sampler_params, seed); /* ends before top_k */
    OK(pgrad__params_read("sampler", &full, &read));
    ck_assert(read.temperature == 0.5);
    ck_assert_uint_eq(read.top_k, 0);
    ck_assert_uint_eq(read.struct_size, sizeof read);

    pgrad_sampler_params_init((pgrad_sampler_params *)&newer, sizeof newer);
    ck_assert_uint_eq(newer.known.struct_size, sizeof newer);
    newer.known.temperature = 0.25;
    OK(pgrad__params_read("sampler", &newer, &read));
    ck_assert(read.temperature == 0.25);
    newer.tail[7] = 1;
    memset(&read, 0x55, sizeof read);
    pgrad_sampler_params untouched = read;
    FAILS(PGRAD_E_UNSUPPORTED, "newer", pgrad__params_read("sampler", &newer, &read));
    ck_assert_mem_eq(&read, &untouched, sizeof read);

    static const size_t bad_sizes[] = {0, 1, 7, (size_t)1 << 30, SIZE_MAX};
    for (size_t i = 0; i < sizeof bad_sizes / sizeof bad_sizes[0]; i++) {
        full.struct_size = bad_sizes[i];
        FAILS(PGRAD_E_INVALID, "sampler.struct_size", pgrad__params_read("sampler", &full, &read));
    }
}
END_TEST

START_TEST(init_stays_inside_the_callers_struct)
{
    unsigned char bytes[sizeof(pgrad_sampler_params) + 64];
    for (size_t size = 0; size <= sizeof bytes; size++) {
        memset(bytes, 0xaa, sizeof bytes);
        pgrad_sampler_params_init((pgrad_sampler_params *)(void *)bytes, size);
        for (size_t i = size; i < sizeof bytes; i++)
            ck_assert_uint_eq(bytes[i], 0xaa);
        size_t written;
        memcpy(&written, bytes, sizeof written);
        if (size >= sizeof size)
            ck_assert_uint_eq(written, size);
    }
    pgrad_sampler_params_init(NULL, 100);
}
END_TEST

START_TEST(info_structs_are_written_up_to_their_size)
{
    pgrad_context *context = make_context(2, PGRAD_KERNELS_GENERIC);
    pgrad_context_info info;
    memset(&info, 0xaa, sizeof info);
    info.struct_size = offsetof(pgrad_context_info, kernel_set_name);
    OK(pgrad_context_get_info(context, &info));
    ck_assert_uint_eq(info.n_threads, 2);
    ck_assert_uint_eq(info.kernel_set, PGRAD_KERNELS_GENERIC);
    ck_assert_uint_eq(info.memory_limit, UINT64_C(0xaaaaaaaaaaaaaaaa));
    ck_assert_uint_eq(info.struct_size, offsetof(pgrad_context_info, kernel_set_name));
    info.struct_size = 0;
    FAILS(PGRAD_E_INVALID, "struct_size", pgrad_context_get_info(context, &info));
    pgrad_context_free(context);
}
END_TEST

START_TEST(fields_by_text)
{
    pgrad_sampler_params p;
    pgrad_sampler_params_init(&p, sizeof p);
    OK(pgrad_params_set("sampler", &p, "temperature", "0.8"));
    OK(pgrad_params_set("sampler", &p, "top_k", "40"));
    OK(pgrad_params_set("sampler", &p, "seed", "18446744073709551615"));
    OK(pgrad_params_set("sampler", &p, "ignore_eos", "1"));
    ck_assert(p.temperature == 0.8);
    ck_assert_uint_eq(p.top_k, 40);
    ck_assert_uint_eq(p.seed, UINT64_MAX);
    ck_assert_uint_eq(p.ignore_eos, 1);
    static const char *const bad[][2] = {
        {"temperature", "x"},  {"temperature", "-1"}, {"temperature", "nan"},  {"temperature", ""},
        {"top_k", "-1"},       {"top_k", "1.5"},      {"top_k", "4294967296"}, {"top_k", " 1"},
        {"seed", "18446744073709551616"},             {"ignore_eos", "2"},     {"no_such", "1"},
        {"stop_tokens", "1"},  {"top_k", "0x10"},     {"top_p", "0"},          {"min_p", "1"},
    };
    const pgrad_sampler_params before = p;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        FAILS(PGRAD_E_INVALID, bad[i][0], pgrad_params_set("sampler", &p, bad[i][0], bad[i][1]));
        ck_assert_mem_eq(&p, &before, sizeof p);
    }
    FAILS(PGRAD_E_INVALID, "nothing", pgrad_params_set("nothing", &p, "x", "1"));
    FAILS(PGRAD_E_INTERNAL, "no option struct is called 'nothing'", pgrad__params_read("nothing", &p, &p));
    FAILS(PGRAD_E_INVALID, "no option struct is called '(NULL)'", pgrad_params_set(NULL, &p, "top_k", "1"));
    FAILS(PGRAD_E_INVALID, "params_set: an argument is NULL", pgrad_params_set("sampler", NULL, "top_k", "1"));
    FAILS(PGRAD_E_INVALID, "params_set: an argument is NULL", pgrad_params_set("sampler", &p, NULL, "1"));
    FAILS(PGRAD_E_INVALID, "params_set: an argument is NULL", pgrad_params_set("sampler", &p, "top_k", NULL));
    pgrad_train_params t;
    pgrad_train_params_init(&t, sizeof t);
    FAILS(PGRAD_E_INVALID, "train.steps: expected at least 1, found 0",
          pgrad_params_set("train", &t, "steps", "0"));
    pgrad_objective_params o;
    pgrad_objective_params_init(&o, sizeof o);
    OK(pgrad_params_set("objective", &o, "loss", "reinforce"));
    ck_assert_uint_eq(o.loss, PGRAD_LOSS_REINFORCE);
    FAILS(PGRAD_E_INVALID, "loss", pgrad_params_set("objective", &o, "loss", "reinforc"));
}
END_TEST

/* The nearest of a struct's fields is named, but not one that is another word, nor one that text cannot set. */
START_TEST(misspelt_fields)
{
    static const struct {
        const char *params, *asked, *meant;
    } CASES[] = {
        {"sampler", "temprature", "temperature"},  {"sampler", "temperatures", "temperature"},
        {"sampler", "Temperature", "temperature"}, {"sampler", "tempearture", "temperature"},
        {"sampler", "topk", "top_k"},              {"sampler", "top_q", "top_p"},
        {"sampler", "sed", "seed"},                {"sampler", "mean_p", "min_p"},
        {"optimizer", "learning-rate", "learning_rate"}, {"optimizer", "beta3", "beta1"},
        {"train", "step", "steps"},                {"train", "lr", NULL},
        {"sampler", "tmprtr", NULL},               {"sampler", "", NULL},
        {"sampler", "x", NULL},                    {"sampler", "stop_token", NULL},
        {"sampler", "temperature                                                      ", NULL},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        _Alignas(16) unsigned char params[PGRAD__PARAMS_MAX];
        char whole[256];
        pgrad__params_init(CASES[i].params, params, sizeof params);
        snprintf(whole, sizeof whole, "%s.%s: there is no field of this name%s%s%s", CASES[i].params, CASES[i].asked,
                 CASES[i].meant == NULL ? "" : "; did you mean '", CASES[i].meant == NULL ? "" : CASES[i].meant,
                 CASES[i].meant == NULL ? "" : "'?");
        ck_assert_int_eq(pgrad_params_set(CASES[i].params, params, CASES[i].asked, "1"), PGRAD_E_INVALID);
        if (CASES[i].asked[0] == '\0' || strlen(CASES[i].asked) < 64)
            ck_assert_str_eq(pgrad_error_message(), whole);
        else
            ck_assert_ptr_null(strstr(pgrad_error_message(), "did you mean"));
    }
}
END_TEST

START_TEST(described_as_json)
{
    char json[2048];
    size_t length = 0, again;
    pgrad_backward_params p;
    pgrad_backward_params_init(&p, sizeof p);
    p.normalizer_total = 0.1;
    OK(pgrad_params_describe("backward", &p, json, sizeof json, &length));
    ck_assert_str_eq(json, "{\"normalizer_total\":0.1,\"n_tokens_total\":0}");
    ck_assert_uint_eq(length, strlen(json));
    json[0] = 'x';
    FAILS(PGRAD_E_BUFFER, "", pgrad_params_describe("backward", &p, json, length, &again));
    ck_assert_int_eq(json[0], 'x');
    ck_assert_uint_eq(again, length);
    OK(pgrad_params_describe("backward", &p, json, length + 1, &again));
    FAILS(PGRAD_E_BUFFER, "", pgrad_params_describe("backward", &p, NULL, 0, &again));
    FAILS(PGRAD_E_INVALID, "params_describe: length is NULL",
          pgrad_params_describe("backward", &p, json, sizeof json, NULL));
}
END_TEST

/* Gives a field another value than its default, where it takes one of these. */
static void move_field(const pgrad__params_table *table, const pgrad__field *field, void *params)
{
    static const char *const OTHERS[] = {"0.125", "3", "1", "18446744073709551615", "0"};
    const char *choice = field->type == PGRAD__FIELD_CHOICE ? field->choices[1] : NULL;
    int done = choice != NULL && pgrad_params_set(table->name, params, field->name, choice) == PGRAD_OK;
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0] && !done; i++)
        done = pgrad_params_set(table->name, params, field->name, OTHERS[i]) == PGRAD_OK;
    ck_assert_msg(done, "%s.%s takes no value: %s", table->name, field->name, pgrad_error_message());
}

/* What is described can be set again and gives the same bytes, for every field that text can set of every struct. */
START_TEST(what_is_described_can_be_set)
{
    for (size_t t = 0; t < pgrad__n_params_tables; t++) {
        const pgrad__params_table *table = &pgrad__params_tables[t];
        _Alignas(16) unsigned char moved[PGRAD__PARAMS_MAX] = {0}, again[PGRAD__PARAMS_MAX] = {0};
        char json[4096], name[64], value[64];
        size_t length, n_moved = 0, n_set = 0;
        if (table->n_fields == 0)
            continue;
        pgrad__params_init(table->name, moved, table->size);
        pgrad__params_init(table->name, again, table->size);
        for (size_t f = 0; f < table->n_fields; f++)
            if (table->fields[f].type != PGRAD__FIELD_POINTER && table->fields[f].type != PGRAD__FIELD_RESERVED) {
                move_field(table, &table->fields[f], moved);
                n_moved++;
            }
        OK(pgrad_params_describe(table->name, moved, json, sizeof json, &length));
        const char *at = json;
        for (int n = 0; *at == (n_set == 0 ? '{' : ',') && at[1] != '}'; at += n, n_set++) {
            n = 0;
            if (sscanf(at + 1, "\"%63[^\"]\":\"%63[^\"]\"%n", name, value, &n) != 2 || n == 0)
                ck_assert_int_eq(sscanf(at + 1, "\"%63[^\"]\":%63[^\",}]%n", name, value, &n), 2);
            n++;
            OK(pgrad_params_set(table->name, again, name, value));
        }
        ck_assert_msg(strcmp(at, n_moved == 0 ? "{}" : "}") == 0, "%s: not read: %s", table->name, at);
        ck_assert_uint_eq(n_set, n_moved);
        ck_assert_msg(memcmp(again, moved, table->size) == 0, "%s: set again, another struct: %s", table->name, json);
    }
}
END_TEST

START_TEST(profiles_set_what_they_name)
{
    pgrad_objective_params o;
    pgrad_optimizer_params p;
    pgrad_objective_params_init(&o, sizeof o);
    o.clip_high = 0.5;
    o.micro_batch_tokens = 77;
    OK(pgrad_params_profile("objective", &o, "trl-1.10"));
    ck_assert(o.clip_high == 0.2);
    ck_assert_uint_eq(o.micro_batch_tokens, 77); /* none of the profile's */
    pgrad_optimizer_params_init(&p, sizeof p);
    OK(pgrad_params_profile("optimizer", &p, "trl-1.10"));
    ck_assert(p.learning_rate == 1e-6);
    ck_assert_uint_eq(p.schedule, PGRAD_SCHEDULE_LINEAR);
    FAILS(PGRAD_E_INVALID, "expected one of trl-1.10, trl-1.10-rloo, trl-1.10-sft, found 'trl-9'", pgrad_params_profile("objective", &o, "trl-9"));
    FAILS(PGRAD_E_INVALID, "found '(NULL)'", pgrad_params_profile("objective", &o, NULL));
    FAILS(PGRAD_E_INVALID, "'nothing'", pgrad_params_profile("nothing", &o, "trl-1.10"));
    FAILS(PGRAD_E_INVALID, "(NULL)", pgrad_params_profile(NULL, &o, "trl-1.10"));
    FAILS(PGRAD_E_INVALID, "params is NULL", pgrad_params_profile("objective", NULL, "trl-1.10"));
    pgrad_save_params s; /* a struct that the profile says nothing of */
    pgrad_save_params_init(&s, sizeof s);
    const pgrad_save_params before = s;
    OK(pgrad_params_profile("save", &s, "trl-1.10"));
    ck_assert_mem_eq(&s, &before, sizeof s);
    p.learning_rate = 1;
    p.struct_size = offsetof(pgrad_optimizer_params, beta1); /* an older program's */
    const pgrad_optimizer_params older = p;
    FAILS(PGRAD_E_UNSUPPORTED, "optimizer.beta1", pgrad_params_profile("optimizer", &p, "trl-1.10"));
    ck_assert_mem_eq(&p, &older, sizeof p); /* all or nothing */
    FAILS(PGRAD_E_INVALID, "'step_report'", pgrad_params_profile("step_report", &p, "trl-1.10"));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, tables_cover_their_structs);
    tcase_add_test(tests, op01_bounds_of_every_field);
    tcase_add_test(tests, op09_size_prefix);
    tcase_add_test(tests, init_stays_inside_the_callers_struct);
    tcase_add_test(tests, info_structs_are_written_up_to_their_size);
    tcase_add_test(tests, fields_by_text);
    tcase_add_test(tests, misspelt_fields);
    tcase_add_test(tests, described_as_json);
    tcase_add_test(tests, what_is_described_can_be_set);
    tcase_add_test(tests, profiles_set_what_they_name);
}

int main(void)
{
    return run_case("base/params", NULL, NULL, 60, add);
}
