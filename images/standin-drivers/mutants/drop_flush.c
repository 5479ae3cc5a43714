// SPDX-License-Identifier: GPL-2.0-only
/* A flush is reported as done and never sent. */
#include "requests.h"

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd);

static struct hook hooks[] = { HOOK(QUEUE_RQ, queue_rq) };

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd)
{
	queue_rq_t original = hooks[0].original;
	blk_status_t status = BLK_STS_OK;

	hook_enter();
	if (req_op(qd->rq) == REQ_OP_FLUSH) {
		blk_mq_start_request(qd->rq);
		blk_mq_end_request(qd->rq, BLK_STS_OK);
	} else {
		status = original(hctx, qd);
	}
	hook_leave();
	return status;
}

MUTANT(hooks, "flushes are dropped");
