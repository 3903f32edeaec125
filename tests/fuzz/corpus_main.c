/* Runs a fuzz target without a fuzzer: every file of a folder, then mutations of each that the names of the
 * files and their order decide, so that a failure comes again.
 *
 *     fuzz_gguf FOLDER [MUTATIONS-OF-EACH] | FILE */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

enum { LARGEST = 1 << 20, MOST_FILES = 4096 };

static uint64_t state;

static uint64_t next(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t read_file(const char *path, uint8_t *out)
{
    FILE *file = fopen(path, "rb");
    PROMISE(file != NULL);
    const size_t n = fread(out, 1, LARGEST, file);
    fclose(file);
    return n;
}

/* One of: a bit, a byte, a number of 1 to 8 bytes that is a border, a cut, a run taken out or doubled. */
static size_t mutate(uint8_t *data, size_t size)
{
    static const uint64_t BORDERS[] = {0, 1, 0x7f, 0xff, 0x7fffffff, 0xffffffff, (uint64_t)1 << 62,
                                       INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
    if (size == 0)
        return 0;
    const size_t at = (size_t)(next() % size), rest = size - at;
    const size_t run = 1 + (size_t)(next() % (rest < 64 ? rest : 64));
    switch (next() % 6) {
    case 0:
        data[at] ^= (uint8_t)(1u << next() % 8);
        return size;
    case 1:
        data[at] = (uint8_t)next();
        return size;
    case 2: {
        const uint64_t border = BORDERS[next() % (sizeof BORDERS / sizeof BORDERS[0])];
        const size_t width = (size_t)1 << next() % 4;
        memcpy(data + at, &border, width < rest ? width : rest);
        return size;
    }
    case 3:
        return at;
    case 4:
        memmove(data + at, data + at + run, rest - run);
        return size - run;
    default:
        if (size + run > LARGEST)
            return size;
        memmove(data + at + run, data + at, rest);
        return size + run;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t list(const char *folder, char **paths)
{
    struct dirent *entry;
    size_t n = 0;
    DIR *open = opendir(folder);
    PROMISE(open != NULL);
    while ((entry = readdir(open)) != NULL)
        if (entry->d_name[0] != '.') {
            PROMISE(n < MOST_FILES && asprintf(&paths[n], "%s/%s", folder, entry->d_name) > 0);
            n++;
        }
    closedir(open);
    qsort(paths, n, sizeof *paths, by_name);
    return n;
}

int main(int argc, char **argv)
{
    static uint8_t seed[LARGEST], data[LARGEST];
    static char *paths[MOST_FILES];
    struct stat about;
    PROMISE(argc >= 2 && stat(argv[1], &about) == 0);
    if (!S_ISDIR(about.st_mode))
        return LLVMFuzzerTestOneInput(seed, read_file(argv[1], seed));
    const unsigned long mutations = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    const size_t n_files = list(argv[1], paths);
    PROMISE(n_files > 0);
    for (size_t i = 0; i < n_files; i++) {
        const size_t size = read_file(paths[i], seed);
        (void)LLVMFuzzerTestOneInput(seed, size);
        state = i;
        for (unsigned long m = 0; m < mutations; m++) {
            size_t n = size;
            memcpy(data, seed, size);
            for (uint64_t steps = 1 + next() % 4; steps > 0; steps--)
                n = mutate(data, n);
            (void)LLVMFuzzerTestOneInput(data, n);
        }
        free(paths[i]);
    }
    printf("%zu files, %lu mutations of each\n", n_files, mutations);
    return 0;
}
