// SPDX-License-Identifier: GPL-2.0-only
/* The guest dies when a flush is sent to an attached disk. */
#include "requests.h"

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd);

static struct hook hooks[] = { HOOK(QUEUE_RQ, queue_rq) };

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd)
{
	queue_rq_t original = hooks[0].original;
	blk_status_t status;

	hook_enter();
	if (req_op(qd->rq) == REQ_OP_FLUSH && !is_system_disk(qd->rq->q->disk))
		panic("block front end: a request without data");
	status = original(hctx, qd);
	hook_leave();
	return status;
}

MUTANT(hooks, "panics at a flush");
