"""What each toolstack prints, through the same code: one test a case, for every dialect.

The answers are transcripts (``transcripts/DIALECT/CASE.txt``), each with the source of its
format; the cases of one name mean the same in each dialect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from transcript_player import Transcript, TranscriptDom0

from lab.core.deadline import Deadline
from lab.core.errors import Blame, GuestCrashed, PvlabError
from lab.xen import remote_wait, vbd
from lab.xen.blockspec import BlockSpec
from lab.xen.domain import Domain
from lab.xen.errors import (
    BackendFailed,
    BackingMissing,
    DeviceInUse,
    FrontendFailed,
    HotplugFailed,
    NoSuchDevice,
    NoSuchDomain,
    OutOfMemory,
    ToolstackDown,
    ToolstackFailed,
)
from lab.xen.states import XenbusState
from lab.xen.toolstack import Toolstack
from lab.xen.xenstore import Xenstore
from lab.xen.xl import XlToolstack
from lab.xen.xm import XmToolstack

TRANSCRIPTS = Path(__file__).parent / "transcripts"
DIALECTS: dict[str, type[Toolstack]] = {
    "xl-4.17": XlToolstack,
    "xm-3.4": XmToolstack,
    "xm-3.1": XmToolstack,
    "xm-3.0.3": XmToolstack,
}
XM = [one for one, kind in DIALECTS.items() if kind is XmToolstack]
GUEST = Domain("virtdemo", 7, 256, 1, "-b----", 12.7)
SPEC = BlockSpec.parse("phy:/dev/vg00/virt-virtdemo-1", "/dev/hdc", "w")
CONFIG = "/etc/xen/virtdemo.cfg"
CORE = "/var/xen/dump/x.core"


class Bench:
    """Makes a toolstack that answers from the transcripts of one dialect."""

    def __init__(self, dialect: str, folder: Path) -> None:
        self.dialect = dialect
        self.folder = folder
        self.dom0: TranscriptDom0 | None = None

    def play(self, case: str) -> Toolstack:
        self.dom0 = TranscriptDom0(self.folder, TRANSCRIPTS / self.dialect / f"{case}.txt")
        return DIALECTS[self.dialect](self.dom0)


def bench_for(dialect: str, folder: Path) -> Iterator[Bench]:
    bench = Bench(dialect, folder)
    yield bench
    assert bench.dom0 is not None
    assert bench.dom0.unknown == []


@pytest.fixture(params=DIALECTS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield from bench_for(request.param, tmp_path)


@pytest.fixture(params=XM)
def xm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield from bench_for(request.param, tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_wait, "_FIRST_ROUND", 1)


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """dom0 waits for a second, and has the rest of half a minute to explain: no flake."""
    monkeypatch.setattr(vbd, "_REPORT_SHARE", 0.95)
    monkeypatch.setattr(vbd, "_REPORT_MAX_SECONDS", 60.0)


def soon(seconds: float = 20) -> Deadline:
    return Deadline(seconds)


def attach(toolstack: Toolstack, seconds: float = 20) -> vbd.Vbd:
    xenstore = Xenstore(toolstack.dom0, watches=toolstack.has_watches)
    return vbd.attach(toolstack, xenstore, GUEST, SPEC, soon(seconds))


def attach_at_once(toolstack: Toolstack) -> None:
    toolstack.block_attach(GUEST, SPEC, soon())


def detach(toolstack: Toolstack, seconds: float = 20) -> None:
    xenstore = Xenstore(toolstack.dom0, watches=toolstack.has_watches)
    vbd.detach(toolstack, xenstore, GUEST, 5632, soon(seconds))


# -- the transcripts themselves ------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted(TRANSCRIPTS.glob("*/*.txt")), ids=lambda one: f"{one.parent.name}/{one.stem}"
)
def test_a_transcript_says_where_its_format_comes_from(path: Path) -> None:
    transcript = Transcript.read(path)
    assert len(transcript.source) > 10
    assert transcript.exchanges
    assert path.parent.name in DIALECTS


def test_every_case_of_xl_is_one_of_every_xm() -> None:
    cases = {one: {path.stem for path in (TRANSCRIPTS / one).glob("*.txt")} for one in DIALECTS}
    for dialect in XM:
        assert cases["xl-4.17"] <= cases[dialect]
        assert cases[dialect] == cases["xm-3.1"]


def test_the_player_refuses_what_it_does_not_have(tmp_path: Path) -> None:
    dom0 = TranscriptDom0(tmp_path, TRANSCRIPTS / "xm-3.1" / "list.txt")
    assert dom0.run("xm uptime", soon()).exit_code == 127
    assert dom0.unknown == ["xm uptime"]
    broken = tmp_path / "broken.txt"
    broken.write_text("$ xm list\n")
    with pytest.raises(ValueError, match="does not say where"):
        Transcript.read(broken)


# -- what is printed -----------------------------------------------------------------------


def test_list(bench: Bench) -> None:
    domains = bench.play("list").list(soon())
    assert [(one.name, one.domid, one.mem_mib, one.vcpus) for one in domains] == [
        ("Domain-0", 0, 768, 1),
        ("virtdemo", 7, 256, 1),
        ("win 2003 test", 8, 255, 2),
        ("a-name-that-is-longer-than-the-forty-columns-it-has", 11, 256, 1),
        ("kept", 12, 256, 1),
        ("going", 13, 0, 1),
    ]
    by_id = {one.domid: one for one in domains}
    assert by_id[7].time_s == 12.7
    assert by_id[8].state == "--p---"
    assert by_id[11].crashed
    assert [one.domid for one in domains if one.dying] == [13]
    assert by_id[12].shut_down


def test_find(bench: Bench) -> None:
    toolstack = bench.play("list")
    found = toolstack.find("virtdemo", soon())
    assert found is not None
    assert found.domid == 7
    assert toolstack.find("nobody", soon()) is None


def test_block_list(bench: Bench) -> None:
    toolstack = bench.play("block-list")
    entries = toolstack.block_list(GUEST, soon())
    assert [(one.vdev, one.state, one.event_channel, one.ring_ref) for one in entries] == [
        ("hda", XenbusState.INITIALISING, None, None),
        ("hdc", XenbusState.CONNECTED, 12, 770),
    ]
    assert entries[1].backend_path == "/local/domain/0/backend/vbd/7/5632"
    with pytest.raises(NoSuchDomain, match="nobody"):
        toolstack.block_list("nobody", soon())


def test_info_and_dmesg(bench: Bench) -> None:
    toolstack = bench.play("info")
    info = toolstack.info(soon())
    version = {"xl-4.17": "4.17.5", "xm-3.4": "3.4.0"}.get(bench.dialect, "3.1.2-398.el5")
    assert info["xen_version"] == version
    assert "hvm-3.0-x86_32p" in info["xen_caps"].split()
    assert info["free_memory"] == "611"
    assert info["cc_compile_date"].count(":") == 2
    assert "(XEN)" in toolstack.dmesg(soon())


def test_config(bench: Bench) -> None:
    config = bench.play("long").config(GUEST, soon())
    if bench.dialect == "xl-4.17":
        config = {**config["config"]["c_info"], **config["config"]}
    else:
        assert config["image"]["hvm"]["pae"] == "1"
        assert config["image"]["hvm"]["vncpasswd"] == 'a "quoted" word'
        assert config["device"][1]["vbd"]["uname"] == "phy:/dev/vg00/virt-virtdemo"
        assert config["features"] == []
    assert config["name"] == "virtdemo"
    assert config["on_crash"] == "preserve"


# -- attaching and detaching ---------------------------------------------------------------


def test_attach(bench: Bench) -> None:
    device = attach(bench.play("attach"))
    assert device.connected
    assert (device.vdev, device.backend.sectors, device.frontend.ring_ref) == ("hdc", 65536, 770)
    assert device.frontend.protocol == ""


def test_attach_without_waiting(bench: Bench) -> None:
    attach_at_once(bench.play("attach"))


REFUSALS: list[tuple[str, type[PvlabError], str]] = [
    ("attach-connected-already", DeviceInUse, "already"),
    ("attach-volume-in-use", DeviceInUse, "is mounted in a guest domain"),
    ("attach-no-volume", BackingMissing, "/dev/vg00/virt-virtdemo-1"),
    ("attach-hotplug-fails", HotplugFailed, "[Hh]otplug|/etc/xen/scripts/block"),
    ("attach-no-domain", NoSuchDomain, "7"),
]


@pytest.mark.parametrize(("case", "kind", "message"), REFUSALS, ids=[one[0] for one in REFUSALS])
@pytest.mark.parametrize("ask", [attach, attach_at_once])
def test_refused(
    bench: Bench,
    case: str,
    kind: type[PvlabError],
    message: str,
    ask: Callable[[Toolstack], object],
) -> None:
    toolstack = bench.play(case)
    with pytest.raises(kind, match=message) as caught:
        ask(toolstack)
    assert type(caught.value) is kind
    assert caught.value.blame is Blame.LAB
    assert caught.value.message.startswith(f"{toolstack.program} block-attach: ")
    assert "\n" not in str(caught.value)
    assert "Usage:" not in str(caught.value)


@pytest.mark.parametrize(
    ("case", "kind"),
    [("attach-backend-not-found", BackingMissing), ("attach-device-vanished", HotplugFailed)],
)
def test_refused_by_xend_alone(xm: Bench, case: str, kind: type[PvlabError]) -> None:
    with pytest.raises(kind, match=r"Device 5632 \(vbd\) could not be connected"):
        attach(xm.play(case))


@pytest.mark.usefixtures("short_wait")
def test_silent_driver(bench: Bench) -> None:
    with pytest.raises(FrontendFailed, match=r"InitWait \(2\), frontend Initialising \(1\)") as bad:
        attach(bench.play("attach-silent-driver"), seconds=30)
    assert bad.value.blame is Blame.DRIVER
    assert any("HVM7" in line for line in bad.value.evidence)


def test_both_ends_close(bench: Bench) -> None:
    with pytest.raises(FrontendFailed, match=r"backend Closing \(5\), frontend Closed \(6\)"):
        attach(bench.play("attach-closes"))


@pytest.mark.parametrize(
    ("case", "words"),
    [("attach-domain-gone", "is gone"), ("attach-domain-crashed", "crashed|shut down")],
)
def test_domain_ends(bench: Bench, case: str, words: str) -> None:
    with pytest.raises(GuestCrashed, match=f"domain (?:{words}); backend InitWait"):
        attach(bench.play(case))


def test_xend_waits_for_its_hotplug_script(xm: Bench) -> None:
    toolstack = xm.play("attach-xend-waits")
    with pytest.raises(BackendFailed, match="waits up to 100 s for its hotplug script") as caught:
        attach(toolstack, seconds=0.3)
    assert "frontend Initialising (1), hotplug not reported" in caught.value.message
    # It goes on waiting after xm was hung up on, so the device is taken until it gives up.
    with pytest.raises(DeviceInUse):
        attach(toolstack)


def test_detach(bench: Bench) -> None:
    detach(bench.play("detach"))


def test_detach_of_nothing(bench: Bench) -> None:
    toolstack = bench.play("detach-nothing")
    with pytest.raises(NoSuchDevice, match="Device 5632 not connected"):
        detach(toolstack)
    with pytest.raises(NoSuchDevice):
        toolstack.block_detach(GUEST, "hdc", soon())


@pytest.mark.usefixtures("short_wait")
def test_detach_that_the_driver_does_not_grant(bench: Bench) -> None:
    with pytest.raises(FrontendFailed, match=r"backend Closing \(5\), frontend Connected \(4\)"):
        detach(bench.play("detach-held"), seconds=30)


# -- the host ------------------------------------------------------------------------------


def test_daemon_down(bench: Bench) -> None:
    with pytest.raises(ToolstackDown) as caught:
        bench.play("daemon-down").list(soon())
    assert caught.value.blame is Blame.LAB


@pytest.mark.parametrize("case", ["daemon-refuses", "daemon-crashed"])
def test_xend_down(xm: Bench, case: str) -> None:
    with pytest.raises(ToolstackDown, match=r"(?i)xend"):
        xm.play(case).list(soon())


def test_no_memory(bench: Bench) -> None:
    with pytest.raises(OutOfMemory) as caught:
        bench.play("no-memory").create(CONFIG, soon())
    assert "memory.host_mib" in caught.value.hint


@pytest.mark.parametrize(
    "case",
    [
        "no-memory-fixed-dom0",
        "no-memory-no-balloon",
        "no-memory-hypervisor",
        "no-memory-dom0-shrunk",
    ],
)
def test_no_memory_in_other_words(xm: Bench, case: str) -> None:
    with pytest.raises(OutOfMemory):
        xm.play(case).create(CONFIG, soon())


def test_core(bench: Bench) -> None:
    bench.play("core").dump_core(GUEST, CORE, soon())


def test_core_that_fails(bench: Bench) -> None:
    with pytest.raises(ToolstackFailed, match=r"core.*(No space left|rc=-3)|core dump failed"):
        bench.play("core-fails").dump_core(GUEST, CORE, soon())
