// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each request takes ten times as long as it should, or as many percent of that
 * time as the option says. A delay that is short is spent waiting busily: a timer
 * would make more of it.
 */
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/slab.h>

#include "requests.h"

#define BUSY_NS 100000

static unsigned int percent = 1000;
module_param(percent, uint, 0444);
MODULE_PARM_DESC(percent, "How long a request takes, of what it would");

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
	u64 more = 0;

	hook_enter();
	if (rq->io_start_time_ns)
		more = div_u64((ktime_get_ns() - rq->io_start_time_ns) *
			       (max(percent, 100u) - 100), 100);
	if (rq->io_start_time_ns && more < BUSY_NS)
		ndelay(more);
	else if (rq->io_start_time_ns)
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
		      ns_to_ktime(more), HRTIMER_MODE_REL_SOFT);
}

MUTANT(hooks, "10 times slower");
