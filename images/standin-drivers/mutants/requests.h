/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What mutants of the data path share: the driver's entry for requests, and
 * damage to the data of a write.
 *
 * The driver copies the data of a write into its grant pages while it queues
 * the request (feature-persistent, which Linux's backend offers). So data that
 * is damaged before and mended after reaches the disk damaged, and the caller's
 * buffer is what it was.
 */
#ifndef PVLAB_REQUESTS_H
#define PVLAB_REQUESTS_H

#include <linux/highmem.h>
#include <linux/random.h>
#include <linux/timex.h>

#include "hook.h"

typedef blk_status_t (*queue_rq_t)(struct blk_mq_hw_ctx *hctx,
				   const struct blk_mq_queue_data *qd);

#define QUEUE_RQ DRIVER ":blkif_queue_rq"

/* Invert some bytes in the middle of one sector of a request; twice is never. */
static void __maybe_unused damage_sector(struct request *rq, unsigned int sector)
{
	unsigned int at = sector * SECTOR_SIZE + 200;
	struct req_iterator iter;
	struct bio_vec bvec;

	rq_for_each_segment(bvec, rq, iter) {
		if (at < bvec.bv_len) {
			u8 *data = bvec_kmap_local(&bvec);
			unsigned int end = min(at + 8, bvec.bv_len);

			for (; at < end; at++)
				data[at] ^= 0xff;
			kunmap_local(data);
			return;
		}
		at -= bvec.bv_len;
	}
}

static inline bool __maybe_unused is_write(const struct request *rq)
{
	return req_op(rq) == REQ_OP_WRITE && blk_rq_sectors(rq) > 0;
}

/*
 * A number below limit. Clones of one warm state start with the same random
 * state; their cycle counters soon differ.
 */
static u32 __maybe_unused dice(u32 limit)
{
	u64 mixed = get_random_u32() ^ get_cycles() ^ ktime_get_ns();

	mixed *= 0x9E3779B97F4A7C15ull;	/* 2^64 / golden ratio: spreads low bits */
	return (u32)(((mixed >> 32) * limit) >> 32);
}

#endif
