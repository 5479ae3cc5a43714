"""diskio.exe: raw disk reads and writes with a pattern that says where each sector belongs.

No Windows tool: the lab's own (``lab/guest/diskio.py`` describes its command line, output and
pattern). It goes around caches and file systems, so that what it is told is what the disk
driver answered.
"""

import ctypes
import errno
import mmap
import os
import random
import struct
import threading
import time

from standin.console import FileOutput
from standin.errors import win32_code, win32_text

SECTOR = 512
TABLE_MASK = 4095
LINES = 20
"""Errors and mismatches that are printed; all are counted."""

EOF = 38
"""ERROR_HANDLE_EOF."""

USAGE = """Usage:
    diskio size DISK
    diskio write|verify|run|bench DISK /first:N /count:N [/gen:N] [/gens:N] [/seed:N]
           [/block:N] [/threads:N] [/order:seq|random] [/shift] [/overlapped] [/flush] [/ops:N]
           [/op:read|write] [/until:FILE] [/log:FILE]
    diskio flush DISK
"""

DEFAULTS = {
    "first": 0,
    "count": 0,
    "gen": 1,
    "gens": 1,
    "seed": 1,
    "block": 128,
    "threads": 1,
    "ops": 0,
}


def _table():
    value = 0x9E3779B9
    found = bytearray()
    for _ in range(TABLE_MASK + 1 + SECTOR):
        value ^= value << 13 & 0xFFFFFFFF
        value ^= value >> 17
        value ^= value << 5 & 0xFFFFFFFF
        found.append(value >> 24)
    return bytes(found)


TABLE = _table()


def sectors(first, count, gen, seed):
    """The pattern of ``count`` sectors from ``first`` on."""
    pack = struct.Struct("<IIQ").pack
    base = gen * 17 + seed * 7
    parts = []
    for lba in range(first, first + count):
        at = (lba * 31 + base) & TABLE_MASK
        parts.append(pack(seed, gen, lba))
        parts.append(TABLE[at : at + 496])
    return b"".join(parts)


def describe(data, lba):
    """What a sector holds instead of what it should."""
    if not any(data):
        return "zeroes"
    seed, gen, found = struct.unpack_from("<IIQ", data)
    if data == sectors(found, 1, gen, seed):
        return f"sector:{found},gen:{gen},seed:{seed}"
    if (found, data[16:]) == (lba, sectors(lba, 1, gen, seed)[16:]):
        return f"header-damaged,gen:{gen}"
    return "damaged" if found == lba else "foreign:" + data[:16].hex()


class Overlapped:
    """Requests that are under way while nobody is in a system call for them.

    A thread that waits in a read or write cannot be frozen, so a guest that is being saved lets
    it finish first; one that waits for the end of an asynchronous request can, and its request
    is then under way in the saved guest. One request at a time; not for several threads.

    Numbers and layouts: Linux, arch/x86/entry/syscalls, include/uapi/linux/aio_abi.h.
    """

    # io_setup, io_destroy, io_getevents, io_submit
    CALLS = (245, 246, 247, 248) if ctypes.sizeof(ctypes.c_void_p) == 4 else (206, 207, 208, 209)
    READ, WRITE = 0, 1
    # aio_data, aio_key and aio_rw_flags, aio_lio_opcode, aio_reqprio, aio_fildes, aio_buf,
    # aio_nbytes, aio_offset, aio_reserved2, aio_flags, aio_resfd
    IOCB = struct.Struct("<QIIHhIQQqQII")
    # data, obj, res, res2
    EVENT = struct.Struct("<QQqq")

    def __init__(self):
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._context = ctypes.c_ulong(0)
        self._call(0, 1, ctypes.byref(self._context))

    def _call(self, which, *arguments):
        done = self._libc.syscall(self.CALLS[which], *arguments)
        if done < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return done

    def transfer(self, op, fd, buffer, offset):
        """Bytes that one request moved.

        Raises:
            OSError: it failed.
        """
        code = self.WRITE if op == "write" else self.READ
        place = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        fields = (0, 0, 0, code, 0, fd, ctypes.addressof(place), len(buffer), offset, 0, 0, 0)
        request = ctypes.create_string_buffer(self.IOCB.pack(*fields), self.IOCB.size)
        requests = (ctypes.c_void_p * 1)(ctypes.addressof(request))
        event = ctypes.create_string_buffer(self.EVENT.size)
        try:
            self._call(3, self._context, ctypes.c_long(1), requests)
            while True:
                try:
                    if self._call(
                        2, self._context, ctypes.c_long(1), ctypes.c_long(1), event, None
                    ):
                        break
                except InterruptedError:
                    continue  # frozen and thawed
        finally:
            del place
        moved = self.EVENT.unpack(event.raw)[2]
        if moved < 0:
            raise OSError(-moved, os.strerror(-moved))
        return moved

    def close(self):
        self._call(1, self._context)


class Job:
    """One invocation's work on one disk."""

    def __init__(self, ctx, options, device, log):
        self.ctx = ctx
        self.seed = options["seed"]
        self.block = max(1, options["block"])
        self.threads = max(1, options["threads"])
        self.random = options["order"] == "random"
        self.shift = options["shift"]
        self.overlapped = options["overlapped"]
        self.errors = 0
        self.mismatches = 0
        self.requests = 0
        self._device = device
        self._log = log
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._fds = {}

    def say(self, text):
        self.ctx.out(text + "\n")
        if self._log is not None:
            self._log.write(text.encode() + b"\r\n")

    def close(self):
        for fd in self._fds.values():
            os.close(fd)

    def open(self, writing):
        """The disk past the kernel's cache, where the kernel lets one."""
        if writing not in self._fds:
            flags = (os.O_RDWR if writing else os.O_RDONLY) | os.O_CLOEXEC
            try:
                self._fds[writing] = os.open(self._device, flags | os.O_DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._fds[writing] = os.open(self._device, flags)
        return self._fds[writing]

    def pieces(self, first, count, rng):
        """The range cut into requests: all of one size, or of random sizes in random order."""
        found = []
        at = first
        while at < first + count:
            size = rng.randint(1, self.block) if self.random else self.block
            size = min(size, first + count - at)
            found.append((at, size))
            at += size
        if self.random:
            rng.shuffle(found)
        return found

    def each(self, pieces, act, writing):
        """Call ``act(fd, buffer, rng, first, count)`` for all pieces, from several threads."""
        fd = self.open(writing)
        todo = iter(pieces)
        crashed = []

        def work(number):
            rng = random.Random(self.seed * 1000 + number)
            memory = mmap.mmap(-1, (self.block + 8) * SECTOR)
            overlapped = None
            try:
                if self.overlapped:
                    overlapped = self._mine.overlapped = Overlapped()
                while not self.ctx.process.ended:
                    with self._lock:
                        piece = next(todo, None)
                        if piece is None:
                            return
                        self.requests += 1
                    # Buffers that start in the middle of a page, as callers' buffers may.
                    start = rng.randrange(8) * SECTOR if self.shift else 0
                    end = start + piece[1] * SECTOR
                    with memoryview(memory) as view, view[start:end] as buffer:
                        act(fd, buffer, *piece)
            except Exception as error:  # raised again by the thread that waits
                crashed.append(error)
            finally:
                if overlapped is not None:
                    overlapped.close()

        workers = [
            threading.Thread(target=work, args=(number,), daemon=True)
            for number in range(1, self.threads)
        ]
        for worker in workers:
            worker.start()
        work(0)
        for worker in workers:
            worker.join()
        if crashed:
            raise crashed[0]
        self.ctx.check()

    def failed(self, op, first, count, code):
        with self._lock:
            self.errors += 1
            if self.errors <= LINES:
                self.say(f"error op={op} first={first} count={count} code={code}")

    def transfer(self, op, fd, buffer, first, count):
        """One request; whether it was answered with success, and whole."""
        try:
            if self.overlapped:
                done = self._mine.overlapped.transfer(op, fd, buffer, first * SECTOR)
            else:
                call = os.pwritev if op == "write" else os.preadv
                done = call(fd, [buffer], first * SECTOR)
        except OSError as error:
            self.failed(op, first, count, win32_code(error))
            return False
        if done != count * SECTOR:
            self.failed(op, first, count, EOF)
            return False
        return True

    def write(self, first, count, gen, rng):
        def act(fd, buffer, at, size):
            buffer[:] = sectors(at, size, gen, self.seed)
            self.transfer("write", fd, buffer, at, size)

        self.each(self.pieces(first, count, rng), act, True)

    def verify(self, first, count, gen, rng):
        def act(fd, buffer, at, size):
            # A request that is answered without touching the buffer must not look right.
            buffer[:] = b"\xa5" * len(buffer)
            if not self.transfer("read", fd, buffer, at, size):
                return
            wanted = sectors(at, size, gen, self.seed)
            if buffer == wanted:
                return
            for index in range(size):
                got = bytes(buffer[index * SECTOR : (index + 1) * SECTOR])
                if got != wanted[index * SECTOR : (index + 1) * SECTOR]:
                    with self._lock:
                        self.mismatches += 1
                        if self.mismatches <= LINES:
                            found = describe(got, at + index)
                            self.say(f"mismatch sector={at + index} gen={gen} found={found}")

        self.each(self.pieces(first, count, rng), act, False)

    def flush(self):
        try:
            os.fsync(self.open(True))
        except OSError as error:
            self.failed("flush", 0, 0, win32_code(error))

    def bench(self, op, first, count, ops, rng):
        blocks = count // self.block
        if self.random:
            found = [(first + rng.randrange(blocks) * self.block, self.block) for _ in range(ops)]
        else:
            found = [(first + n % blocks * self.block, self.block) for n in range(ops)]

        def act(fd, buffer, at, size):
            self.transfer(op, fd, buffer, at, size)

        self.each(found, act, op == "write")


def _options(words):
    found = {**DEFAULTS, "order": "seq", "op": "read", "shift": False, "flush": False}
    found["overlapped"] = False
    found.update(until=None, log=None)
    for word in words:
        name, _, value = word.lstrip("/").partition(":")
        name = name.lower()
        if name in ("shift", "overlapped", "flush"):
            found[name] = True
        elif name in DEFAULTS:
            found[name] = int(value)
        elif name in ("order", "op", "until", "log"):
            found[name] = value
        else:
            raise ValueError(word)
    return found


def run(ctx):
    """``diskio VERB DISK ...``: 0 done, 1 the disk refused, 2 wrong data, 3 wrong usage."""
    words = ctx.args
    try:
        verb, number = words[0].lower(), int(words[1])
        options = _options(words[2:])
        if verb not in ("size", "write", "verify", "run", "bench", "flush"):
            raise ValueError(verb)
    except (IndexError, ValueError):
        ctx.err(USAGE)
        return 3
    disk = ctx.system.disks.get(number)
    if disk is None:
        ctx.err(f"diskio: disk {number}: The system cannot find the file specified.\n")
        return 1
    if disk.is_system and (verb in ("write", "run") or options["op"] == "write"):
        ctx.err(f"diskio: disk {number}: this is the system's disk\n")
        return 3
    log = FileOutput(ctx.path(options["log"])) if options["log"] else None
    disk.keep_requests_apart()
    job = Job(ctx, options, disk.device, log)
    try:
        return _work(ctx, verb, options, disk, job)
    except OSError as error:
        job.say(f"error op=open first=0 count=0 code={win32_code(error)}")
        ctx.err(f"diskio: disk {number}: {win32_text(error)}\n")
        job.say("done errors=1 mismatches=0 requests=0 ms=0")
        return 1
    finally:
        job.close()
        if log is not None:
            log.close()


def _work(ctx, verb, options, disk, job):
    first, count = options["first"], options["count"]
    rng = random.Random(options["seed"])
    if verb == "size":
        fd = job.open(False)
        size = os.lseek(fd, 0, os.SEEK_END)
        job.say(f"bytes={size} sector={disk.sector_size}")
        return 0
    began = time.monotonic()
    if verb == "write":
        job.write(first, count, options["gen"], rng)
    elif verb == "verify":
        job.verify(first, count, options["gen"], rng)
    elif verb == "bench":
        job.bench(options["op"], first, count, options["ops"], rng)
    elif verb == "run":
        until = ctx.path(options["until"]) if options["until"] else None
        gen = options["gen"]
        last = gen + options["gens"] - 1
        while True:
            job.write(first, count, gen, rng)
            job.flush()
            job.verify(first, count, gen, rng)
            job.say(f"generation={gen}")
            if job.errors or job.mismatches or gen >= last:
                break
            if until is not None and os.path.exists(until):
                break
            gen += 1
    if verb == "flush" or options["flush"]:
        job.flush()
    ms = int((time.monotonic() - began) * 1000)
    job.say(f"done errors={job.errors} mismatches={job.mismatches} requests={job.requests} ms={ms}")
    return 2 if job.mismatches else 1 if job.errors else 0
