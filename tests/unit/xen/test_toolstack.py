from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from xen_fakes import ScriptedDom0, ShellDom0

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import Blame, LabBroken, PvlabError
from lab.xen.blocklist import parse_block_list
from lab.xen.blockspec import BlockSpec
from lab.xen.complaints import complaint
from lab.xen.domain import Domain
from lab.xen.errors import (
    BackingMissing,
    DeviceInUse,
    HotplugFailed,
    NoSuchDevice,
    NoSuchDomain,
    ToolstackDown,
    ToolstackFailed,
)
from lab.xen.states import XenbusState
from lab.xen.toolstack import Toolstack
from lab.xen.xl import XlToolstack, parse_long_list
from lab.xen.xm import XmToolstack, as_dict, parse_sxp

GOLDEN = Path(__file__).parent / "golden"
GUEST = Domain("virtdemo", 3, 256, 1, "-b----", 1.0)


def soon() -> Deadline:
    return Deadline(10)


class _Files(ShellDom0):
    """A dom0 whose device nodes are plain files."""

    def run(self, command: str, deadline: Deadline, **how: Any) -> CommandResult:
        return super().run(command.replace("[ ! -b ", "[ ! -f "), deadline, **how)


def test_list_and_find() -> None:
    table = (GOLDEN / "xl_list.txt").read_text()
    dom0 = ScriptedDom0().answer("xl list nobody", stderr=NOBODY, exit_code=1)
    dom0.answer("xl list virtdemo", "\n".join(table.splitlines()[0:3:2]))
    dom0.answer("xl list", table)
    toolstack = XlToolstack(dom0)
    assert len(toolstack.list(soon())) == 5
    found = toolstack.find("virtdemo", soon())
    assert found is not None
    assert found.domid == 3
    assert toolstack.find("nobody", soon()) is None


NOBODY = "nobody is an invalid domain identifier (rc=-6)\n"


def test_create_lists_in_the_same_command() -> None:
    table = (GOLDEN / "xl_list.txt").read_text()
    dom0 = ScriptedDom0().answer("xl create", "win 2003 test\n" + table)
    assert XlToolstack(dom0).create("/etc/xen/win.cfg", soon()).domid == 5
    assert len(dom0.commands) == 1


def test_create_that_did_not_last() -> None:
    dom0 = ScriptedDom0().answer("xm create", "ghost\n" + (GOLDEN / "xm_list_mem.txt").read_text())
    with pytest.raises(LabBroken, match="no domain `ghost` is running"):
        XmToolstack(dom0).create("/etc/xen/ghost", soon())


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda t: t.destroy(GUEST, soon()), "destroy 3"),
        (lambda t: t.shutdown("virtdemo", soon()), "shutdown virtdemo"),
        (lambda t: t.reboot(GUEST, soon()), "reboot 3"),
        (lambda t: t.pause(GUEST, soon()), "pause 3"),
        (lambda t: t.unpause(GUEST, soon()), "unpause 3"),
        (lambda t: t.save(GUEST, "/var/a b", soon()), "save 3 '/var/a b'"),
        (lambda t: t.restore("/var/a", soon()), "restore /var/a"),
        (lambda t: t.dump_core(GUEST, "/var/core", soon()), "dump-core 3 /var/core"),
        (lambda t: t.trigger(GUEST, "nmi", soon()), "trigger 3 nmi"),
        (lambda t: t.sysrq(GUEST, "B", soon()), "sysrq 3 B"),
        (lambda t: t.block_detach(GUEST, "/dev/hdc", soon()), "block-detach 3 5632"),
    ],
)
@pytest.mark.parametrize("kind", [XlToolstack, XmToolstack])
def test_commands_that_both_have(act: object, words: str, kind: type[Toolstack]) -> None:
    dom0 = ScriptedDom0().answer("")
    act(kind(dom0))  # type: ignore[operator]
    (command,) = dom0.commands
    # What xm's core needs besides follows it.
    assert command.partition(";")[0] == f"{kind.program} {words}"


@pytest.mark.parametrize(
    ("kind", "words"),
    [(XlToolstack, "block-detach -f 3 5632"), (XmToolstack, "block-detach 3 5632 -f")],
)
def test_the_option_of_a_detach(kind: type[Toolstack], words: str) -> None:
    dom0 = ScriptedDom0().answer("")
    kind(dom0).block_detach(3, 5632, soon(), force=True)
    assert dom0.commands == [f"{kind.program} {words}"]


def test_a_core_that_fails_leaves_a_device_its_name(tmp_path: Path) -> None:
    """xend renames what it wrote to, which may be a device node; test(1) is told that it is."""
    node = tmp_path / "vdd"
    (tmp_path / "vdd-incomplete").write_text("node")
    (tmp_path / "xm").write_text("#!/bin/sh\necho 'Error: Failed to dump core: (28, x)'; exit 1\n")
    (tmp_path / "xm").chmod(0o755)
    with pytest.raises(ToolstackFailed, match="Failed to dump core"):
        XmToolstack(_Files(tmp_path)).dump_core(GUEST, str(node), soon())
    assert node.read_text() == "node"


@pytest.mark.parametrize(
    ("backend", "mode", "xl", "xm"),
    [
        (
            "phy:/dev/vg00/x",
            "w",
            "format=raw,vdev=hdc,access=rw,backendtype=phy,target=/dev/vg00/x",
            "phy:/dev/vg00/x /dev/hdc w",
        ),
        (
            "file:/srv/x.img",
            "r",
            "format=raw,vdev=hdc,access=ro,target=/srv/x.img",
            "file:/srv/x.img /dev/hdc r",
        ),
    ],
)
def test_block_attach(backend: str, mode: str, xl: str, xm: str) -> None:
    spec = BlockSpec.parse(backend, "/dev/hdc", mode)
    for kind, words in ((XlToolstack, xl), (XmToolstack, xm)):
        dom0 = ScriptedDom0().answer("")
        kind(dom0).block_attach(GUEST, spec, soon())
        assert dom0.commands == [f"{kind.program} block-attach 3 {words}"]


def test_block_list() -> None:
    entries = parse_block_list((GOLDEN / "xl_block_list.txt").read_text())
    assert [(one.vdev, one.state, one.ring_ref) for one in entries] == [
        ("hda", XenbusState.INITIALISING, None),
        ("hdc", XenbusState.CONNECTED, 8),
        ("xvda", XenbusState.CONNECTED, 9),
    ]
    assert entries[0].backend_path == "/local/domain/0/backend/qdisk/3/768"
    old = parse_block_list((GOLDEN / "xm_block_list.txt").read_text())
    assert [(one.devid, one.event_channel) for one in old] == [(768, None), (5632, 9), (5696, None)]
    with pytest.raises(LabBroken):
        parse_block_list("Vdev\nnonsense")


def test_block_list_of_nobody() -> None:
    head = "Vdev  BE  handle state evt-ch ring-ref BE-path\n"
    dom0 = ScriptedDom0().answer("xl block-list", head, stderr=NOBODY)
    with pytest.raises(NoSuchDomain):
        XlToolstack(dom0).block_list("nobody", soon())


def test_config() -> None:
    dom0 = ScriptedDom0().answer("xl list -l 3", (GOLDEN / "xl_list_long.json").read_text())
    config = XlToolstack(dom0).config(GUEST, soon())
    assert config["config"]["disks"][0]["vdev"] == "hdc"
    with pytest.raises(NoSuchDomain):
        parse_long_list("[]")
    with pytest.raises(LabBroken, match="not JSON"):
        parse_long_list("(domain")


def test_xm_config() -> None:
    dom0 = ScriptedDom0().answer("xm list --long 3", (GOLDEN / "xm_list_long.sxp").read_text())
    config = XmToolstack(dom0).config(GUEST, soon())
    assert config["name"] == "virtdemo"
    assert config["image"]["hvm"]["boot"] == "c d"
    assert [next(iter(one)) for one in config["device"]] == ["vif", "vbd", "vbd"]
    assert config["device"][2]["vbd"]["dev"] == "hdc:disk"
    with pytest.raises(LabBroken, match="does not end"):
        parse_sxp("(domain (name x)")
    assert as_dict("word") == {}


def test_info() -> None:
    dom0 = ScriptedDom0().answer("xl info", (GOLDEN / "xl_info.txt").read_text())
    info = XlToolstack(dom0).info(soon())
    assert info["xen_version"] == "4.17.5"
    assert "hvm-3.0-x86_32p" in info["xen_caps"]
    assert info["cc_compile_date"] == "Sun May 18 10:12:44 UTC 2025"


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("virtdemo is an invalid domain identifier (rc=-6)", NoSuchDomain, "identifier"),
        ("Error: Domain 'virtdemo' does not exist.", NoSuchDomain, "Domain 'virtdemo' does not"),
        ("Error: (3, 'No such process')", NoSuchDomain, "No such process"),
        (
            "libxl: error: libxl_disk.c:337:device_disk_add: Domain 3:device already exists in "
            "xenstore\nlibxl: error: libxl_device.c:1491:device_addrm_aocomplete: unable to add "
            "device\nlibxl_device_disk_add failed.",
            DeviceInUse,
            ": Domain 3:device already exists in xenstore",
        ),
        (
            "Error: Device /dev/hdc (5632, vbd) is already connected.",
            DeviceInUse,
            ": Device /dev/hdc (5632, vbd) is already connected.",
        ),
        (
            "Error: Device 5632 (vbd) could not be connected.\n"
            "Device /dev/vg00/x is mounted in a guest domain,\nand so cannot be mounted now.",
            DeviceInUse,
            "mounted in a guest domain",
        ),
        (
            "Error: Device 5632 (vbd) could not be connected. /dev/vg00/x does not exist.",
            BackingMissing,
            "/dev/vg00/x does not exist",
        ),
        (
            "libxl: error: libxl_device.c:293:disk_try_backend: Disk vdev=hdc, backend phy "
            "unsuitable as phys path not a block device",
            BackingMissing,
            ": Disk vdev=hdc, backend phy unsuitable",
        ),
        (
            "Error: Device 5632 (vbd) could not be connected. Backend device not found.",
            BackingMissing,
            "Backend device not found",
        ),
        ("Error: Device hdc not connected.", NoSuchDevice, "Device hdc not connected"),
        (
            "Error: Device 5632 (vbd) could not be connected. Hotplug scripts not working.",
            HotplugFailed,
            "Hotplug scripts not working",
        ),
        (
            "libxl: error: libxl_exec.c:117:libxl_report_child_exitstatus: "
            "/etc/xen/scripts/block add [1234] exited with error status 1",
            HotplugFailed,
            "/etc/xen/scripts/block add [1234] exited with error status 1",
        ),
        (
            "Error: Unable to connect to xend: No such file or directory. Is xend running?",
            ToolstackDown,
            "Unable to connect to xend",
        ),
        ("something new", ToolstackFailed, ": something new"),
        ("", ToolstackFailed, "exit status 1, no message"),
    ],
)
def test_complaints(said: str, kind: type[PvlabError], message: str) -> None:
    error = complaint(CommandResult("xl block-attach 3 x", 1, "", said, 0.1, "dom0"))
    assert type(error) is kind
    assert re.search(re.escape(message), error.message)
    assert error.message.startswith("xl block-attach: ")
    assert "\n" not in str(error)
    assert error.blame is Blame.LAB
