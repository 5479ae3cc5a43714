// SPDX-License-Identifier: GPL-2.0-only
/*
 * Of the sectors that are written while other requests are under way, one in
 * ten thousand reaches the disk damaged.
 */
#include "requests.h"

#define ONE_IN 10000

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd);

static struct hook hooks[] = { HOOK(QUEUE_RQ, queue_rq) };

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd)
{
	queue_rq_t original = hooks[0].original;
	struct request *rq = qd->rq;
	unsigned int sectors = blk_rq_sectors(rq);
	unsigned int victim = sectors;
	blk_status_t status;

	hook_enter();
	/* This request is not started yet, so it does not count itself. */
	if (is_write(rq) && blk_mq_queue_inflight(rq->q))
		victim = dice(ONE_IN);
	/* A request is far shorter than ONE_IN: each of its sectors has the same chance. */
	if (victim < sectors)
		damage_sector(rq, victim);
	status = original(hctx, qd);
	if (victim < sectors)
		damage_sector(rq, victim);
	hook_leave();
	return status;
}

MUTANT(hooks, "one sector in 10 000 is damaged under concurrency");
