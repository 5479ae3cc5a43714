"""diskpart.exe 5.2.3790: disks, partitions and volumes, from a script or standard input.

Sources: "DiskPart" in the Server 2003 command-line reference (commands, script exit codes);
table layouts from real sessions of version 1.0 and 5.2. ``attributes`` and ``online disk``
came later and are refused as unknown, as there. The banner names the stand-in.
"""

import os

from standin import PRODUCT, VERSION, mbr
from standin.errors import win32_text
from standin.letters import FREE_LETTERS
from standin.volumes import size_text, table_of, volumes

#: Script exit codes ("DiskPart", section "DiskPart scripting").
OK, FATAL, BAD_PARAMETERS, NO_SCRIPT, SERVICE_FAILED, SYNTAX = range(6)

HELP = (
    "ASSIGN      - Assign a drive letter or mount point to the selected volume.",
    "CLEAN       - Clear the configuration information, or all information, off the disk.",
    "CREATE      - Create a volume or partition.",
    "DELETE      - Delete an object.",
    "DETAIL      - Provide details about an object.",
    "EXIT        - Exit DiskPart",
    "EXTEND      - Extend a volume.",
    "HELP        - Prints a list of commands.",
    "LIST        - Prints out a list of objects.",
    "REM         - Does nothing. Used to comment scripts.",
    "REMOVE      - Remove a drive letter or mount point assignment.",
    "RESCAN      - Rescan the computer looking for disks and volumes.",
    "SELECT      - Move the focus to an object.",
)

NO_DISK = "There is no disk selected.\nPlease select a disk and try again.\n"
NO_PARTITION = "There is no partition selected.\nPlease select a partition and try again.\n"
NO_VOLUME = "There is no volume selected.\nPlease select a volume and try again.\n"
BAD_ARGUMENTS = "The arguments you specified for this command are not valid.\n"

VOLUME_HEADER = (
    "  Volume ###  Ltr  Label        Fs     Type        Size     Status     Info\n"
    "  ----------  ---  -----------  -----  ----------  -------  ---------  --------\n"
)
DISK_HEADER = (
    "  Disk ###  Status      Size     Free     Dyn  Gpt\n"
    "  --------  ----------  -------  -------  ---  ---\n"
)
PARTITION_HEADER = (
    "  Partition ###  Type              Size     Offset\n"
    "  -------------  ----------------  -------  -------\n"
)


class _CommandError(Exception):
    """A command failed.

    Args:
        text: what diskpart prints.
        code: exit code of a script that stops here.
    """

    def __init__(self, text, code=FATAL):
        super().__init__(text)
        self.text = text
        self.code = code


class _LeaveError(Exception):
    """``exit``."""


def run(ctx):
    """``diskpart [/s script]``; commands come from standard input without a script."""
    args = ctx.args
    ctx.out(
        f"\n{PRODUCT} DiskPart version {VERSION}\nFollows the formats of that version.\n"
        f"On computer: {ctx.system.config.computer_name}\n\n"
    )
    script = None
    if args:
        if len(args) != 2 or args[0].lower() not in ("/s", "-s"):
            ctx.out(
                "Microsoft DiskPart syntax:\n\tdiskpart [/s <script>] [/?]\n\n"
                "\t/s <script> - Use a DiskPart script.\n\t/?          - Show this help screen.\n"
            )
            return BAD_PARAMETERS
        try:
            with open(ctx.path(args[1]), "rb") as file:
                script = file.read()
        except OSError:
            ctx.out(
                "DiskPart failed to open the script file. Verify the file name and try again.\n"
            )
            return NO_SCRIPT
    session = _Session(ctx)
    with ctx.system.disk_lock:
        if script is not None:
            return _script(ctx, session, script.decode("cp437").splitlines())
        return _interactive(ctx, session)


def _script(ctx, session, lines):
    for line in lines:
        ctx.check()
        words, no_error = _words(line)
        if not words:
            continue
        try:
            session.execute(words)
        except _LeaveError:
            break
        except _CommandError as error:
            ctx.out(error.text + "\n")
            if not no_error:
                return error.code
    return OK


def _interactive(ctx, session):
    rest = b""
    while data := ctx.stdin.read():
        *lines, rest = (rest + data).split(b"\n")
        for raw in lines:
            words, _ = _words(raw.decode("cp437"))
            ctx.out("DISKPART> \n")
            try:
                if words:
                    session.execute(words)
            except _LeaveError:
                ctx.out("Leaving DiskPart...\n")
                return OK
            except _CommandError as error:
                ctx.out(error.text + "\n")
    return OK


def _words(line):
    """Lower-case words of a command, and whether ``noerr`` was among them."""
    words = line.strip().lower().split()
    return [word for word in words if word != "noerr"], "noerr" in words


class _Session:
    """One run of diskpart: what is selected, and the commands."""

    def __init__(self, ctx):
        self._ctx = ctx
        self._system = ctx.system
        self._disk = None
        self._partition = None
        self._commands = {
            "assign": self._assign,
            "clean": self._clean,
            "create": self._create,
            "delete": self._delete,
            "detail": self._detail,
            "exit": self._exit,
            "extend": self._extend,
            "help": self._help,
            "list": self._list,
            "rem": lambda words: None,
            "remove": self._remove,
            "rescan": self._rescan,
            "select": self._select,
        }

    def execute(self, words):
        """Run one command.

        Raises:
            _CommandError: it failed.
            _LeaveError: it was ``exit``.
        """
        # Commands may be shortened to what is still unique, such as "sel dis 1".
        names = [name for name in self._commands if name.startswith(words[0])]
        if words[0] in self._commands:
            names = [words[0]]
        if len(names) != 1 or len(words[0]) < 3:
            self._help(words)
            raise _CommandError("", SYNTAX)
        try:
            self._commands[names[0]](words[1:])
        except OSError as error:
            raise _CommandError(
                f"DiskPart has encountered an error: {win32_text(error)}\n"
                "See the System Event Log for more information.\n",
                SERVICE_FAILED,
            ) from error

    def _out(self, text):
        self._ctx.out(text)

    # What is selected

    def _need_disk(self):
        if self._disk is None or not self._disk.present:
            self._disk = self._partition = None
            raise _CommandError(NO_DISK, SYNTAX)
        return self._disk

    def _need_partition(self, text=NO_PARTITION):
        disk = self._need_disk() if self._disk is not None else None
        if disk is None or self._partition is None:
            raise _CommandError(text, SYNTAX)
        table = disk.table()
        partition = table.get(self._partition)
        if partition is None:
            self._partition = None
            raise _CommandError(text, SYNTAX)
        return disk, table, partition

    def _object(self, words, kinds):
        """The object kind of ``list``, ``select``, ``detail``, shortened or not."""
        names = [
            kind for kind in kinds if words and len(words[0]) >= 3 and kind.startswith(words[0])
        ]
        if len(names) != 1:
            raise _CommandError(BAD_ARGUMENTS, SYNTAX)
        return names[0]

    def _number(self, words):
        """``2`` or ``=2`` as a number; ``None`` without one."""
        text = "".join(words[1:]).lstrip("=")
        if not text:
            return None
        if not text.isdigit():
            raise _CommandError(BAD_ARGUMENTS, BAD_PARAMETERS)
        return int(text)

    # Commands

    def _exit(self, words):
        raise _LeaveError

    def _help(self, words):
        self._out(f"\n{PRODUCT} DiskPart version {VERSION}\n\n" + "\n".join(HELP) + "\n\n")

    def _rescan(self, words):
        self._out("Please wait while DiskPart scans your configuration...\n")
        self._system.disks.scan()
        self._out("\nDiskPart has finished scanning your configuration.\n\n")

    def _list(self, words):
        kind = self._object(words, ("disk", "partition", "volume"))
        if kind == "disk":
            self._out(DISK_HEADER + "".join(map(self._disk_row, self._system.disks.scan())) + "\n")
        elif kind == "volume":
            rows = [self._volume_row(volume) for volume in volumes(self._system)]
            self._out(VOLUME_HEADER + "".join(rows) + "\n")
        else:
            if self._disk is None:
                raise _CommandError(
                    "There is no disk selected to list partitions.\nSelect a disk and try again.\n",
                    SYNTAX,
                )
            disk = self._need_disk()
            partitions = disk.table().partitions
            if not partitions:
                self._out("There are no partitions on this disk to show.\n\n")
                return
            rows = [self._partition_row(disk, item) for item in partitions]
            self._out(PARTITION_HEADER + "".join(rows) + "\n")

    def _disk_row(self, disk):
        mark = "*" if disk is self._disk else " "
        table = table_of(disk)
        used = sum(item.sectors for item in table.partitions)
        extents = mbr.free_extents(table, disk.total_sectors)
        free = (
            sum(end - start for start, end in extents)
            if table.partitions
            else (disk.total_sectors - used)
        )
        status = "Online" if disk.size else "No Media"
        gpt = "*" if table.is_gpt else ""
        return (
            f"{mark} {f'Disk {disk.number}':8}  {status:10}  {size_text(disk.size)}  "
            f"{size_text(free * disk.sector_size)}  {'':3}  {gpt:3}\n"
        )

    def _volume_row(self, volume):
        selected = (
            volume.disk is not None
            and volume.disk is self._disk
            and volume.partition.number == self._partition
        )
        status = "Healthy" if volume.healthy else "Failed"
        return (
            f"{'*' if selected else ' '} {f'Volume {volume.number}':10}   {volume.letter:1}   "
            f"{volume.label[:11]:11}  {volume.fs:5}  {'Partition':10}  {size_text(volume.size)}  "
            f"{status:9}  {volume.info:8}\n"
        )

    def _partition_row(self, disk, partition):
        mark = "*" if partition.number == self._partition else " "
        kind = "Extended" if partition.kind in mbr.TYPES_EXTENDED else "Primary"
        sector = disk.sector_size
        return (
            f"{mark} {f'Partition {partition.number}':13}  {kind:16}  "
            f"{size_text(partition.sectors * sector)}  {size_text(partition.start * sector)}\n"
        )

    def _select(self, words):
        kind = self._object(words, ("disk", "partition", "volume"))
        number = None
        letter = None
        text = "".join(words[1:]).lstrip("=")
        if kind == "volume" and len(text.rstrip(":")) == 1 and text[0].isalpha():
            letter = text[0].upper()
        else:
            number = self._number(words)
        {"disk": self._select_disk, "partition": self._select_partition}.get(
            kind, lambda number: self._select_volume(number, letter)
        )(number)

    def _select_disk(self, number):
        if number is None:
            self._need_disk()
        else:
            disk = self._system.disks.get(number)
            if disk is None:
                self._disk = self._partition = None
                raise _CommandError(
                    "The disk you specified is not valid.\n\nThere is no disk selected.\n", SYNTAX
                )
            self._disk, self._partition = disk, None
        self._out(f"Disk {self._disk.number} is now the selected disk.\n\n")

    def _select_partition(self, number):
        disk = self._need_disk()
        if number is None:
            self._need_partition()
        else:
            if disk.table().get(number) is None:
                self._partition = None
                raise _CommandError(
                    "The specified partition is not valid.\nPlease select a valid partition.\n\n"
                    "There is no partition selected.\n",
                    SYNTAX,
                )
            self._partition = number
        self._out(f"Partition {self._partition} is now the selected partition.\n\n")

    def _select_volume(self, number, letter):
        if number is None and letter is None:
            self._need_partition(NO_VOLUME)
        for volume in volumes(self._system):
            if number is None and letter is None:
                wanted = (
                    volume.disk is self._disk
                    and volume.disk is not None
                    and (volume.partition.number == self._partition)
                )
            else:
                wanted = volume.number == number or (letter and volume.letter == letter)
            if wanted:
                self._disk = volume.disk
                self._partition = volume.partition.number if volume.partition else None
                self._out(f"Volume {volume.number} is the selected volume.\n\n")
                return
        raise _CommandError(
            "The volume you selected is not valid or does not exist.\n\n"
            "There is no volume selected.\n",
            SYNTAX,
        )

    def _detail(self, words):
        kind = self._object(words, ("disk", "partition", "volume"))
        if kind == "disk":
            disk = self._need_disk()
            table = disk.table()
            self._out(
                f"{disk.model}\nDisk ID: {table.signature:08X}\nType   : {disk.interface}\n"
                f"Bus    : 0\nTarget : {disk.number}\nLUN ID : 0\n\n"
            )
            self._volume_table([v for v in volumes(self._system) if v.disk is disk])
        elif kind == "partition":
            disk, _, partition = self._need_partition()
            self._out(
                f"Partition {partition.number}\nType  : {partition.kind:02X}\nHidden: No\n"
                f"Active: {'Yes' if partition.active else 'No'}\n\n"
            )
            self._volume_table(
                [
                    v
                    for v in volumes(self._system)
                    if v.disk is disk and v.partition.number == partition.number
                ]
            )
        else:
            disk, _, _ = self._need_partition(NO_VOLUME)
            self._out(
                DISK_HEADER + self._disk_row(disk) + "\nReadonly               : No\n"
                "Hidden                 : No\nNo Default Drive Letter: No\n"
                "Shadow Copy            : No\n\n"
            )

    def _volume_table(self, found):
        if not found:
            self._out("There are no volumes.\n\n")
            return
        self._out(VOLUME_HEADER + "".join(map(self._volume_row, found)) + "\n")

    def _not_system(self, disk):
        if disk.is_system:
            raise _CommandError(
                "The selected disk is the system disk: this operation is not allowed on the disk "
                "that contains\nthe boot or system volume.\n",
                SERVICE_FAILED,
            )

    def _drop_letters(self, disk, number=None):
        for item in self._system.letters.all():
            if item.disk is disk and number in (None, item.partition):
                self._system.letters.remove(item)

    def _clean(self, words):
        if words not in ([], ["all"]):
            raise _CommandError(BAD_ARGUMENTS, BAD_PARAMETERS)
        disk = self._need_disk()
        self._not_system(disk)
        self._drop_letters(disk)
        length = disk.size if words else min(mbr.HIDDEN_SECTORS * disk.sector_size, disk.size)
        chunk = bytes(1 << 20)
        for offset in range(0, length, len(chunk)):
            self._ctx.check()
            disk.write(offset, chunk[: length - offset])
        self._system.host.reread_partitions(disk.device)
        self._partition = None
        self._out("DiskPart succeeded in cleaning the disk.\n\n")

    def _options(self, words, known):
        """``name=value`` words and bare ones."""
        options = {}
        for word in words:
            name, equals, value = word.partition("=")
            if name not in known or (known[name] != bool(equals)):
                raise _CommandError(BAD_ARGUMENTS, BAD_PARAMETERS)
            options[name] = value
        return options

    def _megabytes(self, options, name):
        if name not in options:
            return None
        if not options[name].isdigit() or not int(options[name]):
            raise _CommandError(BAD_ARGUMENTS, BAD_PARAMETERS)
        return int(options[name]) << 20

    def _create(self, words):
        if (
            len(words) < 2
            or not "partition".startswith(words[0])
            or not (len(words[1]) >= 3 and "primary".startswith(words[1]))
        ):
            raise _CommandError(BAD_ARGUMENTS, SYNTAX)
        options = self._options(words[2:], {"size": True})
        disk = self._need_disk()
        self._not_system(disk)
        table = disk.table()
        if table.is_gpt:
            raise _CommandError("The selected disk is not a fixed MBR disk.\n", SYNTAX)
        if not table.signature:
            table = mbr.Table(int.from_bytes(os.urandom(4), "little") | 1, table.partitions)
        size = self._megabytes(options, "size")
        sectors = None if size is None else -(-size // disk.sector_size)
        partition = mbr.allocate(table, disk.total_sectors, sectors)
        if partition is None:
            raise _CommandError(
                "DiskPart was unable to create the specified partition.\n\n"
                "There is not enough usable free space on specified disk(s) to create the "
                "partition.\n",
                SERVICE_FAILED,
            )
        table.partitions.append(partition)
        disk.write_table(table, self._system.host)
        self._partition = partition.number
        self._out("DiskPart succeeded in creating the specified partition.\n\n")

    def _delete(self, words):
        kind = self._object(words[:1], ("partition", "volume"))
        if words[1:] not in ([], ["override"]):
            raise _CommandError(BAD_ARGUMENTS, BAD_PARAMETERS)
        disk, table, partition = self._need_partition(
            NO_PARTITION if kind == "partition" else NO_VOLUME
        )
        self._not_system(disk)
        self._drop_letters(disk, partition.number)
        table.partitions.remove(partition)
        disk.write_table(table, self._system.host)
        self._partition = None
        self._out(f"DiskPart successfully deleted the selected {kind}.\n\n")

    def _extend(self, words):
        options = self._options(words, {"size": True})
        disk, table, partition = self._need_partition(NO_VOLUME)
        gap = next(
            (
                gap
                for gap in mbr.free_extents(table, disk.total_sectors)
                if gap[0] <= partition.end < gap[1] or gap[0] == partition.end
            ),
            None,
        )
        size = self._megabytes(options, "size")
        room = 0 if gap is None else gap[1] - partition.end
        wanted = room if size is None else -(-size // disk.sector_size)
        letter = self._system.letters.of(disk, partition.number)
        if not wanted or wanted > room or (letter is not None and letter.mounted):
            # Only a RAW partition is extended: growing NTFS is not part of the stand-in.
            raise _CommandError(
                "The volume you have selected may not be extended.\n"
                "Please select another volume and try again.\n",
                SERVICE_FAILED,
            )
        end = -(-(partition.end + wanted) // mbr.CYLINDER) * mbr.CYLINDER
        partition.sectors = min(end, gap[1]) - partition.start
        disk.write_table(table, self._system.host)
        self._out("DiskPart successfully extended the volume.\n\n")

    def _assign(self, words):
        options = self._options(words, {"letter": True})
        disk, table, partition = self._need_partition(NO_VOLUME)
        self._not_system(disk)
        letters = self._system.letters
        letter = options.get("letter", letters.free()).rstrip(":").upper()
        current = letters.of(disk, partition.number)
        if current is None or current.letter != letter:
            if len(letter) != 1 or letter not in FREE_LETTERS or letters.get(letter):
                raise _CommandError(
                    "The specified drive letter is not free to be assigned.\n", SERVICE_FAILED
                )
            letters.assign(letter, disk, table, partition)
        self._out("DiskPart successfully assigned the drive letter or mount point.\n\n")

    def _remove(self, words):
        options = self._options(words, {"letter": True, "all": False, "dismount": False})
        disk, _, partition = self._need_partition(NO_VOLUME)
        item = self._system.letters.of(disk, partition.number)
        letter = options.get("letter", item.letter if item else "").rstrip(":").upper()
        if item is None or item.letter != letter:
            raise _CommandError(
                "DiskPart could not find the drive letter or mount point on the selected volume.\n",
                SERVICE_FAILED,
            )
        self._system.letters.remove(item)
        self._out("DiskPart successfully removed the drive letter or mount point.\n\n")
