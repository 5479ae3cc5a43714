"""Which way to run nested Xen on this machine: the accelerator ladder.

1. ``kvm``: nested SVM or VMX, proven by a start.
2. ``tcg-hvm``: emulation by a QEMU that runs nested HVM guests: the system's if a start proves
   it, else the lab's own from an image.
3. ``tcg-pv``: emulation by the system's QEMU, with a PV guest.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lab import __version__
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, PvlabError, UsageError
from lab.core.paths import cache_dir
from lab.images.progress import Progress, Silent
from lab.images.store import Store
from lab.qemu.emulator import Emulator, system_emulator, tree_emulator
from lab.qemu.kvm import kvm_facts
from lab.qemu.probe import run_probe

AccelName = Literal["kvm", "tcg-hvm", "tcg-pv"]
ACCELERATORS: tuple[AccelName, ...] = ("kvm", "tcg-hvm", "tcg-pv")
LAB_EMULATOR = "qemu52-bullseye"

KVM_CPU = "host"
#: SMAP, SMEP, MONITOR and RDTSCP are hidden because Xen 4.17 or its dom0 dies of how TCG
#: emulates them; nested paging spares the guest a shadow walk.
TCG_CPU = "EPYC,+svm,+npt,-monitor,-rdtscp,-smap,-smep"
_PROBE_SECONDS = 30.0
#: How long an answer counts that there is no nested HVM: what stopped the lab's own emulator
#: from being built, such as a mirror without its release, may be gone at the next try.
_FALLBACK_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class AccelChoice:
    """The rung that was chosen.

    Attributes:
        name: the rung.
        emulator: label of the QEMU, version and origin.
        emulator_version: its version.
        guest_type: ``hvm`` or ``pv``: the guests that this rung runs.
        why: one line: why this rung and not one above it.
        cpu: QEMU's ``-cpu`` argument.
        argv: the words that start the QEMU.
        origin: ``"system"`` or the image the QEMU comes from.
    """

    name: AccelName
    emulator: str
    emulator_version: str
    guest_type: Literal["hvm", "pv"]
    why: str
    cpu: str
    argv: tuple[str, ...]
    origin: str

    @property
    def qemu(self) -> Emulator:
        """The QEMU to start."""
        return Emulator(self.argv, self.emulator_version, self.origin)

    @property
    def qemu_accel(self) -> str:
        """QEMU's ``-accel`` name."""
        return "kvm" if self.name == "kvm" else "tcg"

    @property
    def line(self) -> str:
        """One line for people."""
        return f"{self.name} on {self.emulator}: {self.why}"


def guest_type_of(accel: str) -> Literal["hvm", "pv"]:
    """The type of guest that a rung runs."""
    return "pv" if accel == "tcg-pv" else "hvm"


def _choice(name: AccelName, emulator: Emulator, why: str) -> AccelChoice:
    return AccelChoice(
        name=name,
        emulator=emulator.label,
        emulator_version=emulator.version,
        guest_type=guest_type_of(name),
        why=why,
        cpu=KVM_CPU if name == "kvm" else TCG_CPU,
        argv=emulator.argv,
        origin=emulator.origin,
    )


def _answer_file() -> Path:
    """Where the answer of the last probe is kept."""
    return cache_dir() / "accel.json"


class Ladder:
    """Tries the rungs from the top.

    Args:
        store: where the lab's own emulator is built.
        progress: told what a build does.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        store: Store | None = None,
        progress: Progress | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store or Store()
        self._progress = progress or Silent()
        self._now = now

    def choose(self, requested: str | None = None) -> AccelChoice:
        """The highest rung that works, or the requested one.

        Args:
            requested: a rung's name, or None or ``"auto"`` to probe; ``PVLAB_ACCEL`` counts
                when None.

        Raises:
            UsageError: no such rung.
            LabBroken: the requested rung, or every rung, does not work here.
        """
        requested = requested or os.environ.get("PVLAB_ACCEL") or "auto"
        if requested == "auto":
            return self._cached_or_probed()
        if requested not in ACCELERATORS:
            raise UsageError(
                f"unknown accelerator {requested}", hint=f"one of: auto, {', '.join(ACCELERATORS)}"
            )
        rung = {"kvm": self._kvm, "tcg-hvm": self._tcg_hvm, "tcg-pv": self._tcg_pv}[requested]
        chosen, why_not = rung("asked for")
        if chosen is None:
            raise LabBroken(f"{requested} does not work here: {why_not}")
        return chosen

    def remembered(self) -> AccelChoice | None:
        """The rung that an earlier run found and that still stands; starts no machine."""
        try:
            stored = json.loads(_answer_file().read_text())
            until = stored["until"]
            lasts = until is None or self._now() < until
            if lasts and stored["key"] == self._content_key():
                chosen = stored["choice"]
                return AccelChoice(**{**chosen, "argv": tuple(chosen["argv"])})
        except (OSError, ValueError, KeyError, TypeError):
            pass  # No answer yet, or one from another version.
        return None

    def probe(self) -> AccelChoice:
        """Try the rungs from the top, whatever an earlier run found."""
        reasons: list[str] = []
        for rung in (self._kvm, self._tcg_hvm, self._tcg_pv):
            chosen, why_not = rung("; ".join(reasons) or "it works")
            if chosen is not None:
                return chosen
            reasons.append(why_not)
        raise LabBroken(f"nothing here runs nested Xen: {'; '.join(reasons)}", hint="pvlab doctor")

    # -- rungs --------------------------------------------------------------------------

    def _kvm(self, why: str) -> tuple[AccelChoice | None, str]:
        facts = kvm_facts()
        system = system_emulator()
        if system is None:
            return None, "no KVM: no QEMU on this system"
        if facts.why_not:
            return None, f"no KVM: {facts.why_not}"
        result = run_probe(system, "kvm", KVM_CPU, Deadline(_PROBE_SECONDS))
        if result.why_not:
            return None, f"no KVM: {result.why_not}"
        return _choice("kvm", system, why), ""

    def _tcg_hvm(self, why: str) -> tuple[AccelChoice | None, str]:
        system = system_emulator()
        why_not = "no QEMU on this system"
        if system is not None:
            result = run_probe(system, "tcg", TCG_CPU, Deadline(_PROBE_SECONDS))
            if not result.why_not:
                return _choice("tcg-hvm", system, why), ""
            why_not = f"QEMU {system.version} of this system: {result.why_not}"
        try:
            tree = self._store.ensure(LAB_EMULATOR, self._progress)
            own = tree_emulator(tree.path, LAB_EMULATOR)
        except PvlabError as error:
            return None, f"no nested HVM: {why_not}; {error.message}"
        result = run_probe(own, "tcg", TCG_CPU, Deadline(_PROBE_SECONDS))
        if result.why_not:
            return None, f"no nested HVM: {why_not}; QEMU {own.version}: {result.why_not}"
        return _choice("tcg-hvm", own, f"{why}; {why_not}"), ""

    def _tcg_pv(self, why: str) -> tuple[AccelChoice | None, str]:
        system = system_emulator()
        if system is None:
            return None, "no PV: no QEMU on this system"
        result = run_probe(system, "tcg", TCG_CPU, Deadline(_PROBE_SECONDS))
        if not result.started:
            return None, f"no PV: {result.said}"
        return _choice("tcg-pv", system, why), ""

    # -- cache --------------------------------------------------------------------------

    def _cached_or_probed(self) -> AccelChoice:
        if (found := self.remembered()) is not None:
            return found
        choice = self.probe()
        path = _answer_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".accel-{os.getpid()}.json")
        # The key is taken now: probing may have built the lab's own emulator.
        until = self._now() + _FALLBACK_SECONDS if choice.name == "tcg-pv" else None
        answer = {"key": self._content_key(), "until": until, "choice": asdict(choice)}
        fresh.write_text(json.dumps(answer, indent=2))
        fresh.replace(path)
        return choice

    def _content_key(self) -> str:
        """Changes with everything the answer depends on."""
        system = system_emulator()
        program = ""
        if system is not None:
            status = Path(system.argv[0]).resolve().stat()
            program = f"{system.argv[0]} {system.version} {status.st_size} {status.st_mtime_ns}"
        own = self._store.find(LAB_EMULATOR)
        parts = [
            __version__,
            program,
            kvm_facts().summary,
            str(own.folder if own else None),
            TCG_CPU,
        ]
        # Whether the lab's own emulator is there changes nothing on the KVM rung; it is in the
        # key so that a removed tree is not started from.
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def accel_checks(
    choose: Callable[[], AccelChoice] | None = None,
) -> list[tuple[str, bool, str, str]]:
    """The ladder's answer for ``pvlab doctor``: (name, ok, found, remedy) each."""
    try:
        choice = (choose or Ladder().choose)()
    except PvlabError as error:
        return [("accelerator", False, error.message, error.hint or "see the checks above")]
    return [("accelerator", True, choice.line, "")]
