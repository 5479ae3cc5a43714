"""The attach script, run for real under a shell with fake Xen tools."""

from __future__ import annotations

from pathlib import Path

import pytest
from xen_fakes import FakeTools, ShellDom0

from lab.core.deadline import Deadline
from lab.core.errors import Blame, DriverFailure, GuestCrashed, LabBroken, UsageError
from lab.xen import remote_wait, vbd
from lab.xen.blockspec import BlockSpec
from lab.xen.domain import Domain
from lab.xen.errors import BackendFailed, BackingMissing, DeviceInUse, FrontendFailed, NoSuchDevice
from lab.xen.states import XenbusState
from lab.xen.toolstack import Toolstack
from lab.xen.xenstore import Xenstore
from lab.xen.xl import XlToolstack
from lab.xen.xm import XmToolstack

GUEST = Domain("virtdemo", 7, 256, 1, "-b----", 3.1)
SPEC = BlockSpec.parse("phy:/dev/vg00/virt-virtdemo-1", "/dev/hdc", "w")
FRONT = "/local/domain/7/device/vbd/5632"
BACK = "/local/domain/0/backend/vbd/7/5632"
SETUP = f"""
put {FRONT}/backend {BACK}
put {FRONT}/backend-id 0
put {FRONT}/state 1
put {FRONT}/virtual-device 5632
put {BACK}/frontend {FRONT}
put {BACK}/params /dev/vg00/virt-virtdemo-1
put {BACK}/mode w
put {BACK}/state 2
put {BACK}/hotplug-status connected
"""
CONNECT = f"""
put {FRONT}/ring-ref 8
put {FRONT}/event-channel 12
put {FRONT}/state 3
put {BACK}/sectors 65536
put {BACK}/sector-size 512
put {BACK}/state 4
put {FRONT}/state 4
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_wait, "_FIRST_ROUND", 1)


@pytest.fixture
def tools(tmp_path: Path) -> FakeTools:
    return FakeTools(tmp_path)


@pytest.fixture(params=["/bin/dash", "/bin/bash"])
def xl(request: pytest.FixtureRequest, tools: FakeTools) -> XlToolstack:
    if not Path(request.param).exists():
        pytest.skip(f"no {request.param} here")
    return XlToolstack(ShellDom0(tools.bin, request.param))


def attach(toolstack: Toolstack, seconds: float = 20) -> vbd.Vbd:
    return vbd.attach(
        toolstack,
        Xenstore(toolstack.dom0, watches=toolstack.has_watches),
        GUEST,
        SPEC,
        Deadline(seconds),
    )


def test_connected_when_the_toolstack_returns(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", SETUP + CONNECT)
    device = attach(xl)
    assert device.connected
    assert (device.domid, device.devid, device.vdev) == (7, 5632, "hdc")
    assert device.backend.path == BACK
    assert device.backend.sectors == 65536
    assert device.backend.hotplug_status == "connected"
    assert device.frontend.ring_ref == 8
    # One look more than the toolstack itself is all that the lab adds.
    assert tools.calls == [
        "xl block-attach 7 "
        "format=raw,vdev=hdc,access=rw,backendtype=phy,target=/dev/vg00/virt-virtdemo-1",
        f"xenstore-ls -f {FRONT} {BACK}",
    ]
    assert xl.dom0.calls == 1  # type: ignore[attr-defined]


def test_connects_later(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", f"{SETUP}\n( sleep 0.5\n{CONNECT}\n) >/dev/null 2>&1 &")
    assert attach(xl).connected
    assert not [one for one in tools.calls if one.startswith("xl list")]


def test_backend_of_another_kind_is_found(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", (SETUP + CONNECT).replace("backend/vbd", "backend/qdisk"))
    assert attach(xl).backend.path == BACK.replace("/vbd/", "/qdisk/")


def test_guest_that_never_answers(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook(
        "block-attach",
        f"{SETUP}\nput /local/domain/7/error/device/vbd/5632/error '22 reading backend fields'",
    )
    with pytest.raises(FrontendFailed) as caught:
        attach(xl, seconds=3)
    message = caught.value.message
    assert "backend InitWait (2), frontend Initialising (1), hotplug connected" in message
    assert "no ring" in message
    assert "22 reading backend fields" in message
    assert "phy:/dev/vg00/virt-virtdemo-1 /dev/hdc w" in message
    assert "\n" not in message
    assert caught.value.blame is Blame.DRIVER
    assert any("Triple fault" in line for line in caught.value.evidence)
    assert caught.value.stuck == "attach: backend InitWait, frontend Initialising"


def test_what_the_backend_says_of_every_connection_is_no_reason(
    xl: XlToolstack, tools: FakeTools
) -> None:
    usual = "xen-blkback: backend/vbd/7/5632: using 1 queues, protocol 1 (x86_32-abi) persistent"
    told = "xen-blkback: backend/vbd/7/5632: prepare for reconnect"
    tools.add("dmesg", f"echo '[  9.1] {usual} grants'; echo '[  9.9] {told}'")
    tools.hook("block-attach", SETUP)
    with pytest.raises(FrontendFailed) as caught:
        attach(xl, seconds=3)
    assert told in caught.value.message
    assert usual not in caught.value.message
    assert any(usual in line for line in caught.value.evidence)


def test_frontend_gives_up(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", f"{SETUP}\n( sleep 0.4; put {FRONT}/state 5 ) >/dev/null 2>&1 &")
    with pytest.raises(FrontendFailed, match=r"frontend Closing \(5\)") as caught:
        attach(xl)
    assert caught.value.stuck == "", "it did not hang: it gave up"


def test_both_ends_close_because_the_frontend_did(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", f"{SETUP}\nput {BACK}/state 5; put {FRONT}/state 6")
    with pytest.raises(FrontendFailed, match=r"backend Closing \(5\), frontend Closed \(6\)"):
        attach(xl)


def test_backend_cannot_use_the_ring(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook(
        "block-attach",
        f"""{SETUP}
        put {FRONT}/state 3; put {BACK}/state 6
        put /local/domain/0/error/backend/vbd/7/5632/error '22 mapping ring-ref port 12'
        """,
    )
    with pytest.raises(FrontendFailed, match="22 mapping ring-ref port 12"):
        attach(xl)


def test_hotplug_script_that_never_finishes(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", SETUP.replace(f"put {BACK}/hotplug-status connected", ""))
    with pytest.raises(BackendFailed, match="hotplug not reported"):
        attach(xl, seconds=3)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("virtdemo    7   256     1     ---sr-       3.1", "shut down"),
        ("virt demo   7   256     1     ---sc-       3.1", "shut down"),
        ("virtdemo    7   256     1     ----c-       3.1", "crashed"),
    ],
)
def test_domain_shuts_down_and_is_kept(
    xl: XlToolstack, tools: FakeTools, row: str, words: str
) -> None:
    tools.hook(
        "block-attach",
        f"{SETUP}\n( sleep 0.4; echo \"echo '{row}'\" >{tools.hooks}/list; release )"
        " >/dev/null 2>&1 &",
    )
    with pytest.raises(GuestCrashed, match=f"domain {words}; backend InitWait") as caught:
        attach(xl, seconds=60)
    assert any(row in line for line in caught.value.evidence)


def test_domain_that_died_before_the_watches_were_set(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("list", 'echo "7 is an invalid domain identifier (rc=-6)" >&2; exit 1')
    tools.hook("block-attach", SETUP)
    with pytest.raises(GuestCrashed, match="domain is gone"):
        attach(xl, seconds=60)


def test_hotplug_script_fails(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook(
        "block-attach",
        f"""{SETUP}
        put {BACK}/hotplug-error '/dev/vg00/virt-virtdemo-1 does not exist.'
        put {BACK}/hotplug-status error
        """,
    )
    with pytest.raises(BackendFailed, match=r"hotplug error: /dev/vg00/\S+ does not exist") as bad:
        attach(xl)
    assert bad.value.blame is Blame.LAB


def test_backend_never_ready(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", SETUP.replace(f"put {BACK}/state 2", f"put {BACK}/state 1"))
    with pytest.raises(LabBroken, match=r"backend Initialising \(1\)"):
        attach(xl, seconds=3)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (
            "libxl: error: libxl_disk.c:337:device_disk_add: Domain 7:"
            "device already exists in xenstore",
            DeviceInUse,
        ),
        (
            "libxl: error: libxl_device.c:408:libxl__device_disk_set_backend: "
            "Disk vdev=hdc failed to stat: /dev/vg00/nope: No such file or directory",
            BackingMissing,
        ),
    ],
)
def test_toolstack_refuses(
    xl: XlToolstack, tools: FakeTools, said: str, kind: type[UsageError]
) -> None:
    tools.hook(
        "block-attach",
        f"echo '{said}' >&2; echo libxl_device_disk_add failed. >&2; exit 1",
    )
    with pytest.raises(kind, match=r"^xl block-attach: ") as caught:
        attach(xl)
    assert not isinstance(caught.value, DriverFailure)


def test_toolstack_hangs(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", SETUP + "sleep 4")
    with pytest.raises(BackendFailed, match=r"did not finish `xl block-attach` .* InitWait"):
        attach(xl, seconds=1)


def test_xm_polls(tools: FakeTools) -> None:
    xm = XmToolstack(ShellDom0(tools.bin))
    tools.hook("block-attach", f"{SETUP}\n( sleep 0.3\n{CONNECT}\n) >/dev/null 2>&1 &")
    assert attach(xm).connected
    assert tools.calls[0] == "xm block-attach 7 phy:/dev/vg00/virt-virtdemo-1 /dev/hdc w"
    assert not [one for one in tools.calls if one.startswith("xenstore-watch")]


def detach(toolstack: Toolstack, seconds: float = 20) -> None:
    vbd.detach(toolstack, Xenstore(toolstack.dom0), GUEST, 5632, Deadline(seconds))


def test_detach_waits_for_the_backend(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", SETUP + CONNECT)
    attach(xl)
    tools.hook(
        "block-detach",
        f"put {BACK}/state 5\n( sleep 0.4; gone {FRONT}; gone {BACK} ) >/dev/null 2>&1 &",
    )
    detach(xl)
    assert not (tools.store / BACK[1:]).exists()


def test_detach_of_another_kind_of_backend(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", (SETUP + CONNECT).replace("backend/vbd", "backend/qdisk"))
    attach(xl)
    other = BACK.replace("/vbd/", "/qdisk/")
    tools.hook("block-detach", f"gone {FRONT}; ( sleep 0.4; gone {other} ) >/dev/null 2>&1 &")
    detach(xl)
    assert not (tools.store / other[1:]).exists()


def test_detach_refused_by_the_guest(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-attach", SETUP + CONNECT)
    attach(xl)
    tools.hook(
        "block-detach",
        f"put {BACK}/state 5; echo libxl_device_disk_safe_remove failed. >&2; exit 1",
    )
    with pytest.raises(
        FrontendFailed, match=r"backend Closing \(5\), frontend Connected \(4\)"
    ) as caught:
        detach(xl)
    assert caught.value.stuck == "detach: backend Closing, frontend Connected"


def test_detach_of_nothing(xl: XlToolstack, tools: FakeTools) -> None:
    tools.hook("block-detach", "echo 'Error: Device 5632 not connected.' >&2; exit 1")
    with pytest.raises(NoSuchDevice, match="Device 5632 not connected"):
        detach(xl)


def test_states_of_absent_nodes() -> None:
    device = vbd.Vbd.of(7, 5632, {})
    assert device.backend.state is XenbusState.UNKNOWN
    assert device.words == "backend absent, frontend absent, hotplug not reported"
