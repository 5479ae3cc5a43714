// SPDX-License-Identifier: GPL-2.0-only
/* The driver holds on to itself: once loaded, it cannot be unloaded. */
#include "hook.h"

static int __init refuse_unload_init(void)
{
	int err = hooks_install(NULL, 0);

	if (!err)
		__module_get(hooked_driver);
	return err;
}

static void __exit refuse_unload_exit(void)
{
}

module_init(refuse_unload_init);
module_exit(refuse_unload_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("pvlab");
MODULE_DESCRIPTION("pvlab stand-in, seeded defect: the driver cannot be unloaded");
