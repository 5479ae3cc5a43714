"""What a builder gets: places to write to, programs to run, things to record."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.images import debian
from lab.images.errors import BuildFailed
from lab.images.process import run_program
from lab.images.progress import Progress
from lab.images.recipe import Recipe
from lab.images.trees import remove_tree
from lab.media.kinds import MediaKind

#: The release day of Debian 12 (2023-06-10), as the newest time stamp inside an image, so
#: that one recipe and one set of packages give one image (reproducible-builds.org,
#: SOURCE_DATE_EPOCH).
SOURCE_DATE_EPOCH = 1686355200

TAIL_LINES = 15

TEMPORARY_PREFIX = "pvlab-build-"


class BuildContext:
    """The one argument of a builder's ``build(ctx)``.

    Attributes:
        name: the image being built.
        recipe_dir: the recipe's folder.
        out: an empty folder; what is in it when the builder returns is the image.
        scratch: an empty folder on the same filesystem, removed after the build.
        deadline: the whole build's.
        versions: what was recorded so far.
        notes: what was noted so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        out: Path,
        scratch: Path,
        depends: Mapping[str, Path],
        log: BinaryIO,
        progress: Progress,
        deadline: Deadline,
        media: Mapping[MediaKind, Path] | None = None,
    ) -> None:
        self.name = recipe.name
        self.recipe_dir = recipe.folder
        self.out = out
        self.scratch = scratch
        self.deadline = deadline
        self.versions: dict[str, str] = {}
        self.notes: list[str] = []
        self._recipe = recipe
        self._depends = depends
        self._media = dict(media or {})
        self._log = log
        self._progress = progress
        self._recent: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines of the build's log, oldest first."""
        return tuple(self._recent)

    def step(self, text: str) -> None:
        """Tell people, and the log, what comes next."""
        self._progress.step(self.name, text)
        self._write(f"== {text}")

    def note(self, text: str) -> None:
        """Put a line into the manifest that whoever uses the image should know."""
        self.notes.append(text)
        self._progress.output(self.name, text)
        self._write(f"-- {text}")

    def heard(self, line: str) -> None:
        """Put a line into the log that came from something the builder watches itself."""
        self._progress.output(self.name, line)
        self._write(line)

    def record_version(self, name: str, version: str) -> None:
        """Put into the manifest which version of something went in."""
        self.versions[name] = version

    def dep(self, name: str) -> Path:
        """The files of an image this recipe depends on.

        Raises:
            LabBroken: the recipe does not say that it depends on it.
        """
        try:
            return self._depends[name]
        except KeyError:
            raise LabBroken(f"image {self.name}: {name} is not in its recipe's depends") from None

    def medium(self, kind: MediaKind) -> Path:
        """A medium that this recipe is made of.

        Raises:
            LabBroken: the recipe does not say so.
        """
        try:
            return self._media[kind]
        except KeyError:
            raise LabBroken(f"image {self.name}: {kind} is not in its recipe's media") from None

    def shared(self, name: str) -> Path:
        """Something of another recipe that this one says it shares.

        Raises:
            LabBroken: the recipe does not say so.
        """
        if name not in self._recipe.shared:
            raise LabBroken(f"image {self.name}: {name} is not in its recipe's shared")
        return self._recipe.shared_path(name)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        check: bool = True,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        deadline: Deadline | None = None,
    ) -> CommandResult:
        """Run a program; its output goes to the build's log as it comes.

        Args:
            argv: the program and its arguments; no shell is involved.
            check: whether an exit status other than 0 is an error.
            cwd: its working folder; ``scratch`` when None.
            env: variables to set on top of this process's own.
            stdin: what it reads; nothing when empty.
            deadline: the build's own when None.

        Raises:
            BuildFailed: it failed and ``check`` is set.
            DeadlineExpired: it took too long; it has been killed.
        """
        words = [str(word) for word in argv]
        self._write(f"$ {' '.join(words)}")
        result = run_program(
            words,
            deadline or self.deadline,
            log=self._log,
            on_line=self._heard,
            cwd=cwd or self.scratch,
            env={"SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH), **(env or {})},
            stdin=stdin,
        )
        if check and not result.ok:
            said = next((line for line in reversed(self._recent) if line.strip()), "")
            raise BuildFailed(
                f"image {self.name}: {Path(words[0]).name} exited {result.exit_code}"
                + (f": {said.strip()}" if said and not said.startswith("$ ") else "")
            )
        return result

    def mmdebstrap(
        self,
        suite: str,
        out: Path,
        *,
        include: Sequence[str] = (),
        variant: str = "apt",
        architectures: Sequence[str] = ("amd64",),
        components: Sequence[str] = ("main",),
        aptopts: Sequence[str] = (),
        dpkgopts: Sequence[str] = (),
        hooks: Sequence[str] = (),
        options: Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> dict[str, str]:
        """Unpack or install Debian packages with mmdebstrap(1).

        The versions of the packages in ``include`` are recorded. When the mirror's updates
        or security suite cannot be had, the main suite alone is used and a note says so.

        Args:
            suite: the Debian suite.
            out: what to make: ``*.tar`` (also compressed), ``*.ext2``, ``*.squashfs``, or a
                folder, which gets the files without their owners and without device nodes.
            include: packages; recommended ones are not followed.
            variant: mmdebstrap's variant; ``extract`` unpacks without installing.
            architectures: the first is the native one.
            components: archive components.
            aptopts: lines of apt.conf.
            dpkgopts: lines of dpkg.cfg.
            hooks: whole options such as ``--customize-hook=...``.
            options: further whole options.
            deadline: the build's own when None.

        Returns:
            Versions of all packages that went in, by name and by ``name:architecture``.

        Raises:
            LabBroken: it failed, or this machine cannot run it.
            DeadlineExpired: it took too long; it has been killed.
        """
        as_folder = not out.suffix or out.is_dir()
        target = self.scratch / f"{out.name}.mmdebstrap.tar" if as_folder else out
        arguments = [
            '--aptopt=APT::Install-Recommends "false"',
            f"--architectures={','.join(architectures)}",
            f"--components={','.join(components)}",
            *(f"--include={package}" for package in include),
            *(f"--aptopt={line}" for line in aptopts),
            *(f"--dpkgopt={line}" for line in dpkgopts),
            *hooks,
            *options,
        ]
        with _temporary(self.scratch) as temporary:

            def run(argv: Sequence[str | Path], until: Deadline) -> CommandResult:
                return self.run(argv, check=False, env={"TMPDIR": str(temporary)}, deadline=until)

            made = debian.bootstrap(
                run,
                suite,
                target,
                arguments,
                deadline or self.deadline,
                variant=variant,
                on_trouble=self.note,
            )
        for package in include:
            if package in made.packages:
                self.record_version(package, made.packages[package])
        if as_folder:
            out.mkdir(parents=True, exist_ok=True)
            self.run(["tar", "-x", "--no-same-owner", "--exclude=./dev/*", "-C", out, "-f", target])
            target.unlink()
        return made.packages

    def _heard(self, line: str) -> None:
        self._recent.append(line)
        self._progress.output(self.name, line)

    def _write(self, line: str) -> None:
        self._recent.append(line)
        self._log.write(f"{line}\n".encode())
        self._log.flush()


@contextmanager
def _temporary(scratch: Path) -> Iterator[Path]:
    """A folder for mmdebstrap's temporary root.

    In its user namespace mmdebstrap is another user, who must be able to reach the folder.
    The cache is usually below a home folder that is closed to others, so then the system's
    temporary folder has to do; a link in ``scratch`` lets a later build find and remove what
    a killed one left there.
    """
    near = os.geteuid() == 0 or _open_to_all(scratch)
    path = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=scratch if near else None))
    link = scratch / f"{path.name}.link"
    link.symlink_to(path)
    try:
        path.chmod(0o755)
        yield path
    finally:
        remove_tree(path)
        link.unlink()


def remove_temporaries(scratch: Path) -> None:
    """Remove what a build that was killed left outside of ``scratch``."""
    for link in scratch.glob(f"{TEMPORARY_PREFIX}*.link"):
        target = link.readlink()
        if target.name.startswith(TEMPORARY_PREFIX):
            remove_tree(target)


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


Builder = Callable[[BuildContext], None]
