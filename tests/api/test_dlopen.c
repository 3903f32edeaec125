/* AL05: a host that opens and closes the library over and over, as plugins are, pays nothing for it.
 * usage: test_dlopen LIBRARY MODEL */
#include <dirent.h>
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <policygrad.h>

enum { ROUNDS = 1000, WARM_UP = 50, EVERY = 20 }; /* every so many rounds a model is loaded and run */

typedef struct held {
    long descriptors, threads, mappings, resident_kib, allocated;
} held;

static int failed;

static void expect(int what, const char *text)
{
    if (!what) {
        printf("failed: %s\n", text);
        failed = 1;
    }
}

static long count_entries(const char *folder)
{
    long n = 0;
    DIR *entries = opendir(folder);
    if (entries == NULL)
        return -1;
    while (readdir(entries) != NULL)
        n++;
    closedir(entries);
    return n;
}

static held measure(void)
{
    held h = {0};
    char line[512];
    for (int patience = 200; count_entries("/proc/self/task") > 3 && patience > 0; patience--)
        usleep(1000); /* a thread that was joined leaves the list a moment later; ".", ".." and our own stay */
    h.descriptors = count_entries("/proc/self/fd");
    h.threads = count_entries("/proc/self/task");
    FILE *file = fopen("/proc/self/maps", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        h.mappings += strchr(line, '\n') != NULL;
    if (file != NULL)
        fclose(file);
    file = fopen("/proc/self/smaps_rollup", "r"); /* exact, unlike "status" */
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Rss: %ld", &h.resident_kib) == 1)
            break;
    if (file != NULL)
        fclose(file);
    h.allocated = (long)mallinfo2().uordblks;
    return h;
}

/* dlsym gives a pointer to an object, and C no cast from it to a function. */
#define FUNCTION(name)                                                                             \
    __typeof__(&name) name##_;                                                                     \
    void *name##_at = dlsym(library, #name);                                                       \
    expect(name##_at != NULL, #name);                                                              \
    memcpy(&name##_, &name##_at, sizeof name##_)

static void run_model(void *library, pgrad_context *context, const char *path)
{
    enum { MAX_TOKENS = 64, MAX_VOCAB = 4096 };
    static float logits[MAX_VOCAB];
    pgrad_token ids[MAX_TOKENS];
    size_t n = 0;
    pgrad_model *model = NULL;
    pgrad_tokenizer *tokenizer = NULL;
    FUNCTION(pgrad_model_load);
    FUNCTION(pgrad_model_logits);
    FUNCTION(pgrad_model_free);
    FUNCTION(pgrad_tokenizer_load);
    FUNCTION(pgrad_tokenizer_encode);
    FUNCTION(pgrad_tokenizer_free);
    expect(pgrad_model_load_(context, path, NULL, &model) == PGRAD_OK, "load");
    expect(pgrad_tokenizer_load_(context, path, &tokenizer) == PGRAD_OK, "the tokenizer");
    expect(pgrad_tokenizer_encode_(tokenizer, "paint it red:", 13, 0, ids, MAX_TOKENS, &n) == PGRAD_OK, "encode");
    expect(pgrad_model_logits_(model, ids, n, PGRAD_LOGITS_LAST, logits, MAX_VOCAB) == PGRAD_OK, "logits");
    pgrad_tokenizer_free_(tokenizer);
    pgrad_model_free_(model);
}

static void one_round(const char *path, const char *model)
{
    pgrad_context *context = NULL;
    pgrad_context_params params;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        printf("failed: %s\n", dlerror());
        exit(1);
    }
    FUNCTION(pgrad_context_params_init);
    FUNCTION(pgrad_context_create);
    FUNCTION(pgrad_context_free);
    FUNCTION(pgrad_error_message);
    pgrad_context_params_init_(&params, sizeof params);
    params.n_threads = 3;
    expect(pgrad_context_create_(&params, &context) == PGRAD_OK, "a context");
    params.n_threads = 9999;
    pgrad_context *none = NULL;
    expect(pgrad_context_create_(&params, &none) == PGRAD_E_INVALID && none == NULL, "9999 threads");
    expect(strstr(pgrad_error_message_(), "n_threads") != NULL, "the message");
    if (model != NULL)
        run_model(library, context, model);
    pgrad_context_free_(context);
    expect(dlclose(library) == 0, "dlclose");
    library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    expect(library == NULL, "the library is gone when it is closed");
    if (library != NULL)
        exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: test_dlopen LIBRARY MODEL\n");
        return 2;
    }
    for (int i = 0; i < WARM_UP && !failed; i++)
        one_round(argv[1], i % 4 == 0 ? argv[2] : NULL);
    const held before = measure();
    for (int i = 0; i < ROUNDS && !failed; i++)
        one_round(argv[1], i % EVERY == 0 ? argv[2] : NULL);
    const held after = measure();
    printf("after %d rounds: descriptors %ld -> %ld, threads %ld -> %ld, mappings %ld -> %ld, "
           "resident %ld -> %ld KiB, allocated %ld -> %ld bytes\n",
           ROUNDS, before.descriptors, after.descriptors, before.threads - 2, after.threads - 2, before.mappings,
           after.mappings, before.resident_kib, after.resident_kib, before.allocated, after.allocated);
    expect(after.descriptors == before.descriptors, "descriptors");
    expect(after.threads == before.threads, "threads");
    expect(after.mappings <= before.mappings, "mappings");
    /* What malloc keeps for the next call counts as allocated, and varies. */
    expect(after.resident_kib <= before.resident_kib + 256, "resident memory");
    expect(after.allocated <= before.allocated + 48 * ROUNDS, "allocated memory");
    return failed;
}
