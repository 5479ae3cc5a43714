// SPDX-License-Identifier: GPL-2.0-only
/*
 * One attach in twenty never ends: the thread that handles xenbus events waits
 * for ever. The seed makes the same attaches hang each time; 0: by chance.
 */
#include <linux/prandom.h>

#include "requests.h"

static unsigned int percent = 5;
module_param(percent, uint, 0444);
MODULE_PARM_DESC(percent, "How many attaches in a hundred hang");

static unsigned int seed;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "Which attaches hang; 0: by chance");

static void changed(struct xenbus_device *dev, enum xenbus_state backend);

static struct hook hooks[] = { HOOK(DRIVER ":blkback_changed", changed) };
static struct rnd_state state;

static bool unlucky(void)
{
	static bool seeded;

	if (!seed)
		return dice(100) < percent;
	if (!seeded) {
		prandom_seed_state(&state, seed);
		seeded = true;
	}
	return prandom_u32_state(&state) % 100 < percent;
}

static void changed(struct xenbus_device *dev, enum xenbus_state backend)
{
	void (*original)(struct xenbus_device *, enum xenbus_state) = hooks[0].original;

	hook_enter();
	if (backend == XenbusStateInitWait && dev->state == XenbusStateInitialising &&
	    !is_system_device(dev) && unlucky())
		for (;;)
			schedule_timeout_idle(MAX_SCHEDULE_TIMEOUT);
	original(dev, backend);
	hook_leave();
}

MUTANT(hooks, "one attach in twenty hangs");
