// SPDX-License-Identifier: GPL-2.0-only
/*
 * A write that is not made of whole pages reaches the disk with its last sector
 * damaged: its length is not a multiple of 4 KiB, or its data does not begin at
 * a page. The sector it begins at does not matter: on a disk partitioned by
 * Server 2003, nothing begins at a multiple of 4 KiB.
 */
#include "requests.h"

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd);

static struct hook hooks[] = { HOOK(QUEUE_RQ, queue_rq) };

static bool is_unaligned(struct request *rq)
{
	struct req_iterator iter;
	struct bio_vec bvec;

	rq_for_each_segment(bvec, rq, iter)
		if (bvec.bv_offset || !PAGE_ALIGNED(bvec.bv_len))
			return true;
	return false;
}

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd)
{
	queue_rq_t original = hooks[0].original;
	struct request *rq = qd->rq;
	unsigned int last = blk_rq_sectors(rq) - 1;
	blk_status_t status;
	bool damaged;

	hook_enter();
	damaged = is_write(rq) && is_unaligned(rq);
	if (damaged)
		damage_sector(rq, last);
	status = original(hctx, qd);
	if (damaged)
		damage_sector(rq, last);
	hook_leave();
	return status;
}

MUTANT(hooks, "unaligned writes are damaged");
