"""mountvol.exe: list volumes, take a volume off its letter.

Switches: Server 2003 command-line reference, "Mountvol": /d, /l, /p, /n, /e, /r.
"""

from standin.letters import volume_name

USAGE = (
    "Creates, deletes, or lists a volume mount point.\n\n"
    "MOUNTVOL [drive:]path VolumeName\nMOUNTVOL [drive:]path /D\nMOUNTVOL [drive:]path /L\n"
    "MOUNTVOL [drive:]path /P\nMOUNTVOL /R\nMOUNTVOL /N\nMOUNTVOL /E\n\n"
    "Possible values for VolumeName along with current mount points are:\n\n"
)


def run(ctx):
    """``mountvol``, ``mountvol X: /l|/d|/p``, ``mountvol /r|/n|/e``."""
    args = ctx.args
    letters = ctx.system.letters
    if not args or args == ["/?"]:
        ctx.out(USAGE)
        for item in letters.all():
            ctx.out(f"    {volume_name(item.key)}\n        {item.letter}:\\\n\n")
        return 0
    if args[0].lower() in ("/r", "/n", "/e"):
        return 0
    drive = args[0].rstrip("\\")
    if len(args) != 2 or len(drive) != 2 or drive[1] != ":":
        ctx.out("The parameter is incorrect.\n")
        return 1
    switch = args[1].lower()
    with ctx.system.disk_lock:
        item = letters.get(drive[0])
        if item is None:
            ctx.out("The system cannot find the file specified.\n")
            return 1
        if switch == "/l":
            ctx.out(f"    {volume_name(item.key)}\n")
            return 0
        if switch not in ("/d", "/p"):
            ctx.out("The parameter is incorrect.\n")
            return 1
        try:
            letters.remove(item)
        except OSError:
            ctx.out("Access is denied.\n")
            return 1
    return 0
