#!/bin/sh
# The whole start-up of dom0. Each process costs tens of milliseconds under emulation, so
# there is one of everything and no init framework around it.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
# What udev would have made; Xen's hotplug scripts lock through /dev/stdin.
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -t devpts -o gid=5,mode=620 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p /run/lock /run/sshd /run/xen /run/xenstored /run/lvm
hostname -F /etc/hostname

modprobe -a xenfs xen-evtchn xen-gntdev xen-gntalloc xen-privcmd xen-blkback xen-netback \
    virtio_net bridge dm-mod loop tun
mount -t xenfs xenfs /proc/xen
# A program that is in the page cache is mapped at its first page fault, not at one every 64 KiB:
# a fault is dear under an emulated hypervisor.
mount -t debugfs debugfs /sys/kernel/debug
echo 1048576 > /sys/kernel/debug/fault_around_bytes

# The network: QEMU's user network outside (slirp's fixed addresses, closed to the world by
# restrict=on), the guests' own bridge inside. WinRM is forwarded in the kernel, since an SSH
# tunnel would cost emulated cryptography for every byte.
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip link add xenbr0 type bridge forward_delay 0 stp_state 0
ip addr add 192.168.53.1/24 dev xenbr0
ip link set xenbr0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
nft -f /etc/pvlab/nat.nft

/usr/lib/xen-4.17/bin/xenstored --pid-file /run/xenstored.pid
/usr/lib/xen-4.17/bin/xen-init-dom0 > /dev/null
/usr/lib/xen-4.17/bin/xenconsoled --log=guest --log-dir=/var/log/xen/console \
    --pid-file=/run/xenconsoled.pid

# The second disk is vg00, as in the commands people type. A blank disk becomes vg00 here.
if [ -b /dev/vdb ]; then
    vgchange -q -ay vg00 2> /dev/null || {
        pvcreate -q -ff -y /dev/vdb && vgcreate -q vg00 /dev/vdb
    } > /var/log/pvlab-vg.log 2>&1
fi
mkdir -p /var/log/pvlab /var/log/xen/console /var/lib/pvlab
echo "pvlab: dom0 ready" > /dev/console
