#include "model/arch.h"

#include <string.h>

#include "base/sink.h"

/* The families that are built: one line each. */
static const pgrad__arch *const families[] = {
    &pgrad__arch_gpt2,
    &pgrad__arch_llama,
};

#define N_FAMILIES (sizeof families / sizeof families[0])

static int same(const char *a, const char *b, size_t b_length)
{
    return strlen(a) == b_length && memcmp(a, b, b_length) == 0;
}

const pgrad__arch *pgrad__arch_find(const char *name, size_t length)
{
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (same(families[i]->name, name, length))
            return families[i];
    }
    return NULL;
}

const pgrad__arch *pgrad__arch_find_class(const char *name, size_t length)
{
    for (size_t i = 0; i < N_FAMILIES; i++) {
        if (same(families[i]->class_name, name, length))
            return families[i];
    }
    return NULL;
}

const char *pgrad__arch_list(char buffer[256])
{
    pgrad__sink list = {buffer, 256, 0};
    for (size_t i = 0; i < N_FAMILIES; i++) {
        pgrad__sink_put(&list, i > 0 ? ", " : "");
        pgrad__sink_put(&list, families[i]->name);
    }
    return buffer;
}

void pgrad__arch_name(pgrad__strbuf *out, const char *prefix, const char *pattern, uint32_t layer)
{
    pgrad__strbuf_text(out, prefix);
    const char *mark = strchr(pattern, '#');
    if (mark == NULL) {
        pgrad__strbuf_text(out, pattern);
        return;
    }
    pgrad__strbuf_append(out, pattern, (size_t)(mark - pattern));
    pgrad__strbuf_format(out, "%u", layer);
    pgrad__strbuf_text(out, mark + 1);
}

int pgrad__arch_ignores(const pgrad__arch *arch, const char *name)
{
    size_t length = strlen(name);
    for (const char *const *end = arch->ignored; *end != NULL; end++) {
        size_t n = strlen(*end);
        if (length >= n && memcmp(name + length - n, *end, n) == 0)
            return 1;
    }
    return 0;
}
