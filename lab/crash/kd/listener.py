"""Listening to a guest's kernel debugger: what it prints, loads and dies of, at the instant.

The guest is started with ``/debug /debugport=com1 /baudrate=115200`` in its boot.ini, and its
serial port is the stream. It waits for this end at every stop and every loaded module, so a
listener that goes away leaves it waiting; prints alone give up by themselves.
"""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, PvlabError
from lab.crash.facts import CrashFact
from lab.crash.kd import messages
from lab.crash.kd.events import (
    Bugcheck,
    Closed,
    DebugPrint,
    Event,
    GoingDown,
    Left,
    Lost,
    ModuleLoad,
    Prompt,
    Resumed,
    Stack,
    Stop,
    Stray,
    System,
)
from lab.crash.kd.link import Delivery, Link, Received
from lab.crash.kd.messages import BadMessage, ExceptionChange, Reply, SymbolsChange
from lab.crash.kd.packets import BREAK_IN, Noise, Packet, Type
from lab.crash.kd.report import CrashTeller, fatal_error
from lab.crash.kd.stream import SerialStream, wait_ready

E = TypeVar("E", bound=Event)

BUGCHECK_SECOND = 4
"""DBG_STATUS_BUGCHECK_SECOND, in the first argument's register of the breakpoint after a
bugcheck that is all over: resumed, the guest would stop there for ever. Source: wdm.h."""

MAX_EVENTS = 100_000
"""Events that a listener keeps in memory; its sinks see all."""

_STRAY = 4096  # bytes outside of packets told in one event
_TAIL = 1024  # characters kept of what was printed, to find what comes in pieces
_ROUNDS = 20  # stops in a row at one place, after which resuming leads nowhere
_DRAIN_S = 1.0
_STACK = 8192  # most bytes of it that are read: a kernel stack has 12 KiB
_MODULES = 512  # most modules read out of a stopped guest


@dataclass(frozen=True, slots=True)
class Manners:
    """How a listener treats the guest.

    Attributes:
        resume: let it run on after exceptions and bugchecks, so that it writes its dump and
            reboots; otherwise it is left halted for somebody to look at. After a loaded module
            it always runs on.
        inspect: ask a guest that crashed for its version, bugcheck data and modules.
        answer: what its questions are answered with; ``i`` ignores a failed assertion.
        resend_s: seconds without an acknowledgement after which a packet is repeated.
        stall_s: seconds of silence after which the rest of a begun packet counts as lost.
        reply_s: seconds in which the stopped guest has to answer a request.
    """

    resume: bool = False
    inspect: bool = True
    answer: str = "i"
    resend_s: float = 1.0
    stall_s: float = 1.0
    reply_s: float = 20.0


class KdListener:
    """Listens in a thread of its own while it is entered.

    Args:
        stream: the guest's serial port.
        manners: how to treat the guest.
        sinks: each is called with each event, in the listener's thread.
        file: what the line is called in the facts' sources.
    """

    def __init__(
        self,
        stream: SerialStream,
        manners: Manners | None = None,
        *,
        sinks: Sequence[Callable[[Event], None]] = (),
        file: str = "serial",
    ) -> None:
        self._stream = stream
        self._manners = manners or Manners()
        self._sinks = tuple(sinks)
        self._news = threading.Condition()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._heard = 0
        self._teller = CrashTeller(file)
        self._done = False
        self._failure: PvlabError | None = None
        self._orders: deque[str] = deque()
        self._wake_read, self._wake_write = -1, -1
        self._thread = threading.Thread(target=self._run, name="kd-listener", daemon=True)
        self._worker = _Worker(self._stream, self._manners, self._tell)

    def __enter__(self) -> KdListener:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stopping = True
        self._order("stop")
        self._thread.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def events(self) -> tuple[Event, ...]:
        """What was seen up to now, in order; the last ``MAX_EVENTS``."""
        with self._news:
            return tuple(self._events)

    def facts(self) -> list[CrashFact]:
        """The crashes seen up to now."""
        with self._news:
            return self._teller.facts()

    def resume(self) -> None:
        """Let a guest that was left halted run on; without one this does nothing."""
        self._order("resume")

    def break_in(self) -> None:
        """Ask a running guest to stop, which also makes it notice this listener."""
        self._order("break in")

    def wait_for(
        self,
        kind: type[E],
        deadline: Deadline,
        *,
        where: Callable[[E], bool] = lambda _: True,
        after: int = 0,
    ) -> E:
        """Wait until something was seen.

        Args:
            kind: which event.
            deadline: when to give up.
            where: has to hold for it.
            after: how many events, from the first, do not count.

        Returns:
            The first such event; it may have come already.

        Raises:
            DeadlineExpired: it did not come.
            LabBroken: the line was closed, or could not be read.
        """
        wanted = f"{kind.__name__} from the guest's kernel debugger"
        seen = after
        with self._news:
            while True:
                gone = self._heard - len(self._events)
                for event in itertools.islice(self._events, max(0, seen - gone), None):
                    if isinstance(event, kind) and where(event):
                        return event
                seen = max(seen, self._heard)
                if self._failure is not None:
                    raise self._failure
                if self._done:
                    raise LabBroken(f"the serial line was closed, waiting for {wanted}")
                if deadline.expired:
                    last = type(self._events[-1]).__name__ if self._events else ""
                    raise deadline.expire(wanted, last)
                self._news.wait(deadline.remaining)

    def wait_closed(self, deadline: Deadline) -> bool:
        """Wait until the line is closed; False when the deadline came first.

        Raises:
            LabBroken: the line could not be read, or an event not be recorded.
        """
        with self._news:
            while not self._done and not deadline.expired:
                self._news.wait(min(deadline.remaining, threading.TIMEOUT_MAX))
            if self._failure is not None:
                raise self._failure
            return self._done

    def _order(self, word: str) -> None:
        self._orders.append(word)
        os.write(self._wake_write, b"\0")

    def _tell(self, event: Event) -> None:
        with self._news:
            self._events.append(event)
            self._heard += 1
            self._teller.hear(event)
            self._news.notify_all()
        for sink in self._sinks:
            try:
                sink(event)
            except OSError as error:
                raise LabBroken(
                    f"the kernel debugger's record cannot be written: {error.strerror}"
                ) from error

    def _run(self) -> None:
        try:
            while not self._worker.closed:
                woken = self._worker.step(self._wake_read)
                if self._worker.stopping:
                    self._worker.drain(Deadline(_DRAIN_S))
                    return
                while woken and self._orders:
                    self._worker.obey(self._orders.popleft())
        except PvlabError as error:
            self._failure = error
        except Exception as error:
            self._failure = LabBroken(f"the kernel debugger's listener failed: {error!r}")
            raise
        finally:
            with self._news:
                self._done = True
                self._news.notify_all()


class _Unanswered(Exception):
    """The stopped guest did not answer, or said something else."""


def _reply(packet: Packet) -> Reply:
    try:
        return messages.reply(packet.data)
    except BadMessage as error:
        raise _Unanswered(str(error)) from None


class _Worker:
    """The conversation with the guest; everything here runs in the listener's thread."""

    def __init__(
        self, stream: SerialStream, manners: Manners, tell: Callable[[Event], None]
    ) -> None:
        self._stream = stream
        self._manners = manners
        self._tell = tell
        self._link = Link(resend_s=manners.resend_s, stall_s=manners.stall_s)
        self._output = bytearray()
        self._received: deque[Received] = deque()
        self._stray = bytearray()
        self._tail = ""
        self._told: tuple[int, tuple[int, ...]] | None = None
        self._halted: ExceptionChange | None = None
        self._context = b""
        self._announced: bytes | None = None  # the state change the guest waits at
        self._disturbed = 0  # of the link, up to its announcement
        self._status = messages.DBG_CONTINUE
        self._modules_known = False
        self._wake = -1
        self._woken = False
        self._place: tuple[int, int] = (0, 0)  # program counter of the last stop, how often
        self._inspected = False
        self.closed = False
        self.stopping = False

    def step(self, wake: int) -> bool:
        """Wait for something to happen and deal with it; whether it was ``wake``."""
        self._wake = wake
        self._pump(None)
        while self._received:
            self._deal(self._received.popleft())
        woken, self._woken = self._woken, False
        return woken

    def drain(self, deadline: Deadline) -> None:
        """Let what was begun reach the guest: it may wait for it."""
        while (self._output or not self._link.idle) and not (deadline.expired or self.closed):
            self._pump(deadline.remaining)
        self._tell_stray(len(self._stray))

    def obey(self, word: str) -> None:
        """Do what the listener's owner wants."""
        if word == "break in":
            self._output += BREAK_IN
        elif word == "resume" and self._halted is not None:
            self._run_on(self._halted)

    def _pump(self, seconds: float | None) -> None:
        """One write, one sleep, one read. Sets ``closed`` at the end of the line.

        Writing comes first, so that what was read is recorded before it is acknowledged.
        """
        due = self._link.timeout(time.monotonic())
        sleep = min((one for one in (due, seconds) if one is not None), default=None)
        self._output += self._link.output()
        if self._output:
            del self._output[: self._stream.write(bytes(self._output))]
        line, woken = wait_ready(self._stream, self._wake, bool(self._output), sleep)
        if woken:
            os.read(self._wake, 64)
            self._woken = True
        now = time.monotonic()
        if line:
            data = self._stream.read()
            if data is None:
                self.closed = True
                self._tell_stray(len(self._stray))
                self._tell(Closed(time.time()))
                return
            self._received += self._link.feed(data, now)
        self._received += self._link.poll(now)

    def _deal(self, item: Received) -> None:
        if isinstance(item, Noise):
            self._stray += item.data
            while (end := self._stray.find(b"\n") + 1) or len(self._stray) > _STRAY:
                self._tell_stray(min(end or _STRAY, _STRAY))
        elif isinstance(item, Delivery):
            self._tell_stray(len(self._stray))
            try:
                self._deal_packet(item)
            except BadMessage as error:
                self._tell(Lost(time.time(), f"{item.packet.type.name}: {error}"))
        else:
            self._tell(Lost(time.time(), item.reason))

    def _tell_stray(self, size: int) -> None:
        part = self._stray[:size]
        del self._stray[:size]
        if part:
            text = "".join(re.findall(r"[\t\n\r -~]+", part.decode("latin-1")))
            self._tell(Stray(time.time(), text, len(part)))

    def _deal_packet(self, item: Delivery) -> None:
        packet = item.packet
        if packet.type not in (Type.STATE_CHANGE64, Type.STATE_MANIPULATE):
            # The guest waits silently at a stop, so it must have been continued.
            self._halted = None
            self._announced = None
        if packet.type is Type.DEBUG_IO:
            self._debug_io(packet.data)
        elif packet.type is Type.STATE_CHANGE64:
            self._state_change(item)
        elif packet.type is Type.FILE_IO:
            self._send(Type.FILE_IO, messages.file_io_refused(packet.data))
        elif packet.type is not Type.STATE_MANIPULATE:
            self._tell(Lost(time.time(), f"nothing is known of {packet.type.name} packets"))

    def _send(self, kind: Type, data: bytes) -> None:
        self._link.send(kind, data, time.monotonic())

    def _debug_io(self, data: bytes) -> None:
        said = messages.debug_io(data)
        if said.wanted is not None:
            self._send(Type.DEBUG_IO, messages.answer_string(data, self._manners.answer))
            self._tell(Prompt(time.time(), said.text, self._manners.answer[: said.wanted]))
            return
        self._place = (0, 0)
        self._tell(DebugPrint(time.time(), said.text, said.processor))
        self._tail = (self._tail + said.text)[-_TAIL:]
        found = fatal_error(self._tail)
        if found is not None and found[1]:
            self._tail = ""
            self._bugcheck(*found, heard="print")

    def _bugcheck(self, code: int, parameters: tuple[int, ...], heard: str) -> None:
        if self._told != (code, parameters):
            self._told = (code, parameters)
            self._inspected = False
            self._tell(Bugcheck(time.time(), code, parameters, heard))

    def _state_change(self, item: Delivery) -> None:
        data = item.packet.data
        if self._repeated(item):
            if self._halted is None and self._link.idle:
                # What let it run on was not understood.
                self._continue(messages.state_change(data), self._status)
            return
        change = messages.state_change(data)
        self._announced = data
        self._disturbed = item.disturbed
        if isinstance(change, SymbolsChange):
            self._symbols(change)
        else:
            self._stop(change)

    def _repeated(self, item: Delivery) -> bool:
        """Whether a state change is only said again, as the line was disturbed."""
        if item.packet.data != self._announced or self._disturbed == item.disturbed:
            return False
        self._disturbed = item.disturbed
        return True

    def _symbols(self, change: SymbolsChange) -> None:
        self._halted = None
        self._continue(change, messages.DBG_CONTINUE)
        now = time.time()
        if change.everything:
            self._told = None
            self._modules_known = False
            self._tell(GoingDown(now))
        else:
            if not change.unload:
                # No module is loaded between a bugcheck and the reboot.
                self._told = None
                self._modules_known |= _KERNEL.search(change.path) is not None
            base = change.base if change.wide else change.base & 0xFFFFFFFF
            self._tell(
                ModuleLoad(now, change.path, base, change.size, change.checksum, change.unload)
            )

    def _stop(self, change: ExceptionChange) -> None:
        """Tell of a stop, look at the guest, and let it run on if that is wanted."""
        at = time.time()
        self._halted = change
        # What was printed before a stop is complete, with or without its parameters.
        found = fatal_error(self._tail)
        self._tail = ""
        mask = 0xFFFFFFFFFFFFFFFF if change.wide else 0xFFFFFFFF
        stop = Stop(
            at,
            change.code,
            change.address & mask,
            tuple(one & mask for one in change.parameters),
            change.first_chance,
            change.pc & mask,
            change.processor,
            change.wide,
            {},
        )
        self._context = b""
        try:
            self._context = self._ask(messages.request(messages.GET_CONTEXT, change.processor)).data
            stop = replace(stop, registers=messages.registers(self._context, change.wide))
        except _Unanswered as error:
            self._tell(Lost(time.time(), f"the guest's registers: {error}"))
        self._tell(stop)
        look = self._manners.inspect and not self._inspected and self._halted is change
        if look and change.code in _BREAK_CODES:
            self._inspect(change)
        if found is not None and self._told is None:
            self._bugcheck(*found, heard="print")
        if self._halted is not change or self.closed or self.stopping:
            return
        if reason := self._why_not(stop):
            self._tell(Left(time.time(), reason))
        else:
            self._run_on(change)

    def _why_not(self, stop: Stop) -> str:
        """Why a stopped guest is not resumed; empty when it is."""
        if not self._manners.resume:
            return "not told to resume it"
        argument = stop.registers.get("rcx" if stop.wide else "eax")
        if self._told and stop.code in _BREAK_CODES and argument == BUGCHECK_SECOND:
            return "the bugcheck is over"
        place, rounds = self._place
        self._place = (stop.pc, rounds + 1 if place == stop.pc else 1)
        if self._place[1] > _ROUNDS:
            return f"it stopped {_ROUNDS} times in a row at 0x{stop.pc:x}"
        return ""

    def _run_on(self, change: ExceptionChange) -> None:
        """Continue a stopped guest; a breakpoint of its own code is stepped over."""
        handled = change.code in _BREAK_CODES
        hard = change.code == messages.STATUS_BREAKPOINT and change.instructions[:1] == _INT3
        if hard and messages.registers(self._context, change.wide):
            moved = messages.behind_breakpoint(self._context, change.wide)
            try:
                self._ask(messages.set_context(change.processor, moved, change.wide))
            except _Unanswered as error:
                self._tell(Lost(time.time(), f"stepping over a breakpoint: {error}"))
                return
        if self._halted is not change:
            return
        self._halted = None
        self._continue(
            change, messages.DBG_CONTINUE if handled else messages.DBG_EXCEPTION_NOT_HANDLED
        )
        self._tell(Resumed(time.time(), handled))

    def _continue(self, change: messages.StateChange, status: int) -> None:
        self._status = status
        processor = change.processor if isinstance(change, ExceptionChange) else 0
        self._send(Type.STATE_MANIPULATE, messages.continue2(processor, status, change))

    def _ask(self, question: bytes) -> Reply:
        """Ask the stopped guest something.

        Raises:
            _Unanswered: it did not answer in time, refused, or went on.
        """
        self._send(Type.STATE_MANIPULATE, question)
        deadline = Deadline(self._manners.reply_s)
        wanted = int.from_bytes(question[:4], "little")
        while not (deadline.expired or self.closed or self.stopping):
            while self._received:
                item = self._received.popleft()
                if not isinstance(item, Delivery):
                    self._deal(item)
                elif item.packet.type is Type.STATE_MANIPULATE:
                    answer = _reply(item.packet)
                    if answer.api == wanted and answer.good:
                        return answer
                    if answer.api == wanted:
                        raise _Unanswered(f"status 0x{answer.status:08x}")
                elif item.packet.type is Type.STATE_CHANGE64 and self._repeated(item):
                    if self._link.idle:
                        # It took the question, or we took it back, before it started anew.
                        self._send(Type.STATE_MANIPULATE, question)
                else:
                    self._received.appendleft(item)
                    self._halted = None
                    self._link.forget_sent()
                    raise _Unanswered("it went on by itself")
            self._pump(deadline.remaining)
        self._link.forget_sent()
        raise _Unanswered("no answer")

    def _memory(self, change: ExceptionChange, address: int, size: int) -> bytes:
        data = b""
        while len(data) < size:
            count = min(size - len(data), messages.MAX_READ)
            place = address + len(data) & 0xFFFFFFFFFFFFFFFF
            answer = self._ask(messages.read_memory(change.processor, place, count))
            told, part = messages.memory_read(answer)
            if not part or told != place:
                raise _Unanswered(f"no memory at 0x{place:x}")
            data += part[:count]
        return data

    def _pointers(self, change: ExceptionChange, address: int, count: int) -> tuple[int, ...]:
        width = 8 if change.wide else 4
        data = self._memory(change, address, width * count)
        return tuple(
            _extended(int.from_bytes(data[at : at + width], "little"), change.wide)
            for at in range(0, len(data), width)
        )

    def _inspect(self, change: ExceptionChange) -> None:
        """Read version, bugcheck data and modules out of a stopped guest."""
        self._inspected = True
        try:
            answer = self._ask(messages.request(messages.GET_VERSION, change.processor))
            version = messages.version(answer)
            self._tell(System(time.time(), version.build, version.machine == _WIDE_MACHINE))
            self._read_bugcheck(change, version)
            if not self._modules_known:
                self._read_modules(change, version)
                self._modules_known = True
            if self._told and not change.wide:
                self._read_stack(change)
        except _Unanswered as error:
            self._tell(Lost(time.time(), f"the stopped guest's memory: {error}"))

    def _read_bugcheck(self, change: ExceptionChange, version: messages.Version) -> None:
        if not version.debugger_data:
            return
        (block,) = self._pointers(change, version.debugger_data, 1)
        data = self._memory(change, block, _BUGCHECK_DATA + 8)
        if data[_TAG : _TAG + 4] != b"KDBG":
            raise _Unanswered("no debugger data block")
        address = int.from_bytes(data[_BUGCHECK_DATA:], "little")
        if not change.wide:
            address = _extended(address & 0xFFFFFFFF, wide=False)
        code, *parameters = self._pointers(change, address, 5)
        mask = 0xFFFFFFFFFFFFFFFF if change.wide else 0xFFFFFFFF
        values = tuple(one & mask for one in parameters)
        if code and self._told is None:
            self._bugcheck(code & 0xFFFFFFFF, values, heard="memory")
            self._inspected = True

    def _read_stack(self, change: ExceptionChange) -> None:
        base = messages.registers(self._context, wide=False).get("esp", 0)
        data = b""
        while base and len(data) < _STACK:
            place = _extended(base + len(data), wide=False)
            try:
                data += self._memory(change, place, messages.MAX_READ - place % messages.MAX_READ)
            except _Unanswered:
                break  # the stack's upper end
        if data:
            self._tell(Stack(time.time(), base, data.hex()))

    def _read_modules(self, change: ExceptionChange, version: messages.Version) -> None:
        if not version.modules:
            return
        head = version.modules if change.wide else _extended(version.modules & 0xFFFFFFFF, False)
        layout = _LOADER64 if change.wide else _LOADER32
        (entry,) = self._pointers(change, head, 1)
        for _ in range(_MODULES):
            if entry == head:
                return
            data = self._memory(change, entry, layout.size)
            module = layout.read(data)
            name = self._memory(change, module.name, min(module.name_size, _LONGEST_NAME))
            mask = 0xFFFFFFFFFFFFFFFF if change.wide else 0xFFFFFFFF
            path = name.decode("utf-16-le", "replace")
            self._tell(
                ModuleLoad(time.time(), path, module.base & mask, module.size, 0, unloaded=False)
            )
            entry = module.next


_KERNEL = re.compile(r"\bnt(?:os)?kr[a-z]+\.exe$", re.IGNORECASE)
"""Files that the kernel has been: ntoskrnl, ntkrnlmp, ntkrnlpa, ntkrpamp."""

_BREAK_CODES = (messages.STATUS_BREAKPOINT, messages.STATUS_SINGLE_STEP)
_INT3 = bytes((messages.INT3,))
_WIDE_MACHINE = messages.MACHINE_AMD64
_LONGEST_NAME = 1024
_TAG = 0x10
_BUGCHECK_DATA = 0x88
"""Offsets of OwnerTag and KiBugcheckData in KDDEBUGGER_DATA64. Source: wdbgexts.h."""


@dataclass(frozen=True, slots=True)
class _LoaderEntry:
    next: int
    base: int
    size: int
    name: int
    name_size: int


@dataclass(frozen=True, slots=True)
class _LoaderLayout:
    """Offsets in LDR_DATA_TABLE_ENTRY, the kernel's record of a module.

    Source: ReactOS, sdk/include/ndk/ldrtypes.h (InLoadOrderLinks, DllBase, SizeOfImage,
    BaseDllName).
    """

    wide: bool
    base: int
    image_size: int
    name_size: int
    name: int
    size: int

    def read(self, data: bytes) -> _LoaderEntry:
        def pointer(at: int) -> int:
            width = 8 if self.wide else 4
            return _extended(int.from_bytes(data[at : at + width], "little"), self.wide)

        return _LoaderEntry(
            pointer(0),
            pointer(self.base),
            int.from_bytes(data[self.image_size : self.image_size + 4], "little"),
            pointer(self.name),
            int.from_bytes(data[self.name_size : self.name_size + 2], "little"),
        )


_LOADER32 = _LoaderLayout(False, base=0x18, image_size=0x20, name_size=0x2C, name=0x30, size=0x34)
_LOADER64 = _LoaderLayout(True, base=0x30, image_size=0x40, name_size=0x58, name=0x60, size=0x68)


def _extended(address: int, wide: bool) -> int:
    """An address as the protocol wants it: 32-bit ones sign-extended to 64 bits."""
    return address | 0xFFFFFFFF00000000 if not wide and address & 0x80000000 else address
