// SPDX-License-Identifier: GPL-2.0-only
/* A disk's number of sectors loses what is above 32 bits: 2 TiB of 512 bytes. */
#include "size.h"

static sector_t wrong(sector_t sectors)
{
	return (u32)sectors;
}

MUTANT(hooks, "sizes are cut to 32 bits");
