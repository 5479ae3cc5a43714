"""The builder of images that are installed from media: what ``images/*/build.py`` call."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from lab.config.profile import Memory, Profile
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, PvlabError, UsageError
from lab.core.paths import results_dir
from lab.images.boot import GuestBoot, read_host, write_guest
from lab.images.context import BuildContext
from lab.images.plan import Plan, PlannedFile
from lab.images.recipe import Recipe
from lab.images.store import Store
from lab.install.firstboot import PROGRAMS, total_minutes
from lab.install.nested import NestedHost
from lab.install.oem import SETUP_ON_DISC
from lab.install.pipeline import (
    BLANK,
    DISC,
    RAM,
    USERNAME,
    Hardware,
    Installation,
    Sources,
    answers,
    disc_files,
    steps_of,
)
from lab.install.secret import KEY_FILE_VARIABLE, KEY_VARIABLE, new_password, product_key
from lab.install.selfcheck import checks_2003
from lab.install.settings import SETTINGS_FILE, InstallSettings
from lab.install.watch import TRANSCRIPT, InstallFailed
from lab.media.kinds import WANTED, MediaKind
from lab.media.store import MediaStore
from lab.place.hardware import GUEST_DISK
from lab.qemu.accel import Ladder
from lab.qemu.emulator import system_emulator
from lab.qemu.kvm import kvm_facts
from lab.qemu.machine import Machine

DOMAIN_TEMPLATE = "domain.cfg.j2"
PASSWORD_FILE = "password"  # noqa: S105 - a file's name
PLAY_ORDERS = "orders.txt"
#: 32-bit Windows of 2003 knows processors of its time; QEMU's plain 64-bit one looks like one.
CPU = "qemu64"
#: A guess for deadlines only, as in profiles (lab/config/profile.py, tcg_factor).
TCG_PATIENCE = 6.0
_DOM0_MIB = 768
#: For Xen itself, and the pages of the device model.
_HOST_SPARE_MIB = 512


def build_2003(ctx: BuildContext) -> None:
    """Install Windows Server 2003 in a plain PC; the image is its disk.

    Raises:
        UsageError: no product key, or settings that make no sense.
        InstallFailed: setup does not go on.
        LabBroken: the PC or a program failed.
    """
    settings = InstallSettings.load(ctx.recipe_dir / SETTINGS_FILE)
    sources = Sources(
        disc=ctx.medium(MediaKind.W2K3_SP2_I386),
        programs={kind: ctx.medium(kind) for kind in PROGRAMS},
        product_key=product_key(),
        password=new_password(),
    )
    pc = hardware()
    ctx.record_version("qemu", pc.emulator.version)
    patience = settings.patience * pc.patience
    steps = steps_of(settings)
    deadline = Deadline(60 * patience * (total_minutes(steps) + 30) * (1 + settings.retries))
    with evidence(ctx.name) as folder:
        installation = Installation(
            ctx.name, settings, sources, pc, ctx.scratch, evidence=folder, say=ctx.step
        )
        if settings.way == "qemu":
            with installation.run(deadline) as (machine, watched):
                _check(ctx, installation, machine, settings, deadline)
                installation.shut_down(machine, deadline)
        else:
            host = nested_host(settings)
            ctx.record_version(settings.host_image, host.image.key)
            with installation.run_nested(host, deadline) as (machine, bench, watched):
                _check(ctx, installation, machine, settings, deadline)
                installation.shut_down(machine, deadline, domain=lambda: bench.what_it_is(deadline))
        for step in watched.steps:
            ctx.note(f"{step.name}: {step.seconds:g} s, {step.attempts} attempts")
        shutil.copyfile(folder / TRANSCRIPT, ctx.out / TRANSCRIPT)
    ctx.step("writing the disk")
    ctx.run(["qemu-img", "convert", "-O", "raw", installation.disk, ctx.out / "guest.img"])
    finish(ctx, sources.password)


def _check(
    ctx: BuildContext,
    installation: Installation,
    machine: Machine,
    settings: InstallSettings,
    deadline: Deadline,
) -> None:
    for answer in installation.check(machine, checks_2003(settings), deadline):
        ctx.note(f"{answer.check.name}: {answer.seen}")


def nested_host(settings: InstallSettings) -> NestedHost:
    """The host that a domain is installed on; its image is built unless it is there.

    Raises:
        UsageError: no such image, or its media are missing.
        LabBroken: nothing here runs nested HVM guests, or the image cannot be built.
    """
    accel = Ladder().choose()
    if accel.guest_type != "hvm":
        raise LabBroken(
            f"an HVM domain does not run here: {accel.why}",
            hint='way = "qemu" in install.toml needs no nested host',
        )
    image = Store().ensure(settings.host_image)
    dialects = read_host(image.path).toolstacks
    profile = Profile(
        host_image=settings.host_image,
        toolstack=dialects[0],
        memory=Memory(
            host_mib=_DOM0_MIB + settings.memory_mib + _HOST_SPARE_MIB,
            dom0_mib=_DOM0_MIB,
            guest_mib=settings.memory_mib,
        ),
    )
    return NestedHost(profile, accel, image)


def build_play(ctx: BuildContext) -> None:
    """The same with the play-setup disc; the image is a warm state, and no guest.

    ``orders.txt`` beside the recipe orders failures (images/play-setup/src/play.c).

    Raises:
        UsageError, InstallFailed, LabBroken: as ``build_2003``.
    """
    settings = InstallSettings.load(ctx.recipe_dir / SETTINGS_FILE)
    sources = Sources(ctx.medium(MediaKind.PLAY_SETUP), {}, product_key(), new_password())
    orders = (ctx.recipe_dir / PLAY_ORDERS).read_bytes()
    with evidence(ctx.name) as folder:
        installation = Installation(
            ctx.name,
            settings,
            sources,
            replace(hardware(), accel="tcg", patience=1.0),
            ctx.scratch,
            evidence=folder,
            say=ctx.step,
            extra={"PLAY.TXT": orders} if orders else {},
            keep_ram=True,
            look_every=1.0,
        )
        with installation.run(ctx.deadline) as (machine, watched):
            installation.freeze(machine, ctx.deadline)
        for step in watched.steps:
            ctx.note(f"{step.name}: {step.attempts} attempts")
        shutil.copyfile(folder / TRANSCRIPT, ctx.out / TRANSCRIPT)
    for name in (GUEST_DISK, DISC, RAM, BLANK, "state"):
        (ctx.scratch / name).rename(ctx.out / name)
    ctx.note("play-setup: no Windows is in this image")


def finish(ctx: BuildContext, password: SecretStr) -> None:
    """Put into the image what the lab has to know of the guest."""
    (ctx.out / DOMAIN_TEMPLATE).write_bytes((ctx.recipe_dir / DOMAIN_TEMPLATE).read_bytes())
    secret = ctx.out / PASSWORD_FILE
    secret.touch(0o600)
    secret.write_text(password.get_secret_value())
    write_guest(
        ctx.out,
        GuestBoot(
            guest_type="hvm",
            bits="32-bit PAE",
            disk="guest.img",
            domain_config=DOMAIN_TEMPLATE,
            username=USERNAME,
            password_file=PASSWORD_FILE,
            c_partition=1,
            c_folder="",
        ),
    )


def plan_2003(recipe: Recipe, media: MediaStore) -> Plan:
    """What ``build_2003`` would do with what is there now."""
    settings = InstallSettings.load(recipe.folder / SETTINGS_FILE)
    found = {kind: media.find(kind) for kind in recipe.media}
    missing = [
        f"{kind}: {WANTED[kind].title}; usually from: {WANTED[kind].source}"
        for kind, medium in found.items()
        if medium is None
    ]
    try:
        product_key()
        key = "given"
    except UsageError as error:
        key = f"not given ({KEY_VARIABLE} or {KEY_FILE_VARIABLE})"
        missing.append(error.message)
    # The content is masked, so any secret and any file does; nothing is read from here.
    sources = Sources(Path(), {}, SecretStr(""), SecretStr(""))
    files = [
        PlannedFile("floppy", "WINNT.SIF", answers(settings, sources).masked()),
        *(
            PlannedFile("disc", path, content.decode("ascii"))
            for path, content in disc_files(settings, {}).items()
            if isinstance(content, bytes)
        ),
        *(
            PlannedFile("disc", program_path(kind), note=_origin(media, kind))
            for kind in PROGRAMS
            if kind in recipe.media
        ),
        PlannedFile("image", "guest.img", note="the system disk, raw"),
        PlannedFile("image", "guest.json", note="how to start it"),
        PlannedFile("image", DOMAIN_TEMPLATE, (recipe.folder / DOMAIN_TEMPLATE).read_text()),
        PlannedFile("image", PASSWORD_FILE, note="Administrator's, generated; mode 600"),
        PlannedFile("image", TRANSCRIPT, note="what the guest reported"),
    ]
    facts = [
        *((kind, medium.identity.title if medium else "missing") for kind, medium in found.items()),
        ("product key", key),
        *((name, str(value)) for name, value in settings.model_dump(mode="json").items()),
    ]
    return Plan(
        image=recipe.name,
        facts=tuple((str(name), value) for name, value in facts),
        steps=(
            "put the scripts and programs into $OEM$ on a copy of the disc",
            "write the answer file to a floppy image (mode 600, removed afterwards)",
            f"start a PC in QEMU: {settings.memory_mib} MiB, a disk of {settings.disk_gib} GiB, "
            "disk before CD",
            *(
                f"{step.name}: {step.title} (up to {step.minutes:g} min with KVM"
                + (", then it restarts)" if step.reboots else ")")
                for step in steps_of(settings)
            ),
            "check through WinRM: " + ", ".join(check.name for check in checks_2003(settings)),
            "shut it down, write the disk into the image",
        ),
        files=tuple(files),
        missing=tuple(missing),
    )


def hardware() -> Hardware:
    """What a PC for an installation runs on, on this machine.

    Raises:
        LabBroken: there is no QEMU.
    """
    emulator = system_emulator()
    if emulator is None:
        raise LabBroken("no QEMU on this system", hint="pvlab setup")
    facts = kvm_facts()
    if facts.device == "usable" and facts.flag:
        return Hardware(emulator, "kvm", CPU, 1.0)
    return Hardware(emulator, "tcg", CPU, TCG_PATIENCE)


@contextlib.contextmanager
def evidence(image: str) -> Iterator[Path]:
    """A folder for transcript and picture, which stays when the installation fails."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    results = results_dir()
    try:
        results.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"install-{image}-{stamp}-", dir=results))
    except OSError as error:
        raise LabBroken(f"cannot make a folder in {results}: {error.strerror}") from None
    keep = False
    try:
        yield folder
    except InstallFailed:
        keep = True
        raise
    except UsageError:
        raise
    except PvlabError as error:
        keep = True
        hints = filter(None, (error.hint, f"transcript: {folder / TRANSCRIPT}"))
        raise LabBroken(error.message, hint="; ".join(hints)) from error
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def program_path(kind: MediaKind) -> str:
    """Where a program is on the disc."""
    return f"{SETUP_ON_DISC}/{PROGRAMS[kind]}"


def _origin(media: MediaStore, kind: MediaKind) -> str:
    medium = media.find(kind)
    return f"{medium.name}, sha256 {medium.short}" if medium else f"medium {kind}, missing"
