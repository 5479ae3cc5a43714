// SPDX-License-Identifier: GPL-2.0-only
/* A write that failed is reported as done. */
#include "requests.h"

static void complete_rq(struct request *rq);

static struct hook hooks[] = { HOOK(DRIVER ":blkif_complete_rq", complete_rq) };

static void complete_rq(struct request *rq)
{
	void (*original)(struct request *) = hooks[0].original;

	hook_enter();
	if (is_write(rq))
		blk_mq_end_request(rq, BLK_STS_OK);
	else
		original(rq);
	hook_leave();
}

MUTANT(hooks, "failed writes are reported as done");
