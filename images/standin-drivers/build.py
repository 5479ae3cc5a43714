"""Driver packages: INF files from this folder, modules from Debian, ``src`` and ``mutants``."""

import shutil
import tarfile
import tomllib

from lab.images.context import BuildContext

# The module that is the PV block driver, and what its file is called in a package.
DRIVER = "kernel/drivers/block/xen-blkfront.ko"

# The module that stops and starts it with its devices, in a package.
BUS = "xenpci.sys"

# The module that makes it defective, in a package.
DEFECT = "xenvbdx.sys"

# What the mutants are, and what their INFs are made from; in ``mutants``.
CATALOGUE = "mutants.toml"
TEMPLATE = "xenvbd.inf.in"


def build(ctx: BuildContext) -> None:
    kernel = ctx.dep("standin-kernel")
    version = (kernel / "version").read_text().strip()
    ctx.record_version("kernel", version)
    ctx.step("building modules")
    toolchain = _unpack_toolchain(ctx)
    built = _build_modules(ctx, toolchain, version, "src")
    mutated = _build_modules(ctx, toolchain, version, "mutants")
    with tarfile.open(kernel / "modules.tar") as archive:
        member = archive.extractfile(f"{version}/{DRIVER}")
        assert member is not None
        blkfront = member.read()
    ctx.step("making the packages")
    for name, extras in (
        ("good", {"xenpci.ko": BUS}),
        ("broken-attach", {"crash_on_attach.ko": DEFECT}),
    ):
        package = ctx.out / name
        shutil.copytree(ctx.recipe_dir / name, package)
        binaries = package / "i386"
        binaries.mkdir(exist_ok=True)
        (binaries / "xenvbd.sys").write_bytes(blkfront)
        for module, file in extras.items():
            shutil.copy(built / module, binaries / file)

    template = (ctx.recipe_dir / "mutants" / TEMPLATE).read_text()
    catalogue = (ctx.recipe_dir / "mutants" / CATALOGUE).read_text()
    for kind in ("mutant", "variant"):
        for mutant in read_mutants(catalogue, kind):
            package = ctx.out / f"{kind}s" / mutant["name"]
            binaries = package / "i386"
            binaries.mkdir(parents=True)
            (package / "xenvbd.inf").write_bytes(mutant_inf(template, mutant))
            (binaries / "xenvbd.sys").write_bytes(blkfront)
            shutil.copy(built / "xenpci.ko", binaries / BUS)
            source = mutant.get("of", mutant["name"]).replace("-", "_")
            shutil.copy(mutated / f"mutant_{source}.ko", binaries / DEFECT)


def read_mutants(text, kind="mutant"):
    """The catalogue's entries of a kind, in its order.

    Raises:
        ValueError: two of any kind share a name or a build number.
    """
    catalogue = tomllib.loads(text)
    everything = [entry for entries in catalogue.values() for entry in entries]
    for field in ("name", "build"):
        values = [entry[field] for entry in everything]
        if len(set(values)) < len(values):
            raise ValueError(f"{CATALOGUE}: two mutants have the same {field}")
    return catalogue.get(kind, [])


def mutant_inf(template, mutant):
    """The INF of a mutant, with the line ends that Windows tools expect."""
    for field in ("name", "title", "build"):
        template = template.replace(f"@{field.upper()}@", str(mutant[field]))
    if options := mutant.get("options"):
        binary = "ServiceBinary=%12%\\xenvbdx.sys\n"
        template = template.replace(binary, binary + "AddReg=XenVbdX_Options\n")
        template += f'\n[XenVbdX_Options]\nHKR,Parameters,ModuleOptions,,"{options}"\n'
    return template.replace("\n", "\r\n").encode("ascii")


def _unpack_toolchain(ctx: BuildContext):
    """The kernel's build tree with a compiler, to be entered with chroot."""
    root = ctx.scratch / "toolchain"
    root.mkdir()
    archive = ctx.dep("standin-kernel") / "toolchain.tar"
    ctx.run(["tar", "-x", "--no-same-owner", "-C", root, "-f", archive])
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev/null").touch()
    return root


def _build_modules(ctx: BuildContext, root, version: str, folder: str):
    """Build a folder in the kernel's own tree, in a user namespace when not root."""
    source = root / folder
    shutil.copytree(ctx.recipe_dir / folder, source)
    script = (
        'mount --bind /dev/null "$0/dev/null" && exec chroot "$0" /usr/bin/env -i '
        f"PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "
        f"make -C /usr/src/linux-headers-{version} M=/{folder} ARCH=i386 modules"
    )
    ctx.run(["unshare", "--map-root-user", "--mount", "sh", "-ec", script, root])
    return source
