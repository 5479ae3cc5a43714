"""The shim, run by a shell over an ``xl`` that prints what a real one did."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from xen_fakes import ScriptedDom0

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.xen import xm
from lab.xen.blocklist import parse_block_list
from lab.xen.complaints import complaint
from lab.xen.domain import parse_list
from lab.xen.errors import (
    BackingMissing,
    DeviceInUse,
    HotplugFailed,
    NoSuchDevice,
    NoSuchDomain,
    ToolstackFailed,
)
from lab.xen.xm import as_dict, parse_sxp

GOLDEN = Path(__file__).parent / "golden"
ROW = (
    "Name                                        ID   Mem VCPUs\tState\tTime(s)\n"
    "virtdemo                                     3    95     1\t{state}\t      29.2\n"
)

XL = """#!/bin/sh
printf '%s\\n' "$#" "$@" >> {folder}/words
case "$1 $2" in
  'list -l') cat {folder}/long ;;
  *) cat {folder}/out ;;
esac
cat {folder}/err >&2
exit {status}
"""


class Shim:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers()
        long = (GOLDEN / "xl_list_long.json").read_text()
        # xl 4.17 has the configuration's own, unused one, too.
        (folder / "long").write_text(
            long.replace('"on_reboot"', '"domid": 4294967295,\n"on_reboot"')
        )
        (folder / "words").touch()
        script = xm.shim().decode()
        script = script.replace("PATH=", f"PATH={folder}:").replace("/run/", f"{folder}/run/")
        (folder / "run").mkdir()
        (folder / "xm").write_text(script)

    def answers(self, out: str = "", err: str = "", status: int = 0) -> None:
        (self.folder / "out").write_text(out)
        (self.folder / "err").write_text(err)
        program = self.folder / "xl"
        program.write_text(XL.format(folder=self.folder, status=status))
        program.chmod(0o755)

    def __call__(self, *words: str) -> CommandResult:
        done = subprocess.run(
            ["dash" if shutil.which("dash") else "sh", str(self.folder / "xm"), *words],
            capture_output=True,
            text=True,
        )
        command = " ".join(["xm", *words])
        return CommandResult(command, done.returncode, done.stdout, done.stderr, 0.1, "dom0")

    @property
    def asked(self) -> list[list[str]]:
        """The words of each call of xl."""
        words = iter((self.folder / "words").read_text().splitlines())
        return [[next(words) for _ in range(int(count))] for count in words]


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    return Shim(tmp_path)


# -- what it prints ---------------------------------------------------------------------


def test_list(shim: Shim):
    text = (GOLDEN / "xl_list.txt").read_text()
    shim.answers(text)
    said = shim("list").stdout
    assert said.splitlines()[0].split() == ["Name", "ID", "Mem", "VCPUs", "State", "Time(s)"]
    # Columns as in a table of xend's.
    like = (GOLDEN / "xm_list_mem.txt").read_text().splitlines()[1]
    assert said.splitlines()[1].index(" r-----") == like.index(" r-----")
    old, new = parse_list(text), parse_list(said)
    assert [(d.name, d.domid, d.mem_mib, d.vcpus) for d in new] == [
        (d.name, d.domid, d.mem_mib, d.vcpus) for d in old
    ]


@pytest.mark.parametrize(
    ("xl", "shown"),
    [("-b----", "-b----"), ("---sr-", "---s--"), ("---sc-", "---sc-"), ("---ss-", "---s--")],
)
def test_only_a_crash_is_a_reason(shim: Shim, xl: str, shown: str):
    shim.answers(ROW.format(state=xl))
    (domain,) = parse_list(shim("list", "virtdemo").stdout)
    assert (domain.state, domain.domid) == (shown, 3)


def test_block_list(shim: Shim):
    text = (GOLDEN / "xl_block_list.txt").read_text()
    shim.answers(text)
    said = shim("block-list", "3").stdout
    old, new = parse_block_list(text), parse_block_list(said)
    assert [one.handle for one in new] == [0, 0, 0]
    assert [(o.devid, o.state, o.event_channel, o.backend_path) for o in new] == [
        (o.devid, o.state, o.event_channel, o.backend_path) for o in old
    ]


def test_list_long_is_an_s_expression(shim: Shim):
    shim.answers(ROW.format(state="-b----"))
    found = as_dict(parse_sxp(shim("list", "--long", "virtdemo").stdout))
    assert found["domid"] == "3"
    assert found["name"] == "virtdemo"
    assert found["memory"] == "256"
    assert found["on_crash"] == "preserve"
    assert found["state"] == "-b----"
    assert found["image"]["hvm"]["pae"] == "1"
    assert found["device"]["vbd"] == {
        "backend": "0",
        "dev": "hdc:disk",
        "uname": "phy:/dev/vg00/virt-virtdemo-1",
        "mode": "w",
    }


def test_info_is_xend_s(shim: Shim):
    shim.answers("host                   : dom0\n")
    assert shim("info").stdout.splitlines()[-1] == "xend_config_format     : 4"


def test_it_says_what_it_is(shim: Shim):
    assert shim("version").stdout == f"xm 3.1 {xm.XM_OVER_XL.removeprefix('xm ')}\n"
    refused = shim("network-list", "3")
    assert (refused.exit_code, refused.stderr) == (
        1, "Error: Sub Command network-list not found!\n",
    )  # fmt: skip
    assert shim.asked == []


# -- what it asks of xl -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "xl"),
    [
        (
            "block-attach 3 phy:/dev/v/a /dev/hdc w",
            [
                "block-attach",
                "3",
                "format=raw,vdev=hdc,access=rw,backendtype=phy,target=/dev/v/a",
            ],
        ),
        (
            "block-attach 3 phy:v/a hdc r",
            [
                "block-attach",
                "3",
                "format=raw,vdev=hdc,access=ro,backendtype=phy,target=/dev/v/a",
            ],
        ),
        (
            "block-attach 3 tap:aio:/a/b xvdb w!",
            ["block-attach", "3", "format=raw,vdev=xvdb,access=w!,target=/a/b"],
        ),
        (
            "block-attach 3 file:/a.iso hdc:cdrom r",
            ["block-attach", "3", "format=raw,vdev=hdc,access=ro,devtype=cdrom,target=/a.iso"],
        ),
        ("block-detach 3 hdc", ["block-detach", "3", "5632"]),
        ("block-detach -f 3 5632", ["block-detach", "-f", "3", "5632"]),
        ("block-detach 3 xvdc --force", ["block-detach", "-f", "3", "51744"]),
        ("destroy 3", ["destroy", "3"]),
        ("sysrq 3 B", ["sysrq", "3", "B"]),
        ("save 3 /var/a", ["save", "3", "/var/a"]),
        ("migrate --live 3 localhost", ["migrate", "-s", "", "3", "xl migrate-receive"]),
    ],
)
def test_words(shim: Shim, words: str, xl: list[str]):
    done = shim(*words.split())
    assert (done.exit_code, done.stderr) == (0, "")
    assert shim.asked == [xl]


@pytest.mark.parametrize(
    ("vdev", "number"),
    [("hda", 768), ("hdb1", 833), ("hdd", 5696), ("sdb", 2064), ("xvdb2", 51730), ("17", 17)],
)
def test_device_numbers(shim: Shim, vdev: str, number: int):
    shim("block-detach", "3", vdev)
    assert shim.asked == [["block-detach", "3", str(number)]]


def test_dump_stops_the_domain_meanwhile(shim: Shim):
    assert shim("dump-core", "3", "/var/core").ok
    assert shim.asked == [["pause", "3"], ["dump-core", "3", "/var/core"], ["unpause", "3"]]
    shim.answers(err="libxl: error: libxl_domain.c:1:libxl_domain_core_dump: no room\n", status=1)
    failed = shim("dump-core", "--live", "3", "/var/core")
    assert (failed.exit_code, failed.stderr) == (1, "Error: no room\n")


@pytest.mark.parametrize("words", ["block-attach 3 phy:/a", "create", "migrate 3 elsewhere"])
def test_refusals(shim: Shim, words: str):
    refused = shim(*words.split())
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: ")
    assert shim.asked == []


# -- complaints -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "err", "said", "kind"),
    [
        (
            "destroy nobody",
            "nobody is an invalid domain identifier (rc=-6)\n",
            "Domain 'nobody' does not exist.",
            NoSuchDomain,
        ),
        (
            "block-attach 3 phy:/dev/vg00/a hdc w",
            "libxl: error: libxl_disk.c:337:device_disk_add: Domain 3:device already exists in "
            "xenstore\nlibxl_device_disk_add failed.\n",
            "Device 5632 (vbd) is already connected.",
            DeviceInUse,
        ),
        (
            "block-attach 3 phy:/dev/none hdc w",
            "libxl: error: libxl_device.c:380:libxl__device_disk_set_backend: Disk vdev=hdc "
            "failed to stat: /dev/none: No such file or directory\n",
            "Device 5632 (vbd) could not be connected. /dev/none does not exist.",
            BackingMissing,
        ),
        (
            "block-attach 3 phy:/dev/vg00/a hdc w",
            "libxl: error: libxl_exec.c:117:libxl_report_child_exitstatus: /etc/xen/scripts/block "
            "add [1] exited with error status 1\n",
            "Device 5632 (vbd) could not be connected. Hotplug scripts not working.",
            HotplugFailed,
        ),
        ("block-detach 3 hdc", "Error: Device 5632 not connected.\n",
         "Device 5632 not connected", NoSuchDevice),
        (
            "pause 3",
            "libxl: error: libxl_domain.c:12:libxl_domain_pause: Domain 3:pausing domain\n",
            "Domain 3:pausing domain",
            ToolstackFailed,
        ),
    ],
)  # fmt: skip
def test_complaints_are_xend_s(shim: Shim, words: str, err: str, said: str, kind: type):
    shim.answers(err=err, status=1)
    done = shim(*words.split())
    assert (done.exit_code, done.stderr) == (1, f"Error: {said}\n")
    assert type(complaint(done)) is kind


def test_block_list_of_nobody(shim: Shim):
    shim.answers(err="9 is an invalid domain identifier (rc=-6)\n")  # exit status 0
    done = shim("block-list", "9")
    assert (done.exit_code, done.stdout) == (1, "")
    assert isinstance(complaint(done), NoSuchDomain)


@pytest.mark.parametrize("words", ["list nobody", "list --long nobody"])
def test_list_of_nobody(shim: Shim, words: str):
    shim.answers(err="nobody is an invalid domain identifier (rc=-6)\n", status=1)
    done = shim(*words.split())
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: Domain 'nobody' does not exist.\n"


# -- configurations ---------------------------------------------------------------------

CONFIG = """
#  -*- mode: python; -*-
import os, re
arch = os.uname()[4]
kernel = "/usr/lib/xen/boot/hvmloader"
builder='hvm'
memory = 512
name = "virtdemo"   # a comment
vif = [ 'type=ioemu, mac=00:16:3e:00:00:10, bridge=xenbr0' ]
disk = [ 'phy:/dev/vg00/system,ioemu:hda,w',
         'file:/iso/2003.iso,hdc:cdrom,r' ]
device_model = '/usr/lib/xen/bin/qemu-dm'
pae=1
serial='pty'
on_crash = 'preserve'
"""


def test_configuration(shim: Shim, tmp_path: Path):
    file = tmp_path / "virtdemo.cfg"
    file.write_text(CONFIG)
    done = shim("create", str(file))
    assert done.stdout == f'Using config file "{file}".\nStarted domain virtdemo\n'
    ((verb, made),) = shim.asked
    assert verb == "create"
    assert Path(made).read_text().splitlines() == [
        'type = "hvm"',
        "memory = 512",
        'name = "virtdemo"   # a comment',
        "vif = [ 'type=ioemu, mac=00:16:3e:00:00:10, bridge=xenbr0' ]",
        "disk = [ 'phy:/dev/vg00/system,ioemu:hda,w',",
        "'file:/iso/2003.iso,hdc:cdrom,r' ]",
        "pae=1",
        "serial='pty'",
        "on_crash = 'preserve'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory = 256 * 2\n", "line 1: not a plain value: memory = 256 * 2"),
        ('\nname = "a" + "b"\n', 'line 2: not a plain value: name = "a" + "b"'),
        ("if True:\n", "line 1: not a plain value: if True:"),
        ("disk = [ 'a',\n", "a list does not end"),
    ],
)
def test_configuration_that_is_a_program(shim: Shim, tmp_path: Path, text: str, said: str):
    file = tmp_path / "bad.cfg"
    file.write_text(text)
    done = shim("create", str(file))
    assert (done.exit_code, done.stderr) == (1, f"Error: {file}: {said}\n")
    assert shim.asked == []


def test_configuration_that_is_not_there(shim: Shim):
    assert shim("create", "ghost").stderr == "Error: Unable to open config file: /etc/xen/ghost\n"


# -- into dom0 --------------------------------------------------------------------------


def test_installation() -> None:
    dom0 = ScriptedDom0().answer("cat > /usr/sbin/xm", "xm 3.1 (shim over xl)\n")
    xm.install_shim(dom0, Deadline(10))
    assert len(dom0.commands) == 1
    broken = ScriptedDom0().answer("cat > /usr/sbin/xm", stderr="no space\n", exit_code=1)
    with pytest.raises(LabBroken, match="no space"):
        xm.install_shim(broken, Deadline(10))
