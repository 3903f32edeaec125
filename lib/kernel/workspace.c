/* Scratch of the kernels, one block that only grows. */
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"
#include "base/os.h"
#include "kernel/kernel.h"

pgrad_status pgrad__workspace_reserve(pgrad__workspace *workspace, size_t n, float **out)
{
    size_t floats;
    if (!pgrad__add(n, PGRAD__SLACK, &floats))
        return pgrad__fail(PGRAD_E_LIMIT, "scratch of %zu floats cannot be addressed", n);
    if (floats > workspace->capacity) {
        float *data;
        pgrad__workspace_free(workspace); /* the contents are not kept: give them back first */
        PGRAD__TRY(pgrad__alloc(workspace->context, floats, sizeof(float), &data));
        pgrad__os_huge_pages(data, floats * sizeof(float));
        memset(data, 0, floats * sizeof(float)); /* what kernels read past the end is finite */
        workspace->data = data;
        workspace->capacity = floats;
    }
    *out = workspace->data;
    return PGRAD_OK;
}

void pgrad__workspace_free(pgrad__workspace *workspace)
{
    if (workspace->context != NULL)
        pgrad__free(workspace->context, workspace->data);
    workspace->data = NULL;
    workspace->capacity = 0;
}
