"""Options of the plugin: every ``--pvlab-x-y`` is mirrored by ``PVLAB_X_Y``.

The command line wins over the environment; neither is read before a test uses the lab.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.core.errors import UsageError
from lab.core.paths import results_dir
from lab.suite.intensity import Level

OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("driver", "PATH", "driver package under test: a folder or a .zip (default: the profile's)"),
    ("profile", "NAME", "profile of lab.toml: host, guest, toolstack"),
    ("config", "FILE", "lab.toml to read instead of the project's"),
    ("accel", "NAME", "accelerator: auto, kvm, tcg-hvm or tcg-pv"),
    ("results", "DIR", "folder that receives one folder a run (default: ./results)"),
    ("run-id", "ID", "name of this run's folder (default: made from the time)"),
    ("intensity", "LEVEL", "how much to do: smoke, standard or soak (default: standard)"),
    ("seed", "N", "repeat one attempt of each race: the one with this seed"),
    ("errata", "DIR", "errata files of driver releases (default: drivers/errata)"),
    ("baseline", "PATH", "driver package that a plan's turns compare the other one with"),
    (
        "plan",
        "FILE",
        "turns to run, in order: which test on which driver, as pvlab gate plans them",
    ),
    ("core", "yes|no", "keep the memory of a guest that crashed (default: yes)"),
    ("order", "balanced|given", "how workers share tests: the longest first, or as they come"),
    ("catalogue", "FILE", "write what the collected tests are, and run none"),
)
"""Name, metavar and help of each option."""

PLAIN = re.compile(r"[A-Za-z0-9._-]+")
"""What a run's name is made of; see ``RunRecord.run_id``."""

RESERVED = frozenset({".", "..", "latest"})
"""Names that a run's folder cannot have; ``latest`` is the link to the newest."""


SETTINGS: pytest.StashKey[Settings] = pytest.StashKey()
"""In the session's config: the settings, once they were read."""


def environment_name(option: str) -> str:
    """The environment variable that mirrors an option: ``run-id`` gives ``PVLAB_RUN_ID``."""
    return "PVLAB_" + option.replace("-", "_").upper()


def add_options(parser: pytest.Parser) -> None:
    """Declare the options in a group of their own."""
    group = parser.getgroup("pvlab", "pvlab: tests of PV drivers on Xen")
    for name, metavar, text in OPTIONS:
        group.addoption(
            f"--pvlab-{name}",
            dest=_destination(name),
            metavar=metavar,
            default=None,
            help=f"{text} [{environment_name(name)}]",
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for.

    Attributes:
        driver: package under test; ``None`` for the profile's own.
        profile: name of a profile; ``None`` for the configured default.
        config: a ``lab.toml``; ``None`` for the usual search.
        accel: accelerator by name; ``None`` to let the lab choose.
        results: folder of the runs' folders.
        run_id: name of this run; ``None`` to make one from the time.
        intensity: how much to do.
        seed: of the one attempt that each race makes; ``None`` for whole campaigns.
        errata: folder of errata files; ``None`` for the published drivers'.
        core: whether the memory of a guest that crashed is kept: minutes where the processor is
            emulated.
        balanced: whether workers are to end together, rather than take the tests as they come.
        baseline: package to compare with; ``None`` for none.
        plan: file with the turns to run; ``None`` to run every test once.
    """

    driver: Path | None
    profile: str | None
    config: Path | None
    accel: str | None
    results: Path
    run_id: str | None
    intensity: Level = Level.STANDARD
    seed: int | None = None
    errata: Path | None = None
    core: bool = True
    balanced: bool = True
    baseline: Path | None = None
    plan: Path | None = None

    @classmethod
    def of(cls, config: pytest.Config) -> Settings:
        """The settings of a pytest session.

        Raises:
            UsageError: the run's name is not a plain file name, the intensity is unknown,
                the seed is no number, core is neither yes nor no, or the order is neither
                balanced nor given.
        """

        def value(name: str) -> str | None:
            given: str | None = config.getoption(_destination(name), None)
            return given or os.environ.get(environment_name(name)) or None

        def path(name: str) -> Path | None:
            given = value(name)
            return config.invocation_params.dir / Path(given).expanduser() if given else None

        run_id = value("run-id")
        if run_id is not None and (not PLAIN.fullmatch(run_id) or run_id in RESERVED):
            raise UsageError(f"'{run_id}' cannot name a run: use letters, digits, '.', '_' and '-'")
        seed = value("seed")
        if seed is not None and not seed.isdecimal():
            raise UsageError(f"'{seed}' is no seed: use a whole number")
        core = value("core") or "yes"
        if core not in ("yes", "no"):
            raise UsageError(f"core: yes or no, not '{core}'")
        order = value("order") or "balanced"
        if order not in ("balanced", "given"):
            raise UsageError(f"order: balanced or given, not '{order}'")
        return cls(
            driver=path("driver"),
            profile=value("profile"),
            config=path("config"),
            accel=None if (accel := value("accel")) == "auto" else accel,
            results=path("results") or results_dir(),
            run_id=run_id,
            intensity=Level.of(value("intensity") or Level.STANDARD),
            seed=None if seed is None else int(seed),
            errata=path("errata"),
            core=core == "yes",
            balanced=order == "balanced",
            baseline=path("baseline"),
            plan=path("plan"),
        )


def settings(config: pytest.Config) -> Settings:
    """The settings of a session, read once.

    Raises:
        UsageError: see ``Settings.of``.
    """
    found = config.stash.get(SETTINGS, None)
    if found is None:
        found = config.stash[SETTINGS] = Settings.of(config)
    return found


def catalogue_file(config: pytest.Config) -> Path | None:
    """Where to write the catalogue, if that is all that is to be done."""
    name: str | None = config.getoption(_destination("catalogue"), None)
    return config.invocation_params.dir / Path(name).expanduser() if name else None


def _destination(name: str) -> str:
    return "pvlab_" + name.replace("-", "_")
