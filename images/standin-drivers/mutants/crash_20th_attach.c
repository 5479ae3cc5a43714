// SPDX-License-Identifier: GPL-2.0-only
/* The guest dies at the twentieth attach since the driver was loaded. */
#include "hook.h"

#define LAST 20

static int probed(struct xenbus_device *dev, const struct xenbus_device_id *id);

static struct hook hooks[] = { HOOK(DRIVER ":blkfront_probe", probed) };
static int attaches;

static int probed(struct xenbus_device *dev, const struct xenbus_device_id *id)
{
	int (*original)(struct xenbus_device *, const struct xenbus_device_id *) =
		hooks[0].original;
	int err;

	hook_enter();
	/* One thread, xenwatch, probes. */
	if (!is_system_device(dev) && ++attaches == LAST)
		panic("block front end: out of device slots");
	err = original(dev, id);
	hook_leave();
	return err;
}

MUTANT(hooks, "panics at the 20th attach");
