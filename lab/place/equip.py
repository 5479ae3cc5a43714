"""A warm state with a driver in it: the driver is installed once, and frozen like a bake.

Installing takes as long as several tests on a slow machine, and has tests of its own. The others
begin behind it, each still in a machine that nobody used: the state is a stage like the baked
one, kept under the hash of that one and of the package.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from lab.core.deadline import Deadline
from lab.core.errors import PvlabError
from lab.core.lock import locked
from lab.drivers.package import DriverPackage
from lab.guest.driverstore import InstallResult
from lab.place.bake import baked_domain
from lab.place.place import Place
from lab.place.stage import Stage, StageStore, copy_stage, freeze
from lab.qemu.machine import Machine

if TYPE_CHECKING:
    from lab.place.warm import Template

Say = Callable[[str], None]
#: Installs a package in a place, within a deadline.
Install = Callable[[Place, DriverPackage, Deadline], InstallResult]

#: Part of every key: raise it when equipping does something else than before.
EQUIP_VERSION = 2
#: States that are kept for the next session: builds that are compared take turns.
KEPT = 4


def equip(
    template: Template,
    package: DriverPackage,
    say: Say,
    stages: StageStore | None = None,
    install: Install | None = None,
) -> Template:
    """The template with DbgView running and a driver installed; made now unless it is there.

    Args:
        template: the baked state.
        package: the driver.
        say: told in lines what happens.
        stages: where stages are kept; the cache's when None.
        install: how; without restarts of the guest when None.

    Raises:
        DriverFailure: the package does not install, or the guest crashes while it does.
        LabBroken: the state cannot be made.
        DeadlineExpired: likewise, in time.
    """
    stages = stages or StageStore()
    key = _key(template, package)
    boot = template.profile.deadlines.under(template.accel.name).boot
    while not (stages.find(key) and stages.hold(key)):
        with locked(
            stages.lock_path(key),
            Deadline(4 * boot),
            on_wait=lambda holder: say(f"driver: waiting for {holder}, which installs the same"),
        ):
            if stages.find(key) is None:
                say(f"driver: installing {package.name} {package.version}, once for all tests")
                _make(template, package, stages, key, Deadline(boot), install or _install)
    stage = stages.find(key)
    assert stage is not None  # noqa: S101 - held, so nobody removes it
    return replace(
        template,
        key=key,
        stage=stage,
        spec=template.spec_in(stage.folder),
        installed=_installed(stage),
    )


def _key(template: Template, package: DriverPackage) -> str:
    parts = [EQUIP_VERSION, template.key, package.identity, package.name]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _make(
    template: Template,
    package: DriverPackage,
    stages: StageStore,
    key: str,
    deadline: Deadline,
    install: Install,
) -> Stage:
    baked = template.stage
    kind = f"driver {template.profile.name} {template.accel.name}"
    with stages.making(key) as folder:
        copy_stage(baked, folder)
        with Machine(template.spec_in(folder), folder) as machine:
            machine.start_from(folder / "state", deadline)
            place = Place(
                f"installation of {package.name}",
                template.profile,
                template.profile.deadlines.under(template.accel.name),
                machine,
                template.access,
                baked_domain(baked),
                int(str(baked.facts["serial_bytes"])),
                {},
            )
            with contextlib.closing(place):
                # Before the driver, so that its first words are kept.
                place.guest.dbgview.start(deadline)
                with place.guest.crash.guard(f"the installation of {package.name}", deadline):
                    result = install(place, package, deadline)
                place.guest.crash.raise_if_seen(deadline)
                log = shlex.quote(template.access.serial_log)
                serial = place.dom0.run(f"stat -c %s {log}; sync", deadline, check=True)
                place.disconnect(deadline)
                (folder / "state").unlink()
                freeze(machine, folder, deadline)
        facts: dict[str, object] = {
            **baked.facts,
            # Another one when the guest was restarted.
            "domain": asdict(place.domain),
            "serial_bytes": int(serial.stdout),
            "installed": asdict(result),
        }
        made = stages.finish(key, folder, kind, facts)
    stages.prune(kind, _newest(stages, kind, KEPT))
    return made


def _install(place: Place, package: DriverPackage, deadline: Deadline) -> InstallResult:
    return place.guest.drivers.install(package, deadline)


def _newest(stages: StageStore, kind: str, count: int) -> set[str]:
    """Short keys of the newest stages of a kind."""
    of_kind = [(made, name) for name, other, made, _ in stages.stages() if other == kind]
    return {name for _, name in sorted(of_kind, reverse=True)[:count]}


def _installed(stage: Stage) -> InstallResult:
    facts: Any = stage.facts["installed"]
    return InstallResult(
        reboot_needed=bool(facts["reboot_needed"]),
        log_lines=tuple(facts["log_lines"]),
        devices=tuple(facts["devices"]),
    )


def equipped_or_not(
    template: Template,
    package: DriverPackage,
    say: Say,
    stages: StageStore | None = None,
    install: Install | None = None,
) -> Template:
    """As ``equip``; the template as it is when that fails.

    Whoever clones it then installs the driver in each clone, and whoever is to blame is found
    where it can be: in a test, with evidence.
    """
    try:
        return equip(template, package, say, stages, install)
    except PvlabError as error:
        say(f"driver: not installed once for all tests, but in each: {error.message}")
        return template
