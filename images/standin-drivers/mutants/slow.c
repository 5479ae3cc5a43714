// SPDX-License-Identifier: GPL-2.0-only
/* Each request takes ten times as long as it should. */
#include <linux/hrtimer.h>
#include <linux/slab.h>

#include "requests.h"

#define TIMES 10

/* block/blk-stat.h, which is not among the installed headers. */
void blk_stat_enable_accounting(struct request_queue *q);

struct late {
	struct hrtimer timer;
	struct request *rq;
};

static void complete_rq(struct request *rq);

static struct hook hooks[] = { HOOK(DRIVER ":blkif_complete_rq", complete_rq) };

static enum hrtimer_restart complete_late(struct hrtimer *timer)
{
	struct late *late = container_of(timer, struct late, timer);
	void (*original)(struct request *) = hooks[0].original;

	original(late->rq);
	kfree(late);
	hook_leave();
	return HRTIMER_NORESTART;
}

static void complete_rq(struct request *rq)
{
	void (*original)(struct request *) = hooks[0].original;
	struct late *late = NULL;

	hook_enter();
	if (rq->io_start_time_ns)
		late = kmalloc(sizeof(*late), GFP_ATOMIC);
	else
		blk_stat_enable_accounting(rq->q);
	if (!late) {
		original(rq);
		hook_leave();
		return;
	}
	late->rq = rq;
	hrtimer_init(&late->timer, CLOCK_MONOTONIC, HRTIMER_MODE_REL_SOFT);
	late->timer.function = complete_late;
	hrtimer_start(&late->timer,
		      ns_to_ktime((ktime_get_ns() - rq->io_start_time_ns) * (TIMES - 1)),
		      HRTIMER_MODE_REL_SOFT);
}

MUTANT(hooks, "10 times slower");
