// SPDX-License-Identifier: GPL-2.0-only
/*
 * A seeded defect for the pvlab stand-in guest: panic as soon as the block
 * front end is given a device, as a driver does that is wrong about its IRQL
 * or its ring. The lab has to notice that the guest crashed, and why.
 *
 * A kprobe on the entry of blkfront_probe() (drivers/block/xen-blkfront.c)
 * leaves the driver's own binary as it is. The symbol lives in the module
 * xen_blkfront, which must be loaded before this one; block devices that it
 * already serves are not affected.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/module.h>

/* What the lab's tests look for on the guest's serial port. */
#define DEFECT "pvlab seeded defect: crash on attach"

static int crash_on_probe(struct kprobe *probe, struct pt_regs *regs)
{
	panic(DEFECT " (%s)", probe->symbol_name);
	return 0;
}

static struct kprobe attach_probe = {
	.symbol_name = "xen_blkfront:blkfront_probe",
	.pre_handler = crash_on_probe,
};

static int __init crash_on_attach_init(void)
{
	int err = register_kprobe(&attach_probe);

	if (err) {
		pr_err("no probe on %s: error %d; is xen_blkfront loaded?\n",
		       attach_probe.symbol_name, err);
		return err;
	}
	pr_info("armed: the next attached block device crashes this guest\n");
	return 0;
}

static void __exit crash_on_attach_exit(void)
{
	unregister_kprobe(&attach_probe);
}

module_init(crash_on_attach_init);
module_exit(crash_on_attach_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("pvlab");
MODULE_DESCRIPTION("pvlab stand-in: seeded defect, panics when a block device is attached");
