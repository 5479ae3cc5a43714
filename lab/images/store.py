"""The image store: one folder for each image and key, filled once, never changed.

Layout of ``<root>/<name>/``::

    <key[:16]>/manifest.json   what is in it and where it comes from
    <key[:16]>/build.log       everything its builder's programs wrote
    <key[:16]>/files/          the image
    .partial-<key[:16]>-<pid>  a build under way, or one that was killed
    failed.log                 the log of the last build that failed

Locks are files in ``<root>/.locks``: exclusive for a build or a removal, shared for use.
Whoever holds an image's lock knows that every partial folder of its key is left over.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken, PvlabError, UsageError
from lab.core.lock import locked
from lab.core.paths import cache_dir, repo_root
from lab.images.context import BuildContext, Builder, remove_temporaries
from lab.images.errors import BuildFailed
from lab.images.key import SHORT, image_key
from lab.images.manifest import Manifest, scan
from lab.images.progress import Progress, Silent
from lab.images.recipe import Recipe, load_recipes
from lab.images.trees import remove_tree
from lab.media.store import MediaMissing, MediaStore

MIB = 1 << 20

#: A build may take this many times its recipe's estimate, and never less than the floor:
#: estimates are for a quiet machine and a quick mirror.
PATIENCE = 6
PATIENCE_FLOOR = 1800.0

_BUILT = "[0-9a-f]" * SHORT


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image in the store.

    Attributes:
        name: the image.
        key: its full key, 64 hex digits.
        folder: where manifest, log and files are.
        manifest: what the manifest says.
    """

    name: str
    key: str
    folder: Path
    manifest: Manifest

    @property
    def path(self) -> Path:
        """The folder with the image's files."""
        return self.folder / "files"


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """What the store knows of one image.

    Attributes:
        name: the image.
        description: its recipe's one line; empty when there is no recipe any more.
        state: ``built``, ``stale`` (only builds of older inputs), ``missing``, ``damaged``
            (files are gone or have another size) or ``needs media`` (which users bring).
        key: the key a build would have now; empty without a recipe or its media.
        size: bytes on disk, all builds together.
        others: builds of older inputs.
        minutes: the recipe's estimate of a build.
        disk_mib: the recipe's estimate of the disk space a build needs.
    """

    name: str
    description: str
    state: str
    key: str
    size: int
    others: int
    minutes: float
    disk_mib: int


def disk_usage(folder: Path) -> int:
    """Bytes that ``folder`` takes on disk; holes do not count."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                # st_blocks counts 512-byte units whatever the filesystem's own (stat(2)).
                total += Path(base, name).lstat().st_blocks * 512
    return total


class Store:
    """Images by name.

    Args:
        recipes: the folder whose sub-folders are recipes; the checkout's when None.
        root: where images are kept; in the cache when None.
        media: where media are; in the cache when None.
    """

    def __init__(
        self,
        recipes: Path | None = None,
        root: Path | None = None,
        media: MediaStore | None = None,
    ) -> None:
        self._recipes_dir = recipes or repo_root() / "images"
        self.root = root or cache_dir() / "images"
        self._media = media or MediaStore()

    def names(self) -> list[str]:
        """The names of all recipes."""
        return sorted(load_recipes(self._recipes_dir))

    def recipe(self, name: str) -> Recipe:
        """The recipe of an image.

        Raises:
            UsageError: there is none of that name, or it is malformed.
        """
        recipes = load_recipes(self._recipes_dir)
        if name not in recipes:
            raise UsageError(
                f"no image is called {name!r}", hint=f"there are: {', '.join(recipes) or 'none'}"
            )
        return recipes[name]

    def key(self, name: str) -> str:
        """The key a build of ``name`` would have now.

        Raises:
            MediaMissing: it is made of media that nobody added.
            UsageError: no such recipe, an input is missing, or recipes depend on each other.
        """
        return self._key(name, ())

    def _key(self, name: str, above: tuple[str, ...]) -> str:
        if name in above:
            raise UsageError(f"recipes depend on each other: {' -> '.join([*above, name])}")
        recipe = self.recipe(name)
        media = self._media.require(name, recipe.media)
        return image_key(
            recipe,
            {dep: self._key(dep, (*above, name)) for dep in recipe.depends},
            {kind: medium.sha256 for kind, medium in media.items()},
        )

    def buildable(self) -> list[str]:
        """The names of all recipes whose media, if they need any, are there.

        Raises:
            UsageError: a recipe is malformed.
        """
        return [name for name in self.names() if self._has_media(name)]

    def _has_media(self, name: str) -> bool:
        try:
            self.key(name)
        except MediaMissing:
            return False
        return True

    def find(self, name: str) -> BuiltImage | None:
        """The build of ``name`` for its present inputs, or None when there is none.

        Raises:
            UsageError: as for ``key``.
            LabBroken: it is there but damaged.
        """
        return self._load(name, self.key(name))

    def _load(self, name: str, key: str) -> BuiltImage | None:
        folder = self._folder(name, key)
        if not folder.is_dir():
            return None
        manifest = Manifest.read(folder)
        if problem := manifest.quick_problem(folder / "files"):
            raise LabBroken(
                f"image {name} is damaged: {problem}", hint=f"run: pvlab image build --force {name}"
            )
        return BuiltImage(name, key, folder, manifest)

    def ensure(
        self,
        name: str,
        progress: Progress | None = None,
        *,
        deadline: Deadline | None = None,
        force: bool = False,
    ) -> BuiltImage:
        """The build of ``name`` for its present inputs, made now unless it is there.

        Images it depends on come first. When another process builds the same image, this
        one waits and takes the result.

        Args:
            name: the image.
            progress: told what happens.
            deadline: for everything together; from the recipes' estimates when None.
            force: build ``name`` (not what it depends on) again even if it is there.

        Raises:
            UsageError: no such image, or a recipe is malformed.
            BuildFailed: the builder failed or took too long.
            LabBroken: no disk space, inputs that change under way, or an image that is there
                is damaged.
            DeadlineExpired: another process kept the image's lock.
        """
        progress = progress or Silent()
        recipe = self.recipe(name)
        key = self.key(name)
        if not force and (found := self._load(name, key)):
            return found
        before = _identity(self._folder(name, key))
        depends = {dep: self.ensure(dep, progress, deadline=deadline) for dep in recipe.depends}
        until = deadline or Deadline(max(PATIENCE_FLOOR, recipe.resources.minutes * 60 * PATIENCE))

        def tell(holder: str) -> None:
            progress.waiting(name, f"{holder} builds or uses it")

        with locked(self._lock(name, key), until, on_wait=tell):
            self._sweep(name, key)
            # Whoever held the lock may have built it meanwhile. That also answers a forced
            # build: two of them at once need one result, not two.
            if _identity(self._folder(name, key)) == before or not (built := self._load(name, key)):
                self._build(recipe, key, depends, progress, until)
                built = self._load(name, key)
        assert built is not None  # noqa: S101 - the folder was just made, under the lock
        return built

    @contextmanager
    def hold(self, image: BuiltImage, deadline: Deadline) -> Iterator[None]:
        """Keep an image from being removed or rebuilt for the length of a ``with`` block.

        Raises:
            LabBroken: it has gone already.
            DeadlineExpired: it is being built or removed.
        """
        with locked(self._lock(image.name, image.key), deadline, shared=True):
            if not image.folder.is_dir():
                raise LabBroken(f"image {image.name} was removed")
            yield

    def verify(self, name: str) -> list[str]:
        """Read every byte of an image again; returns what is wrong, one line each.

        Raises:
            UsageError: no such recipe, or it is not built.
            LabBroken: its manifest is unusable.
        """
        folder = self._folder(name, self.key(name))
        if not folder.is_dir():
            raise UsageError(f"image {name} is not built", hint=f"run: pvlab image build {name}")
        return Manifest.read(folder).problems(folder / "files")

    def remove(self, name: str, *, stale_only: bool = False) -> int:
        """Remove all builds of an image, or those of older inputs; returns bytes freed.

        An image without a recipe may be removed too.

        Raises:
            UsageError: there is neither recipe nor build of that name.
            LabBroken: one of the builds is being built or used.
        """
        recipes = load_recipes(self._recipes_dir)
        if name not in recipes.keys() | self._homes():
            raise UsageError(f"no image is called {name!r}")
        known = stale_only and name in recipes and self._has_media(name)
        keep = self.key(name)[:SHORT] if known else None
        freed = 0
        for folder in self._builds(name):
            if folder.name == keep:
                continue
            try:
                with locked(self._lock(name, folder.name), Deadline(0)):
                    freed += disk_usage(folder)
                    self._discard(folder)
            except DeadlineExpired as error:
                raise LabBroken(f"image {name} is in use: {error.last_seen}") from error
        self._sweep(name)
        return freed

    def status(self) -> list[ImageStatus]:
        """Every image there is a recipe or a build of, by name.

        Raises:
            UsageError: a recipe is malformed.
        """
        recipes = load_recipes(self._recipes_dir)
        names = sorted(recipes.keys() | self._homes())
        return [self._status(name, recipes.get(name)) for name in names]

    def _status(self, name: str, recipe: Recipe | None) -> ImageStatus:
        builds = {folder.name: folder for folder in self._builds(name)}
        key = self.key(name) if recipe and self._has_media(name) else ""
        current = builds.pop(key[:SHORT], None) if key else None
        state = "stale" if builds else "missing"
        if recipe and not key:
            state = "needs media"
        if current is not None:
            try:
                problem = Manifest.read(current).quick_problem(current / "files")
            except LabBroken as error:
                problem = error.message
            state = "damaged" if problem else "built"
        return ImageStatus(
            name=name,
            description=recipe.description if recipe else "",
            state=state,
            key=key,
            size=disk_usage(self.root / name),
            others=len(builds),
            minutes=recipe.resources.minutes if recipe else 0.0,
            disk_mib=recipe.resources.disk_mib if recipe else 0,
        )

    def _homes(self) -> set[str]:
        """Names of which there are, or were, builds."""
        return {path.name for path in self.root.glob("[!.]*") if path.is_dir()}

    def _folder(self, name: str, key: str) -> Path:
        return self.root / name / key[:SHORT]

    def _lock(self, name: str, key: str) -> Path:
        return self.root / ".locks" / f"{name}-{key[:SHORT]}"

    def _builds(self, name: str) -> list[Path]:
        return sorted((self.root / name).glob(_BUILT))

    def _discard(self, folder: Path) -> None:
        """Remove a build: out of sight in one step, then bit by bit."""
        grave = folder.with_name(f".partial-{folder.name}-{os.getpid()}-old")
        folder.rename(grave)
        remove_tree(grave)

    def _sweep(self, name: str, held: str = "") -> None:
        """Remove what killed builds left, except where a build is under way.

        Args:
            name: the image.
            held: a key whose lock the caller holds.
        """
        for folder in (self.root / name).glob(".partial-*"):
            key = folder.name.split("-")[1]
            if key == held[:SHORT]:
                _remove_partial(folder)
                continue
            with suppress(DeadlineExpired), locked(self._lock(name, key), Deadline(0)):
                _remove_partial(folder)

    def _build(
        self,
        recipe: Recipe,
        key: str,
        depends: dict[str, BuiltImage],
        progress: Progress,
        deadline: Deadline,
    ) -> None:
        """Build into a partial folder, then give it its name. The lock is held."""
        home = self.root / recipe.name
        home.mkdir(parents=True, exist_ok=True)
        _check_space(recipe, home)
        partial = home / f".partial-{key[:SHORT]}-{os.getpid()}"
        progress.started(recipe.name, recipe.resources.minutes)
        began = time.monotonic()
        built = False
        try:
            for part in ("files", "scratch"):
                (partial / part).mkdir(parents=True)
            with (partial / "build.log").open("wb") as log:
                ctx = self._run_builder(recipe, partial, depends, log, progress, deadline)
            if self.key(recipe.name) != key:
                raise LabBroken(f"image {recipe.name}: its inputs changed while it was built")
            remove_tree(partial / "scratch")
            progress.step(recipe.name, "hashing")
            Manifest(
                name=recipe.name,
                kind=recipe.kind,
                key=key,
                depends={name: image.key for name, image in depends.items()},
                versions=ctx.versions,
                notes=tuple(ctx.notes),
                built_at=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - began, 1),
                host=_host_facts(),
                files=scan(partial / "files", sync=True),
            ).write(partial)
            final = self._folder(recipe.name, key)
            if final.is_dir():
                self._discard(final)
            partial.rename(final)
            _sync_folder(home)
            built = True
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LabBroken(f"image {recipe.name}: no space left below {self.root}") from error
            raise LabBroken(f"image {recipe.name}: {error}") from error
        finally:
            if not built:
                progress.failed(recipe.name)
                with suppress(OSError):
                    (partial / "build.log").replace(home / "failed.log")
                _remove_partial(partial)
        progress.finished(recipe.name, time.monotonic() - began)

    def _run_builder(
        self,
        recipe: Recipe,
        partial: Path,
        depends: dict[str, BuiltImage],
        log: BinaryIO,
        progress: Progress,
        deadline: Deadline,
    ) -> BuildContext:
        ctx = BuildContext(
            recipe,
            out=partial / "files",
            scratch=partial / "scratch",
            depends={name: image.path for name, image in depends.items()},
            log=log,
            progress=progress,
            deadline=deadline,
            media={
                kind: self._media.content(medium)
                for kind, medium in self._media.require(recipe.name, recipe.media).items()
            },
        )
        kept = self.root / recipe.name / "failed.log"
        try:
            load_builder(recipe)(ctx)
        except PvlabError as error:
            if isinstance(error, UsageError):
                raise
            message = error.message
            if not message.startswith("image "):
                message = f"image {recipe.name}: {message}"
            if error.hint and not isinstance(error, BuildFailed):
                raise LabBroken(message, hint=error.hint) from error
            raise BuildFailed(message, tail=ctx.tail, log=kept) from error
        return ctx


def load_builder(recipe: Recipe) -> Builder:
    """The recipe's ``build`` function.

    Raises:
        UsageError: the builder cannot be imported or has no such function.
    """
    try:
        if recipe.builder_file is not None:
            spec = importlib.util.spec_from_file_location(
                f"pvlab_recipe_{recipe.name}", recipe.builder_file
            )
            if spec is None or spec.loader is None:
                raise ImportError("not a Python file")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(recipe.builder)
        builder: Builder = module.build
    except (ImportError, AttributeError, SyntaxError, OSError) as error:
        raise UsageError(f"image {recipe.name}: builder {recipe.builder}: {error}") from error
    return builder


def _remove_partial(folder: Path) -> None:
    remove_temporaries(folder / "scratch")
    remove_tree(folder)


def _identity(folder: Path) -> int:
    """Tells one build in ``folder`` from the next one in the same place; 0 for none."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return 0


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_space(recipe: Recipe, home: Path) -> None:
    """Refuse a build that would fill the disk.

    Raises:
        LabBroken: there is less space than the recipe asks for.
    """
    free = shutil.disk_usage(home).free // MIB
    if free < recipe.resources.disk_mib:
        raise LabBroken(
            f"image {recipe.name} needs {recipe.resources.disk_mib} MiB below {home},"
            f" {free} MiB are free",
            hint="make room (pvlab image list), or set PVLAB_CACHE to a larger disk",
        )


def _host_facts() -> dict[str, str]:
    facts = {"node": platform.node(), "kernel": platform.release(), "machine": platform.machine()}
    with suppress(OSError):
        facts["system"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return facts
