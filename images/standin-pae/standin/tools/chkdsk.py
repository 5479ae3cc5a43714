"""chkdsk.exe: check a volume.

The three stages are printed as Server 2003 does; behind them ntfsfix or fsck.vfat look at the
structures and every file is read once, so that bad data paths show. Exit codes ("Chkdsk",
Server 2003 reference): 0 no errors, 1 errors fixed, 2 not run, 3 could not be checked or
errors left.
"""

import os

from standin.errors import win32_text

STAGES = (
    ("files", "File verification completed."),
    ("indexes", "Index verification completed."),
    ("security descriptors", "Security descriptor verification completed."),
)


def run(ctx):
    """``chkdsk [X:] [/f] [/r] [/x] [/v]``."""
    drive = ctx.session.cwd[""]
    fix = False
    for word in ctx.args:
        low = word.lower()
        if low in ("/f", "/r", "/x"):
            fix = True
        elif low in ("/v", "/i", "/c"):
            pass
        elif len(word) == 2 and word[1] == ":":
            drive = word[0].upper()
        else:
            ctx.out(f"Invalid parameter - {word}\n")
            return 3
    if drive == "C":
        ctx.out(
            "Cannot lock current drive.\n\nThe volume C: is the stand-in's own folder and is not "
            "checked.\n"
        )
        return 3
    with ctx.system.disk_lock:
        item = ctx.system.letters.get(drive)
        if item is None:
            ctx.out("The system cannot find the drive specified.\n")
            return 3
        return _check(ctx, item, fix)


def _check(ctx, item, fix):
    from standin.filesystems import probe

    try:
        found = probe(item.device)
    except OSError:
        ctx.out("Cannot open volume for direct access.\n")
        return 3
    ctx.out(f"The type of the file system is {found.fs}.\n")
    if found.fs == "RAW":
        ctx.out("CHKDSK is not available for RAW drives.\n")
        return 3
    if found.label:
        ctx.out(f"Volume label is {found.label}.\n")
    if not fix:
        ctx.out("\nWARNING!  F parameter not specified.\nRunning CHKDSK in read-only mode.\n\n")
    program = "ntfsfix" if found.fs == "NTFS" else "fsck.vfat"
    options = [] if fix and found.fs == "NTFS" else ["-n"] if not fix else ["-a"]
    # The checkers want the volume to themselves, and a dismount also empties the cache.
    try:
        ctx.system.letters.unmount(item)
    except OSError:
        ctx.out("Cannot lock current drive.\n")
        return 3
    code, _ = ctx.system.host.run(program, *options, item.device, process=ctx.process)
    ctx.system.letters.mount(item)
    bad = code != 0 or not item.mounted
    for number, (name, done) in enumerate(STAGES, 1):
        ctx.out(f"CHKDSK is verifying {name} (stage {number} of 3)...\n")
        if number == 1 and item.mounted:
            bad |= not _read_all(ctx, item.folder)
        ctx.out(done + "\n")
    if bad:
        ctx.out(
            "Errors found.  CHKDSK cannot continue in read-only mode.\n"
            if not fix
            else "Windows found problems that could not be fixed.\n"
        )
        return 3
    usage = os.statvfs(item.folder)
    total, free = (count * usage.f_frsize >> 10 for count in (usage.f_blocks, usage.f_bfree))
    ctx.out(
        f"\n{total:10d} KB total disk space.\n{total - free:10d} KB in use by the system and in "
        f"files.\n{free:10d} KB available on disk.\n\n{usage.f_frsize:10d} bytes in each "
        f"allocation unit.\n{usage.f_blocks:10d} total allocation units on disk.\n"
        f"{usage.f_bfree:10d} allocation units available on disk.\n"
    )
    return 0


def _read_all(ctx, folder):
    """Read every file; whether that went well."""
    good = True
    for base, _, leaves in os.walk(folder):
        for leaf in leaves:
            try:
                with open(os.path.join(base, leaf), "rb") as file:
                    while file.read(1 << 20):
                        ctx.check()
            except OSError as error:
                ctx.out(f"File {leaf}: {win32_text(error)}\n")
                good = False
    return good
