#include "rl/stop_strings.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"

static uint32_t child_of(const pgrad__stop_strings *stops, uint32_t node, unsigned char byte)
{
    if (node == 0)
        return stops->from_root[byte];
    uint32_t child = stops->nodes[node].child;
    while (child != 0 && stops->nodes[child].byte != byte)
        child = stops->nodes[child].sibling;
    return child;
}

static uint32_t step(const pgrad__stop_strings *stops, uint32_t node, unsigned char byte)
{
    uint32_t child;
    while ((child = child_of(stops, node, byte)) == 0 && node != 0)
        node = stops->nodes[node].fail;
    return child;
}

static void insert(pgrad__stop_strings *stops, const char *string)
{
    uint32_t node = 0;
    for (const unsigned char *at = (const unsigned char *)string; *at != '\0'; at++) {
        uint32_t child = child_of(stops, node, *at);
        if (child == 0) {
            child = stops->n_nodes++;
            pgrad__stop_node *parent = &stops->nodes[node];
            stops->nodes[child] = (pgrad__stop_node){
                .sibling = parent->child, .depth = parent->depth + 1, .byte = *at};
            parent->child = child;
            if (node == 0)
                stops->from_root[*at] = child;
        }
        node = child;
    }
    stops->nodes[node].match = stops->nodes[node].depth;
}

/* Breadth first: a node's suffix is never deeper than its parent. */
static void link_suffixes(pgrad__stop_strings *stops, uint32_t *queue)
{
    pgrad__stop_node *nodes = stops->nodes;
    uint32_t head = 0, tail = 0;
    queue[tail++] = 0;
    while (head < tail) {
        const uint32_t parent = queue[head++];
        for (uint32_t child = nodes[parent].child; child != 0; child = nodes[child].sibling) {
            nodes[child].fail =
                parent == 0 ? 0 : step(stops, nodes[parent].fail, nodes[child].byte);
            if (nodes[child].match == 0)
                nodes[child].match = nodes[nodes[child].fail].match;
            queue[tail++] = child;
        }
    }
}

pgrad_status pgrad__stop_strings_build(pgrad__stop_strings *stops, pgrad_context *context,
                                       const char *const *strings, size_t n)
{
    size_t most = 1;
    uint32_t *queue;
    memset(stops, 0, sizeof *stops);
    if (n == 0)
        return PGRAD_OK;
    for (size_t i = 0; i < n; i++)
        most += strlen(strings[i]);
    if (most > UINT32_MAX / 2)
        return pgrad__fail(PGRAD_E_LIMIT,
                           "sampler.stop_strings: expected at most %u bytes in all, found %zu",
                           UINT32_MAX / 2 - 1, most - 1);
    PGRAD__TRY(pgrad__alloc(context, most, sizeof *queue, &queue));
    pgrad_status status = pgrad__alloc(context, most, sizeof *stops->nodes, &stops->nodes);
    if (status == PGRAD_OK) {
        stops->nodes[0] = (pgrad__stop_node){0};
        stops->n_nodes = 1;
        for (size_t i = 0; i < n; i++)
            insert(stops, strings[i]);
        link_suffixes(stops, queue);
    }
    pgrad__free(context, queue);
    return status;
}

void pgrad__stop_strings_free(pgrad__stop_strings *stops, pgrad_context *context)
{
    pgrad__free(context, stops->nodes);
    memset(stops, 0, sizeof *stops);
}

size_t pgrad__stop_strings_scan(const pgrad__stop_strings *stops, uint32_t *state, const char *text,
                                size_t n, size_t *end)
{
    for (size_t i = 0; stops->nodes != NULL && i < n; i++) {
        *state = step(stops, *state, (unsigned char)text[i]);
        if (stops->nodes[*state].match != 0) {
            *end = i + 1;
            return stops->nodes[*state].match;
        }
    }
    return 0;
}
