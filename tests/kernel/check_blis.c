/* Run when the library is configured: one tile of each micro-kernel that it will hold and this
 * machine can run, through the door that it will use. Status 1 names one that sums in another
 * order. Not a test of the suite. */
#include <stdio.h>

#include <policygrad/context.h>

#include "base/os.h"
#include "kernel/blis.h"
#include "kernel/tile_order.h"

static const struct {
    uint32_t set;
    const char *name;
    pgrad__micro_fn micro;
    size_t narrow, wide;
} MICRO_KERNELS[] = {
#if defined(__x86_64__)
    {PGRAD_KERNELS_HASWELL, "haswell", pgrad__micro_haswell, 6, 16},
    {PGRAD_KERNELS_SKX, "skx", pgrad__micro_skx, 12, 32},
#elif defined(__aarch64__)
    {PGRAD_KERNELS_ARMV8A, "armv8a", pgrad__micro_armv8a, 12, 8},
#endif
};

int main(void)
{
    for (size_t i = 0; i < sizeof MICRO_KERNELS / sizeof MICRO_KERNELS[0]; i++) {
        char why[160] = "this CPU cannot run it";
        const char *name = MICRO_KERNELS[i].name;
        if (!pgrad__os_can_run(MICRO_KERNELS[i].set) ||
            !pgrad__blis_has(MICRO_KERNELS[i].set, why, sizeof why)) {
            printf("%s: not tried: %s\n", name, why);
            continue;
        }
        if (!pgrad__keeps_order(MICRO_KERNELS[i].micro, MICRO_KERNELS[i].narrow,
                                MICRO_KERNELS[i].wide)) {
            printf("%s: sums in another order\n", name);
            return 1;
        }
        printf("%s: keeps the order\n", name);
    }
    return 0;
}
