/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What mutants of a disk's size share: the driver sets the size when a disk is
 * connected, and again when it is resized. wrong() is the mutant's.
 */
#ifndef PVLAB_SIZE_H
#define PVLAB_SIZE_H

#include "hook.h"

static sector_t wrong(sector_t sectors);
static void set_size(struct gendisk *disk, sector_t sectors);
static bool set_size_and_notify(struct gendisk *disk, sector_t sectors);

static struct hook hooks[] = {
	HOOK_FROM_DRIVER("set_capacity", set_size),
	HOOK_FROM_DRIVER("set_capacity_and_notify", set_size_and_notify),
};

static void set_size(struct gendisk *disk, sector_t sectors)
{
	void (*original)(struct gendisk *, sector_t) = hooks[0].original;

	hook_enter();
	original(disk, is_system_disk(disk) ? sectors : wrong(sectors));
	hook_leave();
}

static bool set_size_and_notify(struct gendisk *disk, sector_t sectors)
{
	bool (*original)(struct gendisk *, sector_t) = hooks[1].original;
	bool changed;

	hook_enter();
	changed = original(disk, is_system_disk(disk) ? sectors : wrong(sectors));
	hook_leave();
	return changed;
}

#endif
