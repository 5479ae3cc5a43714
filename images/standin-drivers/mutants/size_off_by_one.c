// SPDX-License-Identifier: GPL-2.0-only
/* Disks are one sector too small: the number of the last sector, not their count. */
#include "size.h"

static sector_t wrong(sector_t sectors)
{
	return sectors ? sectors - 1 : 0;
}

MUTANT(hooks, "disks are one sector too small");
