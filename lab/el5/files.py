"""The files that the lab puts into a host, and what is done when it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.el5.grub import GrubConf, XenEntry
from lab.el5.model import (
    BRIDGE,
    BRIDGE_ADDRESS,
    BRIDGE_NETMASK,
    DOM0_ADDRESS,
    DOM0_GATEWAY,
    DOM0_NETMASK,
    GUEST_ADDRESS,
    WINRM_PORT,
    Variant,
)
from lab.el5.xend import xend_config

#: Below /boot: names that do not depend on a version, which the kickstart makes.
HYPERVISOR, KERNEL, INITRD = "xen-lab.gz", "vmlinuz-lab", "initrd-lab.img"
ROOT_DEVICE = "/dev/hda2"

_IFCFG = """\
DEVICE={device}
ONBOOT=yes
BOOTPROTO=static
IPADDR={address}
NETMASK={netmask}
{more}"""

# The guest's WinRM is reached through dom0, as on every host of the lab.
_IPTABLES = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp -m tcp --dport {port} -j DNAT --to-destination {guest}:5985
-A PREROUTING -i eth0 -p tcp -m tcp --dport {next_port} -j DNAT --to-destination {next_guest}:5985
-A POSTROUTING -o {bridge} -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
COMMIT
"""

# OpenSSH 4.3 names neither key exchanges nor key types; what it has, lab.xen.old_ssh offers.
_SSHD = """\
Port 22
Protocol 2
HostKey /etc/ssh/ssh_host_rsa_key
PermitRootLogin without-password
PasswordAuthentication no
ChallengeResponseAuthentication no
GSSAPIAuthentication no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
X11Forwarding no
AllowTcpForwarding yes
MaxStartups 64
Ciphers aes128-ctr,aes128-cbc,3des-cbc
Subsystem sftp /usr/libexec/openssh/sftp-server
"""

# The second disk is vg00, as in the commands people type; a blank one becomes it here.
_START = """\
#!/bin/sh
# The lab's part of the start: after everything else, before "ready" on the console.
if [ -b /dev/hdb ]; then
    vgchange -q -ay vg00 > /dev/null 2>&1 || {
        pvcreate -ff -y /dev/hdb && vgcreate vg00 /dev/hdb
    } > /var/log/pvlab-vg.log 2>&1
fi
mkdir -p /var/log/pvlab /var/lib/pvlab /var/log/xen/console
echo "pvlab: dom0 ready" > /dev/console
"""

# A root shell on the console: whoever reaches it already owns the QEMU process around it.
_CONSOLE = """\
#!/bin/sh
export HOME=/root USER=root PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /root || cd /
exec /bin/bash -l
"""


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file of the host.

    Attributes:
        path: absolute.
        text: its content.
        mode: permissions.
    """

    path: str
    text: str
    mode: int = 0o644


def grub_conf(variant: Variant) -> GrubConf:
    """What the host starts."""
    serial = ("com1=115200,8n1", "console=com1")
    # loglvl: what Xen says of guests is evidence. noreboot: a dying hypervisor must be seen.
    xen = (*serial, f"dom0_mem={variant.dom0_mib}M", "noreboot", "loglvl=warning")
    # The hypervisor owns the serial port; dom0 writes to it through a console of its own.
    kernel = (
        "ro",
        f"root={ROOT_DEVICE}",
        "xencons=ttyS0",
        "console=ttyS0,115200",
        "clocksource=jiffies",
    )
    return GrubConf(
        (
            XenEntry(
                title=f"Xen {variant.xen}, {variant.dom0_bits}-bit dom0",
                hypervisor=HYPERVISOR,
                hypervisor_words=(*xen, "guest_loglvl=all", *variant.hypervisor),
                kernel=KERNEL,
                kernel_words=(*kernel, *variant.kernel),
                initrd=INITRD,
            ),
        )
    )


def host_files(variant: Variant, authorized_key: str) -> Sequence[HostFile]:
    """Everything that differs from what the distribution installs.

    Args:
        variant: the host.
        authorized_key: public key line of who may log in.
    """
    scripts = "/etc/sysconfig/network-scripts"
    octets = GUEST_ADDRESS.rpartition(".")
    next_guest = f"{octets[0]}.{int(octets[2]) + 1}"
    outside = _IFCFG.format(
        device="eth0",
        address=DOM0_ADDRESS,
        netmask=DOM0_NETMASK,
        more=f"GATEWAY={DOM0_GATEWAY}\n",
    )
    bridge = _IFCFG.format(
        device=BRIDGE,
        address=BRIDGE_ADDRESS,
        netmask=BRIDGE_NETMASK,
        more="TYPE=Bridge\nDELAY=0\nSTP=off\n",
    )
    iptables = _IPTABLES.format(
        port=WINRM_PORT,
        guest=GUEST_ADDRESS,
        next_port=WINRM_PORT + 1,
        next_guest=next_guest,
        bridge=BRIDGE,
    )
    return (
        HostFile("/boot/grub/grub.conf", grub_conf(variant).text(), 0o600),
        HostFile("/etc/xen/xend-config.sxp", xend_config(dom0_mib=variant.dom0_mib)),
        HostFile(f"{scripts}/ifcfg-eth0", outside),
        HostFile(f"{scripts}/ifcfg-{BRIDGE}", bridge),
        HostFile("/etc/sysconfig/iptables", iptables, 0o600),
        HostFile("/etc/ssh/sshd_config", _SSHD, 0o600),
        HostFile("/root/.ssh/authorized_keys", f"{authorized_key.strip()}\n", 0o600),
        HostFile("/etc/pvlab/start", _START, 0o755),
        HostFile("/etc/pvlab/console-shell", _CONSOLE, 0o755),
    )
