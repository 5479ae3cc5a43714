"""A kickstart of Enterprise Linux 5 (Installation Guide 5, chapter "Kickstart Installations").

It is put into the installer's initramfs, so nothing has to be served. It holds no secret: root
has no password, the host makes its own key and says the public half on the serial port.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lab.el5.files import HYPERVISOR, INITRD, KERNEL, HostFile, host_files
from lab.el5.model import DOM0_ADDRESS, DOM0_GATEWAY, DOM0_NETMASK, Variant

PORT = "/dev/ttyS0"
#: What the scripts say on the serial port, one after the other.
BEGUN, INSTALLED, HOST_KEY, DONE = (
    f"pvlab: {word}" for word in ("setup begins", "packages installed", "host key", "setup done")
)
FAILED = "pvlab: setup failed"

_PACKAGES = (
    "@core", "kernel-xen", "xen", "lvm2", "openssh-server", "bridge-utils", "iptables", "cpio",
    "util-linux", "e2fsprogs",
)  # fmt: skip
_SERVICES_ON = ("xend", "sshd", "iptables", "network")
# What asks for devices the machine has not, or for a network that it may not reach.
_SERVICES_OFF = (
    "xendomains", "bluetooth", "cups", "kudzu", "pcscd", "yum-updatesd", "sendmail", "autofs",
    "smartd", "avahi-daemon", "firstboot", "mcstrans", "restorecond", "hidd", "gpm", "isdn",
)  # fmt: skip

_HEAD = """\
install
cdrom
text
skipx
key --skip
lang en_US.UTF-8
keyboard us
network --device=eth0 --bootproto=static --ip={address} --netmask={netmask} \
--gateway={gateway} --nodns --hostname=dom0
rootpw --iscrypted !!
firewall --disabled
selinux --disabled
authconfig --enableshadow --enablemd5
firstboot --disabled
timezone --utc UTC
bootloader --location=mbr --driveorder=hda
zerombr
clearpart --all --initlabel --drives=hda
part /boot --fstype=ext3 --size=100 --ondisk=hda --asprimary
part / --fstype=ext3 --size=3072 --grow --ondisk=hda --asprimary
part swap --size=256 --ondisk=hda --asprimary
poweroff
"""

# The second CD drive holds the other medium. anaconda makes nodes as it needs them.
_OTHER_MEDIUM = """\
mkdir -p /tmp/other
[ -b /tmp/hdd ] || mknod /tmp/hdd b 22 64
if mount -t iso9660 -o ro /tmp/hdd /tmp/other; then
    mkdir -p /mnt/sysimage/root/other
    find /tmp/other \\( {patterns} \\) -exec cp {{}} /mnt/sysimage/root/other/ \\;
    umount /tmp/other
fi
"""

_HYPERVISOR_FROM_RPM = """\
mkdir -p /root/unpacked && cd /root/unpacked || fail "no room"
for rpm in /root/other/*.x86_64.rpm; do
    rpm2cpio "$rpm" | cpio -idm --quiet --no-absolute-filenames './boot/xen*' || fail "$rpm"
done
image=$(ls /root/unpacked/boot/xen*.gz* 2>/dev/null | head -n 1)
[ -n "$image" ] || fail "no 64-bit hypervisor on the other medium"
cp "$image" /boot/{hypervisor} || fail "no room in /boot"
cd /; rm -rf /root/unpacked /root/other
"""

_TOOLS_FROM_RPM = """\
rpm -Uvh --force --nodeps /root/other/xen*.{processor}.rpm || fail "the packages of Xen"
"""

_HYPERVISOR_INSTALLED = """\
image=$(ls /boot/xen.gz-* 2>/dev/null | head -n 1)
[ -n "$image" ] || fail "no hypervisor was installed"
ln -f "$image" /boot/{hypervisor} || fail "no room in /boot"
"""

_FINISH = """\
kernel=$(ls /boot/vmlinuz-*xen* 2>/dev/null | head -n 1)
[ -n "$kernel" ] || fail "no dom0 kernel was installed"
version=${{kernel#/boot/vmlinuz-}}
ln -f "$kernel" /boot/{kernel} || fail "no dom0 kernel"
ln -f /boot/initrd-$version.img /boot/{initrd} || fail "no initramfs for $version"
chmod 700 /root/.ssh
rm -f /etc/ssh/ssh_host_* /root/anaconda-ks.cfg
ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/ssh_host_rsa_key || fail "no host key"
echo 'net.ipv4.ip_forward = 1' >> /etc/sysctl.conf
grep -q ttyS0 /etc/securetty || echo ttyS0 >> /etc/securetty
echo 'co:2345:respawn:/sbin/agetty -n -l /etc/pvlab/console-shell 115200 ttyS0' >> /etc/inittab
echo '[ ! -x /etc/pvlab/start ] || /etc/pvlab/start' >> /etc/rc.d/rc.local
for one in {off}; do chkconfig "$one" off 2>/dev/null; done
for one in {on}; do chkconfig "$one" on || fail "no service $one"; done
say "{host_key}: $(cut -d' ' -f1,2 /etc/ssh/ssh_host_rsa_key.pub)"
say "{done}"
"""


@dataclass(frozen=True, slots=True)
class Kickstart:
    """A kickstart for one host.

    Attributes:
        variant: the host.
        authorized_key: public key line of who may log in.
    """

    variant: Variant
    authorized_key: str

    def text(self) -> str:
        """As anaconda of that time reads it: its sections have no ``%end``."""
        head = _HEAD.format(address=DOM0_ADDRESS, netmask=DOM0_NETMASK, gateway=DOM0_GATEWAY)
        parts = [
            head,
            "%packages --ignoremissing",
            "\n".join(_PACKAGES),
            "",
            "%pre",
            f'echo "{BEGUN}" > {PORT}',
            "",
        ]
        if self._patterns:
            names = " -o ".join(f"-name '{pattern}'" for pattern in self._patterns)
            parts += ["%post --nochroot", _OTHER_MEDIUM.format(patterns=names)]
        parts += ["%post", self._post()]
        return "\n".join(parts)

    @property
    def _patterns(self) -> Sequence[str]:
        """The packages that are needed of the other medium."""
        if self.variant.xen_rpms is not None:
            return ("xen*.rpm",)
        return ("kernel-xen-2*.x86_64.rpm",) if self.variant.hypervisor_medium else ()

    def _post(self) -> str:
        words = {
            "hypervisor": HYPERVISOR,
            "kernel": KERNEL,
            "initrd": INITRD,
            "on": " ".join(_SERVICES_ON),
            "off": " ".join(_SERVICES_OFF),
            "host_key": HOST_KEY,
            "done": DONE,
        }
        source = _HYPERVISOR_FROM_RPM if self._patterns else _HYPERVISOR_INSTALLED
        processor = "i[36]86" if self.variant.dom0_bits == 32 else "x86_64"
        tools = _TOOLS_FROM_RPM.format(processor=processor) if self.variant.xen_rpms else ""
        return "\n".join(
            [
                f'say() {{ echo "$*" > {PORT}; }}',
                # What failed is said, and nothing says that it is done.
                f'fail() {{ say "{FAILED}: $*"; exit 1; }}',
                f'say "{INSTALLED}"',
                *(_here(file) for file in host_files(self.variant, self.authorized_key)),
                tools + source.format(**words),
                _FINISH.format(**words),
            ]
        )


def _here(file: HostFile) -> str:
    """Shell text that writes a file."""
    folder = file.path.rpartition("/")[0]
    return (
        f"mkdir -p {folder}\n"
        f"cat > {file.path} << 'PVLAB_END'\n{file.text}PVLAB_END\n"
        f"chmod {file.mode:o} {file.path}"
    )
