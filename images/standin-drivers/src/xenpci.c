// SPDX-License-Identifier: GPL-2.0-only
/*
 * The bus side of the stand-in's block driver: connects its devices when it is
 * loaded, and disconnects them when it is unloaded.
 *
 * Linux never unloads a PV front end while it has devices: the bus holds a
 * reference on the driver for each of them, and a device that was disconnected
 * is not connected again. A driver on Windows is stopped, disabled and updated
 * with its disks attached, and has to find them again. What is missing for
 * that is here; the front end itself stays as Debian built it.
 *
 * Loaded after the driver and unloaded before it.
 *
 * States and who moves when: xen/include/public/io/blkif.h, "Startup" and
 * "Shutdown" in its state diagrams; drivers/block/xen-blkback/xenbus.c,
 * frontend_changed().
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/device.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/string.h>

#include <xen/xenbus.h>

#define LOOK_MS 20
#define PATIENCE_MS 10000
/* A connect that met the end of the disconnect is begun anew after this. */
#define RETRY_MS 1000

/*
 * The bus is not exported; a network device of the same bus leads to it. The
 * guest of the lab always has one.
 */
static struct bus_type *xen_bus(void)
{
	struct bus_type *bus = NULL;
	struct net_device *net;

	rtnl_lock();
	for_each_netdev(&init_net, net) {
		struct device *parent = net->dev.parent;

		if (parent && parent->bus && !strcmp(parent->bus->name, "xen"))
			bus = parent->bus;
	}
	rtnl_unlock();
	return bus;
}

static int connect(struct device *dev, void *unused)
{
	struct xenbus_device *xdev = to_xenbus_device(dev);
	int waited;

	if (strcmp(xdev->devicetype, "vbd"))
		return 0;
	if (!dev->driver && device_attach(dev) <= 0)
		return 0;
	if (xdev->state != XenbusStateClosed)
		return 0;
	for (waited = 0; waited < PATIENCE_MS; waited += LOOK_MS) {
		if (xdev->state == XenbusStateConnected)
			return 0;
		/* The event of the last disconnect may still come and close it. */
		if (waited % RETRY_MS == 0 && xdev->state == XenbusStateClosed)
			xenbus_switch_state(xdev, XenbusStateInitialising);
		msleep(LOOK_MS);
	}
	dev_warn(dev, "its backend does not connect again\n");
	return 0;
}

static int disconnect(struct device *dev, void *unused)
{
	struct xenbus_device *xdev = to_xenbus_device(dev);
	int waited;

	if (strcmp(xdev->devicetype, "vbd") || !dev->driver)
		return 0;
	/* The disk goes first, so that what is on its way still gets there. */
	device_release_driver(dev);
	xenbus_switch_state(xdev, XenbusStateClosed);
	for (waited = 0; waited < PATIENCE_MS; waited += LOOK_MS) {
		if (xenbus_read_driver_state(xdev->otherend) != XenbusStateConnected)
			return 0;
		msleep(LOOK_MS);
	}
	dev_warn(dev, "its backend does not let go\n");
	return 0;
}

static int __init xenpci_init(void)
{
	struct bus_type *bus = xen_bus();

	return bus ? bus_for_each_dev(bus, NULL, NULL, connect) : 0;
}

static void __exit xenpci_exit(void)
{
	struct bus_type *bus = xen_bus();

	if (bus)
		bus_for_each_dev(bus, NULL, NULL, disconnect);
}

module_init(xenpci_init);
module_exit(xenpci_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("pvlab");
MODULE_DESCRIPTION("pvlab stand-in: stops and starts the block front end with its devices");
