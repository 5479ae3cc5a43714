"""The play-setup disc: own boot code, made with the system's compiler."""

import io

import pycdlib

from lab.images.context import BuildContext

#: Real mode of a 386, nothing that needs a library, one flat piece.
FLAGS = [
    "-m16", "-march=i386", "-Os", "-std=gnu11", "-ffreestanding", "-fno-pic", "-fno-pie",
    "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
    "-mno-mmx", "-mno-sse", "-Wall", "-Wextra", "-Werror",
]  # fmt: skip
SECTORS = 64
LABEL = "PVLAB_PLAY_SETUP"


def build(ctx: BuildContext) -> None:
    source = ctx.recipe_dir / "src"
    ctx.step("compiling")
    for tool in ("gcc", "ld"):
        version = ctx.run([tool, "--version"]).stdout.splitlines()[0]
        ctx.record_version(tool, version)
    ctx.run(["gcc", *FLAGS, "-c", source / "play.c", "-o", "play.o"])
    ctx.run(["gcc", "-m32", "-c", source / "start.S", "-o", "start.o"])
    ctx.run(
        ["ld", "-m", "elf_i386", "-z", "noexecstack", "--no-warn-rwx-segments",
         "-T", source / "link.ld", "start.o", "play.o", "-o", "play.elf"]
    )  # fmt: skip
    ctx.run(["objcopy", "-O", "binary", "play.elf", "play.bin"])
    code = (ctx.scratch / "play.bin").read_bytes()
    ctx.step("making the disc")
    iso = pycdlib.PyCdlib()
    iso.new(vol_ident=LABEL)
    whole = code.ljust(SECTORS * 512, b"\0")
    iso.add_fp(io.BytesIO(whole), len(whole), "/PLAY.BIN;1")
    iso.add_eltorito("/PLAY.BIN;1", "/BOOT.CAT;1", boot_load_size=SECTORS)
    iso.write(str(ctx.out / "play-setup.iso"))
    iso.close()
