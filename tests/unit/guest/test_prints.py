"""What drivers print, against the rules in drivers/rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.core.dbglog import DbgLine, parse
from lab.core.errors import UsageError
from lab.core.paths import repo_root
from lab.drivers.package import DriverPackage
from lab.guest.prints import Rules, check_attach, load_rules, rules_for, troubles

RULES = repo_root() / "drivers/rules"

# As DbgView logs what a checked build of 2007 prints: prefix, then five spaces, an arrow in or
# an arrow out.
ATTACHED = [
    "XenVbd --> XenVbd_HwScsiFindAdapter",
    "XenVbd     Backend State Changed to InitWait",
    "XenVbd     Set Frontend state to Initialised",
    "XenPCI     watch fired",
    "XenVbd     Backend State Changed to Connected",
    "XenVbd     BytesPerSector = 512",
    "XenVbd     TotalSectors = 65536",
    "XenVbd     Geometry C/H/S = 4/255/63",
    "XenVbd     Set Frontend state to Connected",
    "XenVbd     Added a disk, notifying",
    "XenVbd <-- XenVbd_HwScsiFindAdapter",
]

# A real one of the stand-in's, with a second disk that came between.
STANDIN = """\
00000007\t11.70485200\tvbd vbd-5632: blkfront:blkback_changed to state 2.\t\r
00000008\t21.19818200\tvbd vbd-5632: blkfront:blkback_changed to state 4.\t\r
00000009\t21.19837200\tvbd vbd-5632: blkfront_connect:/local/domain/0/backend/vbd/1/5632.\t\r
00000010\t21.55815100\tblkfront: xvdc: flush diskcache: enabled; persistent grants: enabled;\t\r
"""


@dataclass
class Named:
    name: str


@dataclass
class Package:
    provider: str
    services: tuple[Named, ...]


def lines(texts: list[str]) -> list[DbgLine]:
    return list(parse(f"{n:08d}\t{n}.00000000\t{text}\t\r\n" for n, text in enumerate(texts, 1)))


@pytest.fixture
def gplpv() -> Rules:
    rules = rules_for(Package("GPL", (Named("XenPCI"), Named("XenVbd"))))
    assert rules is not None
    return rules


def test_families() -> None:
    standin = rules_for(Package("pvlab stand-in (not a Windows driver)", (Named("xenvbd"),)))
    assert standin is not None
    assert (standin.family, standin.boot) == ("stand-in", None)
    assert rules_for(Package("Anybody", (Named("viostor"),))) is None


def test_the_stand_in_s_own_packages_are_known(tmp_path: Path) -> None:
    inf = repo_root() / "images/standin-drivers/good/xenvbd.inf"
    folder = tmp_path / "package"
    (folder / "i386").mkdir(parents=True)
    (folder / "xenvbd.inf").write_bytes(inf.read_bytes())
    for name in ("xenpci.sys", "xenvbd.sys"):
        (folder / "i386" / name).write_bytes(b"\x7fELF\x01".ljust(18, b"\0") + b"\x03\0")
    rules = rules_for(DriverPackage.load(folder, tmp_path / "copies"))
    assert rules is not None
    assert rules.family == "stand-in"


def test_an_attach_in_order(gplpv: Rules) -> None:
    order = check_attach(gplpv, lines(ATTACHED))
    assert order.problem == ""
    assert len(order.found) == len(gplpv.attach.steps)
    assert gplpv.boot is not None
    assert gplpv.boot.option == "/gplpv"


def test_every_step_is_missed(gplpv: Rules) -> None:
    for step in order_steps(gplpv):
        without = [text for text in ATTACHED if text != step]
        assert "nothing like" in check_attach(gplpv, lines(without)).problem


def order_steps(rules: Rules) -> list[str]:
    return list(check_attach(rules, lines(ATTACHED)).found)


def test_out_of_order(gplpv: Rules) -> None:
    early = [*ATTACHED]
    early.insert(1, early.pop(8))
    problem = check_attach(gplpv, lines(early)).problem
    assert problem.startswith("'XenVbd     Set Frontend state to Connected' came too early")


def test_a_free_build_is_not_judged(gplpv: Rules) -> None:
    order = check_attach(gplpv, lines(["something of Windows' own"]))
    assert not order.spoke
    assert order.problem == ""


def test_the_stand_in_attach() -> None:
    rules = rules_for(Package("pvlab stand-in", (Named("xenvbd"),)))
    assert rules is not None
    captured = list(parse(STANDIN.splitlines(keepends=True)))
    assert check_attach(rules, captured).problem == ""
    assert troubles(rules, captured) == ()
    assert "blkfront_connect" in check_attach(rules, [*captured[:2], captured[3]]).problem


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("XenVbd     RING IS FULL - EXPECT BADNESS", "room"),
        ("XenVbd     Something is horribly wrong in PutIrpOnRing", "cannot put"),
        ("XenVbd     Xen Operation returned error in DpcThreadProc", "with an error"),
        ("XenPCI     Unhandled Event!!!", "nobody handles"),
        ("XenPCI     Wait timed out", "60 s"),
        ("XenPCI     CANNOT ALLOCATE MEMORY FOR ListEntry!!!", "no memory"),
        ("XenPCI     Watch not active!", "not set"),
        ("XenPCI     Queue full Path = device/vbd", "more watches"),
    ],
)
def test_trouble(gplpv: Rules, text: str, means: str) -> None:
    (found,) = troubles(gplpv, lines([*ATTACHED, text]))
    assert text in found
    assert means in found
    assert troubles(gplpv, lines(ATTACHED)) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("family = 1\n", "family: Input should be a valid string"),
        ("family =", "Invalid value"),
        (
            'family="x"\nsource="y"\n[match]\nservices=["a"]\n[attach]\nspeaks="("\nsteps=["b"]\n',
            "attach.speaks: .*not a regular expression",
        ),
    ],
)
def test_a_malformed_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_rules(tmp_path)


def test_all_files_are_well_formed() -> None:
    assert {rules.family for rules in load_rules(RULES)} == {"stand-in", "GPLPV of 2007"}
