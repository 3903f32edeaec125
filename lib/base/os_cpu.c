/* What the CPU can run. */
#include "base/os.h"

#include <policygrad/context.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <xmmintrin.h>

/* XCR0 tells which register files the operating system saves. */
static uint64_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

uint32_t pgrad__os_best_kernel_set(void)
{
    enum { XMM_YMM = 0x6, ZMM = 0xe0 };
    uint32_t a, b, c, d, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return PGRAD_KERNELS_GENERIC;
    const uint32_t needed = bit_FMA | bit_AVX | bit_F16C | bit_OSXSAVE;
    if ((c & needed) != needed || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) || !(b7 & bit_AVX2))
        return PGRAD_KERNELS_GENERIC;
    uint64_t saved = saved_registers();
    if ((saved & XMM_YMM) != XMM_YMM)
        return PGRAD_KERNELS_GENERIC;
    const uint32_t avx512 = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    if ((b7 & avx512) == avx512 && (saved & ZMM) == ZMM)
        return PGRAD_KERNELS_SKX;
    return PGRAD_KERNELS_HASWELL;
}

/* MXCSR in the low half; the x87 control word in the high one: strtod, by which jansson reads
 * numbers, rounds as that says, and the host must find it as it was. */
uint64_t pgrad__os_float_begin(void)
{
    const uint32_t masked_nearest = 0x1f80;
    const uint16_t x87_masked_nearest = 0x037f;
    uint32_t state = _mm_getcsr();
    uint16_t control;
    __asm__ volatile("fnstcw %0" : "=m"(control));
    if ((state & ~0x3fu) != masked_nearest) /* the low six bits are sticky flags */
        _mm_setcsr(masked_nearest);
    if (control != x87_masked_nearest)
        __asm__ volatile("fldcw %0" : : "m"(x87_masked_nearest));
    return state | (uint64_t)control << 32;
}

void pgrad__os_float_end(uint64_t state)
{
    const uint32_t mxcsr = (uint32_t)state;
    const uint16_t wanted = (uint16_t)(state >> 32);
    uint16_t control;
    if (_mm_getcsr() != mxcsr)
        _mm_setcsr(mxcsr);
    __asm__ volatile("fnstcw %0" : "=m"(control));
    if (control != wanted)
        __asm__ volatile("fldcw %0" : : "m"(wanted));
}

int pgrad__os_can_run(uint32_t kernel_set)
{
    return kernel_set >= PGRAD_KERNELS_GENERIC && kernel_set <= PGRAD_KERNELS_SKX &&
           kernel_set <= pgrad__os_best_kernel_set();
}

#elif defined(__aarch64__)

uint32_t pgrad__os_best_kernel_set(void)
{
    return PGRAD_KERNELS_ARMV8A;
}

int pgrad__os_can_run(uint32_t kernel_set)
{
    return kernel_set == PGRAD_KERNELS_GENERIC || kernel_set == PGRAD_KERNELS_ARMV8A;
}

/* FPCR in the low half, in the high one FPSR: the sticky flags. */
uint64_t pgrad__os_float_begin(void)
{
    uint64_t control, flags;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(flags));
    if (control != 0)
        __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return control | flags << 32;
}

void pgrad__os_float_end(uint64_t state)
{
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    if (control != (uint32_t)state)
        __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)(uint32_t)state));
    __asm__ volatile("msr fpsr, %0" : : "r"(state >> 32));
}

#else
#error "libpolicygrad runs on x86-64 and aarch64"
#endif
