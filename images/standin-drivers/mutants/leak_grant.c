// SPDX-License-Identifier: GPL-2.0-only
/* Each attach grants the backend one page too many, and never takes it back. */
#include <linux/gfp.h>

#include <xen/grant_table.h>
#include <xen/page.h>

#include "hook.h"

static int probed(struct xenbus_device *dev, const struct xenbus_device_id *id);

static struct hook hooks[] = { HOOK(DRIVER ":blkfront_probe", probed) };

static int probed(struct xenbus_device *dev, const struct xenbus_device_id *id)
{
	int (*original)(struct xenbus_device *, const struct xenbus_device_id *) =
		hooks[0].original;
	struct page *page;
	int err;

	hook_enter();
	err = original(dev, id);
	if (!err) {
		page = alloc_page(GFP_KERNEL | __GFP_ZERO);
		if (page)
			gnttab_grant_foreign_access(dev->otherend_id, xen_page_to_gfn(page), 0);
	}
	hook_leave();
	return err;
}

MUTANT(hooks, "leaks a grant reference an attach");
