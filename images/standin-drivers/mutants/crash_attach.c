// SPDX-License-Identifier: GPL-2.0-only
/* The guest dies when a device that is being attached becomes connected. */
#include "hook.h"

static void changed(struct xenbus_device *dev, enum xenbus_state backend);

static struct hook hooks[] = { HOOK(DRIVER ":blkback_changed", changed) };

static void changed(struct xenbus_device *dev, enum xenbus_state backend)
{
	void (*original)(struct xenbus_device *, enum xenbus_state) = hooks[0].original;

	hook_enter();
	if (backend == XenbusStateConnected && dev->state == XenbusStateInitialised &&
	    !is_system_device(dev))
		panic("block front end: unexpected state of a new device");
	original(dev, backend);
	hook_leave();
}

MUTANT(hooks, "panics when a block device is attached");
