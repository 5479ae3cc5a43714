// SPDX-License-Identifier: GPL-2.0-only
/*
 * A detach never ends: the thread that handles xenbus events waits for ever
 * when the backend wants to close.
 */
#include "hook.h"

static void changed(struct xenbus_device *dev, enum xenbus_state backend);

static struct hook hooks[] = { HOOK(DRIVER ":blkback_changed", changed) };

static void changed(struct xenbus_device *dev, enum xenbus_state backend)
{
	void (*original)(struct xenbus_device *, enum xenbus_state) = hooks[0].original;

	hook_enter();
	if (backend == XenbusStateClosing && !is_system_device(dev))
		for (;;)
			schedule_timeout_idle(MAX_SCHEDULE_TIMEOUT);
	original(dev, backend);
	hook_leave();
}

MUTANT(hooks, "a detach hangs");
