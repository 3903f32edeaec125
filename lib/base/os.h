/* The only door to what differs between platforms: clock, CPU count, CPU level, process id,
 * floating-point state. */
#ifndef PGRAD_BASE_OS_H
#define PGRAD_BASE_OS_H

#include <stddef.h>
#include <stdint.h>

double pgrad__os_seconds(void);     /* monotonic */
uint32_t pgrad__os_cpu_count(void); /* affinity mask and cgroup quota; at least 1 */
/* CPUs' worth of time that the control groups of this process allow, rounded up; 0: no quota. root
 * is "", or stands before /proc and /sys. */
uint32_t pgrad__os_cgroup_quota(const char *root);

/* PGRAD_KERNELS_*, by CPUID with the operating system's support of the registers. */
uint32_t pgrad__os_best_kernel_set(void);
int pgrad__os_can_run(uint32_t kernel_set);

int64_t pgrad__os_process(void);

/* Sets round to nearest and no flush to zero, and gives the old state; the end gives it back, flags
 * of exceptions included. */
uint64_t pgrad__os_float_begin(void);
void pgrad__os_float_end(uint64_t state);

void pgrad__os_sleep(double seconds);
void pgrad__os_low_priority(void);                    /* of this thread: others go first */
void pgrad__os_huge_pages(void *memory, size_t size); /* advice only */

#endif
