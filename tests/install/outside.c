/* Outside the tree, found by pkg-config alone: opens the library and asks what it is. */
#include <policygrad.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    pgrad_context *context = NULL;
    pgrad_context_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    if (pgrad_version() !=
        (PGRAD_VERSION_MAJOR << 16 | PGRAD_VERSION_MINOR << 8 | PGRAD_VERSION_PATCH)) {
        fprintf(stderr, "header and library differ: %s\n", pgrad_version_string());
        return 1;
    }
    if (pgrad_context_create(NULL, &context) != PGRAD_OK ||
        pgrad_context_get_info(context, &info) != PGRAD_OK) {
        fprintf(stderr, "%s\n", pgrad_error_message());
        return 1;
    }
    printf("libpolicygrad %s, %s kernels, %u threads\n", pgrad_version_string(),
           info.kernel_set_name, (unsigned)info.n_threads);
    pgrad_context_free(context);
    return 0;
}
