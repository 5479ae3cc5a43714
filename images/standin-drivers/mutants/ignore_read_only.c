// SPDX-License-Identifier: GPL-2.0-only
/* A disk that was attached read-only is shown as writable. */
#include "hook.h"

static void set_read_only(struct gendisk *disk, bool read_only);

static struct hook hooks[] = { HOOK_FROM_DRIVER("set_disk_ro", set_read_only) };

static void set_read_only(struct gendisk *disk, bool read_only)
{
}

MUTANT(hooks, "read-only is ignored");
