#include "text/bpe.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"

/* ---- the table ---- */

static size_t slot_of(const pgrad__merges *merges, uint32_t left, uint32_t right)
{
    uint64_t key = (uint64_t)left << 32 | right;
    key *= 0x9E3779B97F4A7C15u;
    return (size_t)(key >> 20) & (merges->capacity - 1);
}

static pgrad__merge *find(const pgrad__merges *merges, uint32_t left, uint32_t right)
{
    size_t i = slot_of(merges, left, right);
    while (merges->entries[i].left != UINT32_MAX &&
           (merges->entries[i].left != left || merges->entries[i].right != right))
        i = (i + 1) & (merges->capacity - 1);
    return &merges->entries[i];
}

pgrad_status pgrad__merges_init(pgrad__merges *merges, pgrad_context *context, size_t expected)
{
    size_t capacity = 64;
    memset(merges, 0, sizeof *merges);
    merges->context = context;
    while (capacity / 2 <= expected)
        if (!pgrad__mul(capacity, 2, &capacity))
            return pgrad__fail(PGRAD_E_LIMIT, "%zu merges are too many", expected);
    PGRAD__TRY(pgrad__alloc(context, capacity, sizeof *merges->entries, &merges->entries));
    merges->capacity = capacity;
    for (size_t i = 0; i < capacity; i++)
        merges->entries[i].left = UINT32_MAX;
    return PGRAD_OK;
}

void pgrad__merges_put(pgrad__merges *merges, pgrad__merge merge)
{
    pgrad__merge *entry = find(merges, merge.left, merge.right);
    if (entry->left == UINT32_MAX)
        merges->count++;
    *entry = merge;
}

const pgrad__merge *pgrad__merges_get(const pgrad__merges *merges, uint32_t left, uint32_t right)
{
    const pgrad__merge *entry = find(merges, left, right);
    return entry->left == UINT32_MAX ? NULL : entry;
}

void pgrad__merges_free(pgrad__merges *merges)
{
    if (merges->context != NULL)
        pgrad__free(merges->context, merges->entries);
    memset(merges, 0, sizeof *merges);
}

/* ---- merging ---- */

#define NONE UINT32_MAX

/* A linked list in an array; a symbol that was joined to its left neighbour is dead. */
struct pgrad__bpe_symbol {
    uint32_t id, previous, next;
    uint32_t dead;
};

/* A pair that may be merged; stale when its left symbol changed. */
struct pgrad__bpe_candidate {
    uint32_t rank, position;
    uint32_t left, right, id;
};

static int before(const struct pgrad__bpe_candidate *a, const struct pgrad__bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

static void push(pgrad__bpe_scratch *s, struct pgrad__bpe_candidate item)
{
    size_t i = s->heap_count++;
    while (i > 0 && before(&item, &s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = item;
}

static struct pgrad__bpe_candidate pop(pgrad__bpe_scratch *s)
{
    struct pgrad__bpe_candidate top = s->heap[0], last = s->heap[--s->heap_count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->heap_count)
            break;
        if (child + 1 < s->heap_count && before(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!before(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

static void offer(pgrad__bpe_scratch *s, const pgrad__merges *merges, uint32_t position)
{
    if (position == NONE || s->symbols[position].next == NONE)
        return;
    uint32_t left = s->symbols[position].id, right = s->symbols[s->symbols[position].next].id;
    const pgrad__merge *merge = pgrad__merges_get(merges, left, right);
    if (merge != NULL)
        push(s, (struct pgrad__bpe_candidate){merge->rank, position, left, right, merge->id});
}

static pgrad_status prepare(pgrad__bpe_scratch *s, const pgrad__merges *merges,
                            const pgrad_token *ids, size_t n)
{
    if (n >= NONE / 4)
        return pgrad__fail(PGRAD_E_LIMIT, "a piece of %zu bytes is too long to tokenize", n);
    PGRAD__TRY(pgrad__reserve(s->context, &s->symbols, &s->symbol_capacity, n, sizeof *s->symbols));
    /* n - 1 pairs at first; every merge takes one symbol away and offers at most two pairs. */
    PGRAD__TRY(pgrad__reserve(s->context, &s->heap, &s->heap_capacity, 3 * n, sizeof *s->heap));
    for (uint32_t i = 0; i < n; i++)
        s->symbols[i] = (struct pgrad__bpe_symbol){(uint32_t)ids[i], i == 0 ? NONE : i - 1,
                                                   i + 1 == n ? NONE : i + 1, 0};
    s->heap_count = 0;
    for (uint32_t i = 0; i + 1 < n; i++)
        offer(s, merges, i);
    return PGRAD_OK;
}

pgrad_status pgrad__bpe_merge(const pgrad__merges *merges, pgrad__bpe_scratch *scratch,
                              pgrad_token *ids, size_t *n)
{
    if (*n < 2)
        return PGRAD_OK;
    PGRAD__TRY(prepare(scratch, merges, ids, *n));
    struct pgrad__bpe_symbol *symbols = scratch->symbols;
    while (scratch->heap_count > 0) {
        struct pgrad__bpe_candidate c = pop(scratch);
        struct pgrad__bpe_symbol *left = &symbols[c.position];
        if (left->dead || left->id != c.left || left->next == NONE ||
            symbols[left->next].id != c.right)
            continue;
        struct pgrad__bpe_symbol *right = &symbols[left->next];
        left->id = c.id;
        left->next = right->next;
        right->dead = 1;
        if (left->next != NONE)
            symbols[left->next].previous = c.position;
        offer(scratch, merges, left->previous);
        offer(scratch, merges, c.position);
    }
    size_t count = 0;
    for (uint32_t i = 0; i != NONE; i = symbols[i].next)
        ids[count++] = (pgrad_token)symbols[i].id;
    *n = count;
    return PGRAD_OK;
}

void pgrad__bpe_scratch_free(pgrad__bpe_scratch *scratch)
{
    if (scratch->context != NULL) {
        pgrad__free(scratch->context, scratch->symbols);
        pgrad__free(scratch->context, scratch->heap);
    }
    memset(scratch, 0, sizeof *scratch);
}
