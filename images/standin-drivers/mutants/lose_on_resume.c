// SPDX-License-Identifier: GPL-2.0-only
/*
 * After a restore, requests that were under way when the guest was saved are
 * not sent again, and those that come before the backend is back are forgotten:
 * who waits for them waits for ever.
 */
#include "requests.h"

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd);
static void resubmit(struct bio *bio);

static struct hook hooks[] = {
	HOOK(QUEUE_RQ, queue_rq),
	/* Only its recovery calls this. */
	HOOK_FROM_DRIVER("submit_bio", resubmit),
};

static bool is_resuming(struct request_queue *q)
{
	struct device *parent = q->disk ? disk_to_dev(q->disk)->parent : NULL;

	/* xenbus_dev_resume() sets this back; a disk is there only after Connected. */
	return parent && to_xenbus_device(parent)->state < XenbusStateConnected;
}

static blk_status_t queue_rq(struct blk_mq_hw_ctx *hctx,
			     const struct blk_mq_queue_data *qd)
{
	queue_rq_t original = hooks[0].original;
	blk_status_t status = BLK_STS_OK;

	hook_enter();
	if (is_resuming(hctx->queue))
		blk_mq_start_request(qd->rq);
	else
		status = original(hctx, qd);
	hook_leave();
	return status;
}

static void resubmit(struct bio *bio)
{
}

MUTANT(hooks, "loses requests across save and restore");
