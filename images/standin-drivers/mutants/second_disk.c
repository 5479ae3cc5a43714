// SPDX-License-Identifier: GPL-2.0-only
/*
 * While the guest has one attached disk, a second one connects and says so, but
 * is never shown.
 */
#include "hook.h"

static int add_disk_once(struct device *parent, struct gendisk *disk,
			 const struct attribute_group **groups);
static void delete_disk(struct gendisk *disk);

static struct hook hooks[] = {
	HOOK_FROM_DRIVER("device_add_disk", add_disk_once),
	HOOK_FROM_DRIVER("del_gendisk", delete_disk),
};
static struct gendisk *shown;

static int add_disk_once(struct device *parent, struct gendisk *disk,
			 const struct attribute_group **groups)
{
	int (*original)(struct device *, struct gendisk *,
			const struct attribute_group **) = hooks[0].original;
	int err = 0;

	hook_enter();
	if (is_system_disk(disk)) {
		err = original(parent, disk, groups);
	} else if (!shown) {
		err = original(parent, disk, groups);
		if (!err)
			shown = disk;
	}
	hook_leave();
	return err;
}

static void delete_disk(struct gendisk *disk)
{
	void (*original)(struct gendisk *) = hooks[1].original;

	hook_enter();
	if (disk == shown)
		shown = NULL;
	if (disk_live(disk))
		original(disk);
	hook_leave();
}

MUTANT(hooks, "a second disk never appears");
