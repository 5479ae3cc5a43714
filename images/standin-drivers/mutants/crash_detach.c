// SPDX-License-Identifier: GPL-2.0-only
/* The guest dies when a device goes away. */
#include "hook.h"

static void removed(struct xenbus_device *dev);

static struct hook hooks[] = { HOOK(DRIVER ":blkfront_remove", removed) };

static void removed(struct xenbus_device *dev)
{
	void (*original)(struct xenbus_device *) = hooks[0].original;

	hook_enter();
	original(dev);
	if (!is_system_device(dev))
		panic("block front end: device freed twice");
	hook_leave();
}

MUTANT(hooks, "panics when a block device is detached");
