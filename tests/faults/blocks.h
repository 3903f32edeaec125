/* What the two tests of refused memory share: blocks are counted, memory that runs out is said so. */
#ifndef PGRAD_TESTS_BLOCKS_H
#define PGRAD_TESTS_BLOCKS_H

#include "sweep.h"

static atomic_long blocks;

/* Nothing here is about what a disk has. */
int fsync(int descriptor);
int fsync(int descriptor)
{
    (void)descriptor;
    return 0;
}

static long held_blocks(const stage *s)
{
    (void)s;
    return atomic_load(&blocks);
}

static int no_memory(const scenario *c, pgrad_status status)
{
    (void)c;
    return status == PGRAD_OK || status == PGRAD_E_NOMEM;
}

#endif
