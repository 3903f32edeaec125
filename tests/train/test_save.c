/* pgrad_model_save in shards: what is in them, what becomes of old ones, and a process that is killed before
 * any of its calls that change the disk. */
#include "../model/model_test.h"

#include <errno.h>
#include <fcntl.h>
#include <policygrad.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- these stand in for the C library's and kill the process at one of their calls ---- */

static int kill_at; /* counts down; 0: never */

static void count_down(void)
{
    if (kill_at > 0 && --kill_at == 0)
        raise(SIGKILL);
}

ssize_t write(int descriptor, const void *data, size_t size)
{
    count_down();
    return syscall(SYS_write, descriptor, data, size);
}

int fsync(int descriptor) /* a killed process loses nothing that is written: done in no time here */
{
    (void)descriptor;
    count_down();
    return 0;
}

int rename(const char *from, const char *to)
{
    count_down();
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    count_down();
    return (int)syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
}

int mkdir(const char *path, mode_t mode)
{
    count_down();
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int unlink(const char *path)
{
    count_down();
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int unlinkat(int folder, const char *path, int flags)
{
    count_down();
    return (int)syscall(SYS_unlinkat, folder, path, flags);
}

int rmdir(const char *path)
{
    count_down();
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

/* ---- what stands on the disk ---- */

static pgrad_context *context;
static char folder[512], saved[600];

static void setup(void)
{
    context = test_context(PGRAD_KERNELS_AUTO, 1);
    ck_assert_ptr_nonnull(context);
    temporary_folder(folder);
    snprintf(saved, sizeof saved, "%s/saved", folder);
}

static void teardown(void)
{
    remove_folder(folder);
    pgrad_context_free(context);
}

static pgrad_status save(pgrad_model *model, uint64_t max_shard_bytes, uint32_t dtype)
{
    pgrad_save_params params;
    pgrad_save_params_init(&params, sizeof params);
    params.max_shard_bytes = max_shard_bytes;
    params.dtype = dtype;
    return pgrad_model_save(model, saved, &params);
}

/* Files of the saved folder whose names begin with `begin`. */
static int count_files(const char *begin)
{
    int n = 0;
    DIR *open = opendir(saved);
    ck_assert_ptr_nonnull(open);
    for (struct dirent *entry; (entry = readdir(open)) != NULL;)
        n += strncmp(entry->d_name, begin, strlen(begin)) == 0;
    closedir(open);
    return n;
}

static int is_there(const char *name)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", saved, name);
    return access(path, F_OK) == 0;
}

/* The saved folder is this model, as f32. */
static void is_model(pgrad_model *model)
{
    pgrad_model *again = NULL;
    OK(pgrad_model_load(context, saved, NULL, &again));
    same_weights(model, again);
    pgrad_model_free(again);
}

/* ---- shards ---- */

/* The bytes of all tensors. */
static uint64_t total_of(const pgrad_model *model)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++)
        total += pgrad__tensor_elements(&model->tensors[i]) * 4;
    return total;
}

START_TEST(shards_hold_the_model)
{
    static const uint64_t MOST[] = {1, 5000, 13000, 40000, 80000};
    pgrad_model *model = golden_model(context, "tiny_llama");
    for (size_t k = 0; k < sizeof MOST / sizeof MOST[0]; k++) {
        pgrad__tensor_set set = {0};
        char index[700];
        OK(save(model, MOST[k], PGRAD_DTYPE_F32));
        is_model(model);
        ck_assert(!is_there("model.safetensors"));
        snprintf(index, sizeof index, "%s/model.safetensors.index.json", saved);
        OK(pgrad__safetensors_open_index(context, saved, index, &set)); /* each tensor in its shard */
        ck_assert_uint_eq(set.n_tensors, model->n_tensors);
        ck_assert_int_eq(count_files("model-"), (int)set.n_files);
        ck_assert_uint_gt(set.n_files, 1);
        uint64_t bytes[64] = {0}, tensors[64] = {0}, sum = 0;
        for (size_t i = 0; i < set.n_tensors; i++) {
            bytes[set.tensors[i].file] += set.tensors[i].n_bytes;
            tensors[set.tensors[i].file]++;
            sum += set.tensors[i].n_bytes;
        }
        for (uint32_t f = 0; f < set.n_files; f++) {
            ck_assert(bytes[f] <= MOST[k] || tensors[f] == 1);
            /* No two neighbours would have fitted into one. */
            ck_assert(f == 0 || bytes[f - 1] + bytes[f] > MOST[k]);
        }
        pgrad__tensor_set_free(&set);
        char *text = get_file(index, &(size_t){0}), told[64];
        snprintf(told, sizeof told, "\"total_size\": %llu", (unsigned long long)sum);
        ck_assert_uint_eq(sum, total_of(model));
        ck_assert_msg(strstr(text, told) != NULL, "%s", text);
        free(text);
    }
    pgrad_model_free(model);
}
END_TEST

START_TEST(one_file_where_all_fits)
{
    pgrad_model *model = golden_model(context, "tiny_gpt2");
    const uint64_t total = total_of(model);
    OK(save(model, total, PGRAD_DTYPE_F32));
    ck_assert(is_there("model.safetensors") && count_files("model") == 1);
    OK(save(model, total - 1, PGRAD_DTYPE_F32));
    ck_assert(!is_there("model.safetensors") && count_files("model") == 3);
    is_model(model);
    OK(save(model, total / 2, PGRAD_DTYPE_BF16)); /* of half the size */
    ck_assert(is_there("model.safetensors") && count_files("model") == 1);
    pgrad_model_free(model);
}
END_TEST

/* Another number of files: the old ones go, or a reader would take them; others stay. */
START_TEST(old_weights_go_others_stay)
{
    static const char *const OTHERS[] = {"notes.txt", "model-1-of-2.safetensors", "model.safetensors.bak",
                                         "xmodel-00001-of-00002.safetensors"};
    static const uint64_t MOST[] = {0, 13000, 40000, 0, 5000, 1, 0};
    pgrad_model *model = golden_model(context, "tiny_llama");
    pgrad__tensor *norm = pgrad__tensor_by_name(model, "model.norm.weight");
    OK(save(model, 0, PGRAD_DTYPE_F32));
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++)
        put_file(saved, OTHERS[i], "mine", 4);
    for (size_t k = 0; k < sizeof MOST / sizeof MOST[0]; k++) {
        weights_of(norm)[0] = (float)k; /* each save is another model */
        OK(save(model, MOST[k], PGRAD_DTYPE_F32));
        is_model(model);
        ck_assert_int_eq(is_there("model.safetensors"), MOST[k] == 0);
        ck_assert_int_eq(is_there("model.safetensors.index.json"), MOST[k] != 0);
        ck_assert_int_eq(count_files("model-000") == 0, MOST[k] == 0);
        for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++)
            ck_assert_msg(is_there(OTHERS[i]), "%s", OTHERS[i]);
    }
    ck_assert_int_eq(count_files("model-0"), 0);
    pgrad_model_free(model);
}
END_TEST

/* Where a folder has the name of an old shard, the new model stands, and the rest beside it. */
START_TEST(a_folder_named_as_a_shard)
{
    char path[700], said[1500];
    pgrad_model *model = golden_model(context, "tiny_llama");
    OK(save(model, 0, PGRAD_DTYPE_F32));
    snprintf(path, sizeof path, "%s/model-00001-of-00002.safetensors", saved);
    ck_assert_int_eq(mkdir(path, 0777), 0);
    put_file(saved, "notes.txt", "mine", 4);
    FAILS(PGRAD_E_IO, "saved: saved, but other files of the old folder are left in ", save(model, 0, PGRAD_DTYPE_F32));
    snprintf(said, sizeof said, ": cannot remove an old file of it: %s", strerror(EISDIR));
    ck_assert_msg(strstr(pgrad_error_message(), said) != NULL, "%s", pgrad_error_message());
    is_model(model);
    pgrad_model_free(model);
}
END_TEST

START_TEST(missing_arguments)
{
    pgrad_model *model = golden_model(context, "tiny_gpt2");
    FAILS(PGRAD_E_INVALID, "model_save: model is NULL", pgrad_model_save(NULL, saved, NULL));
    FAILS(PGRAD_E_INVALID, "model_save: path is NULL", pgrad_model_save(model, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "model_save: path: expected a folder, found \"\"", pgrad_model_save(model, "", NULL));
    pgrad_model_free(model);
}
END_TEST

START_TEST(too_many_files)
{
    pgrad_model *model = NULL;
    OK(pgrad_model_create(context,
                          "{\"model_type\":\"gpt2\",\"vocab_size\":2,\"n_positions\":2,\"n_embd\":2,"
                          "\"n_layer\":1000,\"n_head\":1,\"activation_function\":\"relu\"}",
                          1, NULL, &model));
    FAILS(PGRAD_E_INVALID, "save.max_shard_bytes: 1 makes 12004 files, at most 10000 are read",
          save(model, 1, PGRAD_DTYPE_F32));
    ck_assert_int_ne(access(saved, F_OK), 0);
    pgrad_model_free(model);
}
END_TEST

/* ---- stopped ---- */

typedef struct stopper {
    int calls, stop_at; /* 0: never */
    int cancels;        /* at stop_at it cancels the context, else it asks to stop */
} stopper;

static int32_t on_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    stopper *s = user;
    ck_assert_str_eq(what, "save");
    ck_assert_uint_le(done, total);
    if (++s->calls != s->stop_at)
        return 1;
    if (s->cancels)
        pgrad_context_cancel(context);
    return s->cancels;
}

/* The names in a folder and in those of it, added up; what they are does not matter. */
static unsigned entries(const char *path)
{
    unsigned n = 0;
    DIR *open = opendir(path);
    if (open == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(open)) != NULL;) {
        char below[1200];
        if (entry->d_name[0] == '.' && (entry->d_name[1] == '\0' || entry->d_name[1] == '.'))
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        n += 1 + entries(below);
    }
    closedir(open);
    return n;
}

/* At each call, by its answer and by a cancel: the old folder stays, nothing lies beside it, and the next save is whole. */
START_TEST(stopped_at_every_call)
{
    static const uint64_t BEFORE[] = {0, 13000}, AFTER[] = {0, 20000};
    pgrad_model *old = golden_model(context, "tiny_llama"), *new = golden_model(context, "tiny_llama_tied");
    stopper s = {0};
    OK(pgrad_context_set_progress(context, on_progress, &s));
    OK(save(new, AFTER[_i], PGRAD_DTYPE_F32));
    const int calls = s.calls;
    ck_assert_int_ge(calls, (int)new->n_tensors);
    remove_folder(saved);
    OK(save(old, BEFORE[_i], PGRAD_DTYPE_F32));
    const unsigned before = entries(folder);
    for (s.stop_at = 1; s.stop_at <= calls; s.stop_at++)
        for (s.cancels = 0; s.cancels < 2; s.cancels++) {
            s.calls = 0;
            if (s.cancels)
                FAILS(PGRAD_E_CANCELLED, "cancelled", save(new, AFTER[_i], PGRAD_DTYPE_F32));
            else
                FAILS(PGRAD_E_CALLBACK, "(save, ", save(new, AFTER[_i], PGRAD_DTYPE_F32));
            ck_assert_int_eq(s.calls, s.stop_at);
            pgrad_context_clear_cancel(context);
            ck_assert_uint_eq(entries(folder), before);
            OK(pgrad_context_set_progress(context, NULL, NULL)); /* is_model loads */
            is_model(old);
            OK(pgrad_context_set_progress(context, on_progress, &s));
        }
    OK(pgrad_context_set_progress(context, NULL, NULL));
    OK(save(new, AFTER[_i], PGRAD_DTYPE_F32));
    is_model(new);
    pgrad_model_free(new);
    pgrad_model_free(old);
}
END_TEST

/* ---- killed ---- */

/* Saves another model over the one that is there, killed at the n-th call; 1 when it came to the end. */
static int save_killed(uint64_t most, int n)
{
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        pgrad_context *own = test_context(PGRAD_KERNELS_AUTO, 1);
        pgrad_model *model = golden_model(own, "tiny_llama_tied");
        context = own;
        kill_at = n;
        pgrad_status status = save(model, most, PGRAD_DTYPE_F32);
        _exit(status == PGRAD_OK ? 0 : 1);
    }
    int how;
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert(WIFSIGNALED(how) ? WTERMSIG(how) == SIGKILL : WEXITSTATUS(how) == 0);
    return !WIFSIGNALED(how);
}

/* Old or new, whole, at every call; and a later save still works. */
START_TEST(killed_at_every_call)
{
    static const uint64_t BEFORE[] = {0, 13000, 13000}, AFTER[] = {13000, 0, 20000};
    pgrad_model *old = golden_model(context, "tiny_llama"), *new = golden_model(context, "tiny_llama_tied");
    int seen_old = 0, seen_new = 0, n = 0, ended;
    do {
        remove_folder(saved);
        OK(save(old, BEFORE[_i], PGRAD_DTYPE_F32));
        ended = save_killed(AFTER[_i], ++n);
        pgrad_model *found = NULL;
        OK(pgrad_model_load(context, saved, NULL, &found));
        const int is_new = found->config.tied_head;
        pgrad_model_free(found);
        is_model(is_new ? new : old);
        seen_old += !is_new;
        seen_new += is_new;
        ck_assert(is_new || seen_new == 0); /* there is one border */
    } while (!ended);
    ck_assert_msg(seen_old > 10 && seen_new > 5, "%d times old, %d times new", seen_old, seen_new);
    OK(save(old, BEFORE[_i], PGRAD_DTYPE_F32));
    is_model(old);
    pgrad_model_free(new);
    pgrad_model_free(old);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("save");
    TCase *tests = tcase_create("save");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, shards_hold_the_model);
    tcase_add_test(tests, one_file_where_all_fits);
    tcase_add_test(tests, old_weights_go_others_stay);
    tcase_add_test(tests, a_folder_named_as_a_shard);
    tcase_add_test(tests, missing_arguments);
    tcase_add_test(tests, too_many_files);
    tcase_add_loop_test(tests, stopped_at_every_call, 0, 2);
    tcase_add_loop_test(tests, killed_at_every_call, 0, 3);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
