/* test_dlopen LIBRARY: opened, used and closed a thousand times, the library leaves nothing in the process: no mapping, no
 * thread, no file, no memory, no signal handler. */
#include <check.h>
#include <dirent.h>
#include <dlfcn.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <policygrad.h>

enum { TIMES = 1000, WARM = 20 };

static const char *library;

typedef struct traces {
    size_t mappings, threads, files, bytes;
} traces;

static size_t entries(const char *path)
{
    size_t n = 0;
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

static traces look(void)
{
    traces t = {.threads = entries("/proc/self/task"), .files = entries("/proc/self/fd")};
    FILE *maps = fopen("/proc/self/maps", "r");
    ck_assert_ptr_nonnull(maps);
    for (int c; (c = fgetc(maps)) != EOF;)
        t.mappings += c == '\n';
    fclose(maps);
    t.bytes = mallinfo2().uordblks;
    return t;
}

/* The library's function, in the variable of its name without prefix. */
#define FIND(handle, type, name)                                                                                       \
    type name;                                                                                                         \
    do {                                                                                                               \
        void *symbol = dlsym(handle, "pgrad_" #name);                                                                  \
        ck_assert_msg(symbol != NULL, "%s", dlerror());                                                                \
        memcpy(&name, &symbol, sizeof symbol);                                                                         \
    } while (0)

typedef pgrad_status (*create_fn)(const pgrad_context_params *, pgrad_context **);
typedef void (*free_fn)(pgrad_context *);
typedef void (*init_fn)(pgrad_context_params *, size_t);
typedef pgrad_status (*load_fn)(pgrad_context *, const char *, const pgrad_model_params *, pgrad_model **);
typedef const char *(*message_fn)(void);

static void once(void)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(handle != NULL, "%s", dlerror());
    FIND(handle, init_fn, context_params_init);
    FIND(handle, create_fn, context_create);
    FIND(handle, free_fn, context_free);
    FIND(handle, load_fn, model_load);
    FIND(handle, message_fn, error_message);
    pgrad_context_params params;
    pgrad_context *context;
    pgrad_model *model = NULL;
    context_params_init(&params, sizeof params);
    params.n_threads = 2;
    ck_assert_msg(context_create(&params, &context) == PGRAD_OK, "%s", error_message());
    ck_assert_int_eq(model_load(context, "/nowhere/at/all", NULL, &model), PGRAD_E_IO);
    ck_assert_ptr_nonnull(strstr(error_message(), "/nowhere/at/all"));
    context_free(context);
    ck_assert_int_eq(dlclose(handle), 0);
    ck_assert_ptr_null(dlopen(library, RTLD_NOW | RTLD_NOLOAD)); /* it is gone */
}

START_TEST(a_thousand_times)
{
    struct sigaction handlers[NSIG], now;
    for (int number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &handlers[number]) != 0)
            memset(&handlers[number], 0, sizeof handlers[number]);
    for (int i = 0; i < WARM; i++)
        once();
    const traces before = look();
    for (int i = 0; i < TIMES; i++)
        once();
    const traces after = look();
    ck_assert_uint_eq(after.threads, before.threads);
    ck_assert_uint_eq(after.files, before.files);
    ck_assert_uint_eq(after.mappings, before.mappings);
    ck_assert_uint_lt(after.bytes, before.bytes + TIMES * 16); /* less than a block each: the loader's own lists */
    for (int number = 1; number < NSIG; number++)
        if (sigaction(number, NULL, &now) == 0)
            ck_assert_msg(now.sa_handler == handlers[number].sa_handler, "the handler of signal %d", number);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    library = argv[1];
    Suite *suite = suite_create("dlopen");
    TCase *cases = tcase_create("dlopen");
    tcase_add_test(cases, a_thousand_times);
    tcase_set_timeout(cases, 60);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
