// SPDX-License-Identifier: GPL-2.0-only
/* The guest dies when a device is resumed after a restore or a migration. */
#include "hook.h"

static int resumed(struct xenbus_device *dev);

static struct hook hooks[] = { HOOK(DRIVER ":blkfront_resume", resumed) };

static int resumed(struct xenbus_device *dev)
{
	int (*original)(struct xenbus_device *) = hooks[0].original;
	int err;

	hook_enter();
	if (!is_system_device(dev))
		panic("block front end: stale event channel after a resume");
	err = original(dev);
	hook_leave();
	return err;
}

MUTANT(hooks, "panics when a block device is resumed");
