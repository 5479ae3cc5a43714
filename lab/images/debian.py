"""Debian packages into an image: mmdebstrap, made tolerant of a mirror's bad minutes.

mmdebstrap(1) 1.3 is the reference for every option named here. No mirror is named: without
one, mmdebstrap uses Debian's own for the suite, with its updates and security suites when it
has them. ``PVLAB_DEBIAN_MIRROR`` names another (a URL or a sources.list file).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.core.command import CommandResult
from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import LabBroken

MIRROR_VARIABLE = "PVLAB_DEBIAN_MIRROR"

#: Seconds to wait after each attempt that failed for the mirror's sake. They bridge a network's
#: hiccup; a mirror that is syncing takes longer than anyone would wait for a build.
PAUSES = (3.0, 9.0)

#: What apt says when the fault is the mirror's or the network's, not the request's.
_MIRROR_TROUBLE = re.compile(
    r"Hash Sum mismatch|File has unexpected size|Mirror sync in progress|Failed to fetch"
    r"|Some index files failed to download|Temporary failure|Could not connect|Connection"
    r"|is not valid yet|is not valid anymore|Release file .* expired|50[0-9]  "
    r"|does not have a Release file"
)

#: In a one-line sources.list only the suite itself is left. The hook runs before any
#: download (mmdebstrap(1), --setup-hook).
_MAIN_SUITE_ALONE = (
    """--setup-hook=sed -i -E '/ [a-z]+-(updates|security) /d' "$1/etc/apt/sources.list\""""
)

_MARK = "pvlab-package"

#: The archives are the only trace of the versions where dpkg never ran.
_LIST_ARCHIVES = (
    f"""--extract-hook=for f in "$1"/var/cache/apt/archives/*.deb; do"""
    f""" echo "{_MARK} $(basename "$f" .deb)"; done"""
)
_LIST_STATUS = (
    """--customize-hook=dpkg-query --admindir="$1/var/lib/dpkg" -W"""
    rf""" -f '{_MARK} ${{Package}}_${{Version}}_${{Architecture}}\n'"""
)

Run = Callable[[Sequence[str | Path], Deadline], CommandResult]


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """What mmdebstrap made.

    Attributes:
        packages: versions of all packages in it, by name; ``name:arch`` too.
        main_suite_alone: whether updates and security had to be left out.
    """

    packages: dict[str, str]
    main_suite_alone: bool


def pause(seconds: float, why: str, deadline: Deadline) -> None:
    """Let ``seconds`` pass, or what is left of ``deadline``."""
    over = deadline.at_most(seconds)

    def probe() -> None:
        if not over.expired:
            raise NotYet(why)

    # Half a second of grace: the probe, not the deadline, is to end the wait.
    wait_for(why, probe, Deadline(over.remaining + 0.5))


def mirror_trouble(result: CommandResult) -> bool:
    """Whether the mirror or the network is why mmdebstrap failed, by what apt said."""
    return _MIRROR_TROUBLE.search(result.stderr + result.stdout) is not None


def parse_packages(output: str) -> dict[str, str]:
    """Package versions out of the lines our hooks print, ``MARK name_version_arch``.

    An archive's name carries the version's colon as ``%3a``.
    """
    packages = {}
    for line in output.splitlines():
        mark, _, rest = line.partition(" ")
        name, _, tail = rest.partition("_")
        version, _, architecture = tail.rpartition("_")
        if mark == _MARK and version:
            packages[name] = packages[f"{name}:{architecture}"] = version.replace("%3a", ":")
    return packages


def mmdebstrap_argv(
    mode: str,
    suite: str,
    out: Path,
    options: Sequence[str],
    *,
    variant: str,
    main_suite_alone: bool,
) -> list[str | Path]:
    """The command line; ``options`` go in as they are."""
    listing = _LIST_ARCHIVES if variant == "extract" else _LIST_STATUS
    argv: list[str | Path] = [
        "mmdebstrap",
        f"--mode={mode}",
        f"--variant={variant}",
        '--aptopt=Acquire::Retries "3"',
        *options,
        listing,
    ]
    mirror = os.environ.get(MIRROR_VARIABLE)
    if main_suite_alone and not mirror:
        argv.append(_MAIN_SUITE_ALONE)
    argv += [suite, out]
    if mirror:
        argv.append(mirror)
    return argv


def _reason(result: CommandResult) -> str:
    """The first error that apt or dpkg named, else the last line that says anything."""
    lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
    # mmdebstrap's own "setup failed" only repeats the command line.
    errors = [
        line for line in lines if re.match(r"E: (?!setup failed|mmdebstrap)|dpkg: error", line)
    ]
    return (errors or lines[-1:] or ["no reason given"])[0][:300]


def choose_mode(run: Run, deadline: Deadline) -> str:
    """``unshare`` where user namespaces work, else ``root`` for root.

    Raises:
        LabBroken: neither is possible, or mmdebstrap is not installed.
    """
    result = run(["mmdebstrap", "--unshare-helper", "true"], deadline)
    if result.ok:
        return "unshare"
    if result.exit_code == 127:
        raise LabBroken("mmdebstrap is not installed", hint="run: pvlab setup")
    if os.geteuid() == 0:
        return "root"
    raise LabBroken(
        f"mmdebstrap cannot make a user namespace: {_reason(result)}",
        hint="needs the uidmap package and this user's lines in /etc/subuid and /etc/subgid",
    )


def bootstrap(
    run: Run,
    suite: str,
    out: Path,
    options: Sequence[str],
    deadline: Deadline,
    *,
    variant: str,
    on_trouble: Callable[[str], None],
    pauses: Sequence[float] = PAUSES,
) -> Bootstrapped:
    """Run mmdebstrap; retry while the mirror is at fault, at last with the main suite alone.

    Args:
        run: starts a program on this machine.
        suite: the Debian suite.
        out: what to make; its name's ending decides the format (mmdebstrap(1), FORMATS).
        options: further mmdebstrap options.
        deadline: for all attempts together.
        variant: mmdebstrap's ``--variant``.
        on_trouble: told, in one line, what is tried next and why.
        pauses: seconds between the attempts with all suites.

    Raises:
        LabBroken: mmdebstrap failed for another reason, or with the main suite alone too.
        DeadlineExpired: the time is over.
    """
    mode = choose_mode(run, deadline)

    def attempt(*, main_suite_alone: bool) -> CommandResult:
        # What an attempt that failed left there is not to be mistaken for an image.
        out.unlink(missing_ok=True)
        argv = mmdebstrap_argv(
            mode, suite, out, options, variant=variant, main_suite_alone=main_suite_alone
        )
        return run(argv, deadline)

    result = attempt(main_suite_alone=False)
    for number, seconds in enumerate(pauses, start=1):
        if result.ok or not mirror_trouble(result):
            break
        on_trouble(f"{suite}: the mirror failed (attempt {number}); again in {seconds:.0f} s")
        pause(seconds, "the mirror to settle", deadline)
        result = attempt(main_suite_alone=False)
    alone = False
    if not result.ok and mirror_trouble(result) and not os.environ.get(MIRROR_VARIABLE):
        on_trouble(f"{suite}: updates and security suites failed, main suite alone was used")
        alone = True
        result = attempt(main_suite_alone=True)
    if not result.ok:
        raise LabBroken(f"mmdebstrap {suite} exited {result.exit_code}: {_reason(result)}")
    return Bootstrapped(parse_packages(result.stdout + result.stderr), alone)
