/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How a mutant gets its defect into the good block front end: one function is
 * replaced by another, which may call the original. The driver's own binary
 * stays as Debian built it.
 *
 * ftrace redirects the entry of the function (Documentation/livepatch/
 * livepatch.rst, "Kprobes, Ftrace, Livepatching", has the same trick); the
 * original is entered behind its call of __fentry__, so it is not redirected
 * again. A mutant is a module of its own, loaded after the driver and unloaded
 * before it. It prints nothing: a real defect does not announce itself.
 */
#ifndef PVLAB_HOOK_H
#define PVLAB_HOOK_H

#include <linux/atomic.h>
#include <linux/blkdev.h>
#include <linux/blk-mq.h>
#include <linux/delay.h>
#include <linux/ftrace.h>
#include <linux/kernel.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/string.h>

#include <xen/xenbus.h>

#define DRIVER "xen_blkfront"

/*
 * One function to replace.
 *
 * symbol:      its name; "xen_blkfront:name" for one of the driver's own.
 * replacement: what runs in its place.
 * from_driver: only where the driver calls it; for functions of the kernel.
 * original:    the function itself, set by hooks_install().
 */
struct hook {
	const char *symbol;
	void *replacement;
	bool from_driver;
	void *original;
	unsigned long address;
	bool installed;
	struct ftrace_ops ops;
};

#define HOOK(name, function) { .symbol = (name), .replacement = (function) }
#define HOOK_FROM_DRIVER(name, function) \
	{ .symbol = (name), .replacement = (function), .from_driver = true }

static struct module *hooked_driver;
/* Replacements that run now; the module must not go away under them. */
static atomic_t hooks_busy = ATOMIC_INIT(0);

#define hook_enter() atomic_inc(&hooks_busy)
#define hook_leave() atomic_dec(&hooks_busy)

static void notrace hook_redirect(unsigned long ip, unsigned long parent_ip,
				  struct ftrace_ops *ops,
				  struct ftrace_regs *fregs)
{
	struct hook *hook = container_of(ops, struct hook, ops);
	struct pt_regs *regs = ftrace_get_regs(fregs);

	if (!regs)
		return;
	if (hook->from_driver && !within_module(parent_ip, hooked_driver))
		return;
	regs->ip = (unsigned long)hook->replacement;
}

/* kallsyms_lookup_name() is not exported; a kprobe knows where it is. */
static unsigned long hook_lookup(const char *symbol)
{
	static unsigned long (*lookup)(const char *name);
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };

	if (!lookup) {
		if (register_kprobe(&probe))
			return 0;
		lookup = (void *)probe.addr;
		unregister_kprobe(&probe);
	}
	return lookup(symbol);
}

static void hooks_remove(struct hook *hooks, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (!hooks[i].installed)
			continue;
		unregister_ftrace_function(&hooks[i].ops);
		hooks[i].installed = false;
	}
	while (atomic_read(&hooks_busy))
		msleep(20);
	synchronize_rcu();
}

static int hooks_install(struct hook *hooks, size_t count)
{
	struct module *(*find)(const char *name);
	size_t i;
	int err;

	find = (void *)hook_lookup("find_module");
	hooked_driver = find ? find(DRIVER) : NULL;
	if (!hooked_driver)
		return -ENOENT;
	for (i = 0; i < count; i++) {
		struct hook *hook = &hooks[i];

		hook->address = hook_lookup(hook->symbol);
		if (!hook->address) {
			err = -ENOENT;
			goto fail;
		}
		hook->original = (void *)(hook->address + MCOUNT_INSN_SIZE);
		hook->ops.func = hook_redirect;
		hook->ops.flags = FTRACE_OPS_FL_SAVE_REGS |
				  FTRACE_OPS_FL_RECURSION |
				  FTRACE_OPS_FL_IPMODIFY;
		err = ftrace_set_filter_ip(&hook->ops, hook->address, 0, 0);
		if (!err)
			err = register_ftrace_function(&hook->ops);
		if (err)
			goto fail;
		hook->installed = true;
	}
	return 0;
fail:
	pr_err("%s: error %d\n", hooks[i].symbol, err);
	hooks_remove(hooks, i);
	return err;
}

/*
 * The emulated system disk shows a second time as a PV disk (vbd 768, xvda).
 * It is connected while the driver is being installed, perhaps before the
 * mutant is there, perhaps after: mutants leave it alone, so that what they do
 * does not depend on that race.
 */
static inline bool __maybe_unused is_system_device(const struct xenbus_device *dev)
{
	return strcmp(kbasename(dev->nodename), "768") == 0;
}

static inline bool __maybe_unused is_system_disk(const struct gendisk *disk)
{
	return strcmp(disk->disk_name, "xvda") == 0;
}

#define MUTANT(hooks, words)						\
	static int __init mutant_init(void)				\
	{								\
		return hooks_install(hooks, ARRAY_SIZE(hooks));		\
	}								\
	static void __exit mutant_exit(void)				\
	{								\
		hooks_remove(hooks, ARRAY_SIZE(hooks));			\
	}								\
	module_init(mutant_init);					\
	module_exit(mutant_exit);					\
	MODULE_LICENSE("GPL");						\
	MODULE_AUTHOR("pvlab");						\
	MODULE_DESCRIPTION("pvlab stand-in, seeded defect: " words)

#endif
