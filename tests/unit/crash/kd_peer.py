"""A guest's end of the kernel debugger line, as far as the listener's tests need one.

It behaves like kdcom as ReactOS describes it (drivers/base/kdcom/kddll.c): it waits for an
acknowledgement of each packet, repeats it, gives up a print after some tries, answers RESET
with RESET, and waits at a state change until it is continued. Faults of the line are made
here, from a seed.
"""

from __future__ import annotations

import os
import random
import select
import struct
import threading
import time
from dataclasses import dataclass, field

from lab.crash.kd.packets import FIRST_ID, SYNC, Damaged, Packet, Parser, Type, encode

PC = 0xFFFFFFFF8082F000
INT3_AT_PC = b"\xcc\xc3"


class GaveUp(Exception):
    """Nobody acknowledged."""


@dataclass
class Faults:
    """Chances, per packet written or per read, of each fault."""

    seed: int = 0
    drop: float = 0.0
    lose_byte: float = 0.0
    flip: float = 0.0
    twice: float = 0.0
    garbage: float = 0.0
    deaf: float = 0.0
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)  # noqa: S311

    def written(self, raw: bytes) -> bytes:
        out = bytearray(raw)
        if self._happens(self.flip) and len(out) > 17:
            # The header has no checksum: a flip in it may say anything.
            out[self.random.randrange(16, len(out))] ^= 1 << self.random.randrange(8)
        if self._happens(self.lose_byte):
            del out[self.random.randrange(len(out))]
        if self._happens(self.drop):
            out.clear()
        if self._happens(self.twice):
            out += bytes(out)
        if self._happens(self.garbage):
            junk = self.random.choice([b"000", b"iiii\x04", b"\0\xff\xaa", b"0000\x03\0\x20\x0f"])
            out[:0] = junk
        return bytes(out)

    def hears(self) -> bool:
        return not self._happens(self.deaf)

    def _happens(self, chance: float) -> bool:
        return chance > 0 and self.random.random() < chance


class Peer:
    """The guest.

    Args:
        fd: its end of the line.
        faults: of the line, in both directions.
        ack_s: seconds after which it repeats a packet.
        tries: after which it gives up a print.
    """

    def __init__(
        self, fd: int, faults: Faults | None = None, *, ack_s: float = 0.03, tries: int = 300
    ) -> None:
        self.fd = fd
        self.faults = faults or Faults()
        self.ack_s = ack_s
        self.tries = tries
        self.send_id = FIRST_ID | SYNC
        self.expected = FIRST_ID
        self.memory: dict[int, bytes] = {}
        self.context = bytearray(0x2CC)
        struct.pack_into("<I", self.context, 0xB8, PC & 0xFFFFFFFF)
        self.version = b""
        self.requests: list[int] = []
        self.sent = 0
        self.restart_at: set[int] = set()  # requests at which it starts anew, once each
        self._restart = threading.Event()
        self._restarted = threading.Event()
        self._parser = Parser()
        self._waiting: list[Packet] = []

    # The transport.

    def write(self, raw: bytes) -> None:
        raw = self.faults.written(raw)
        while raw:
            raw = raw[os.write(self.fd, raw) :]

    def control(self, kind: Type, number: int = 0) -> None:
        self.write(encode(Packet(kind, number)))

    def next_packet(self, until: float) -> Packet | Damaged | None:
        while True:
            if self._waiting:
                return self._waiting.pop(0)
            left = until - time.monotonic()
            if left <= 0:
                return None
            if not select.select([self.fd], [], [], left)[0]:
                return None
            data = os.read(self.fd, 4096)
            if not data:
                raise GaveUp
            if not self.faults.hears():
                data = data[:-1]
            for item in self._parser.feed(data):
                if isinstance(item, Damaged):
                    self.control(Type.RESEND)
                elif isinstance(item, Packet):
                    self._waiting.append(item)

    def reset(self) -> None:
        """Answer a RESET."""
        self.send_id = self.expected = FIRST_ID
        self.control(Type.RESET)

    def restart(self) -> None:
        """Let a guest that waits at a stop start anew; it was heard when this returns."""
        self._restarted.clear()
        self._restart.set()
        assert self._restarted.wait(20)

    def start_anew(self) -> None:
        """Forget what was said, as a guest does that has lost its way."""
        self.send_id, self.expected = FIRST_ID | SYNC, FIRST_ID

    def send(self, kind: Type, data: bytes) -> None:
        for _ in range(self.tries):
            self.sent += 1
            self.write(encode(Packet(kind, self.send_id, data)))
            if self._acknowledged():
                self.send_id = (self.send_id ^ 1) & ~SYNC
                return
        self.start_anew()
        raise GaveUp

    def _acknowledged(self) -> bool:
        until = time.monotonic() + self.ack_s
        while packet := self.next_packet(until):
            assert isinstance(packet, Packet)
            if packet.type is Type.ACKNOWLEDGE:
                if packet.id == self.send_id & ~SYNC:
                    return True
            elif packet.type is Type.RESEND:
                return False
            elif packet.type is Type.RESET:
                self.reset()
                return False
            elif packet.id != self.expected:
                self.control(Type.ACKNOWLEDGE, packet.id)
        if self._parser.partial:
            self._parser.give_up()
        return False

    def receive(self, kind: Type, patience_s: float = 10.0) -> bytes | None:
        """The next data packet; None when the other end started anew."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if self._restart.is_set():
                self._restart.clear()
                self.start_anew()
                return None
            packet = self.next_packet(min(end, time.monotonic() + self.ack_s))
            if packet is None:
                if self._parser.partial:
                    self._parser.give_up()
                continue
            assert isinstance(packet, Packet)
            if packet.type is Type.RESET:
                self.reset()
                return None
            if packet.type is Type.RESEND:
                return None
            if packet.control:
                continue
            self.control(Type.ACKNOWLEDGE, packet.id)
            if packet.id == self.expected and packet.type is kind:
                self.expected ^= 1
                return packet.data
        raise GaveUp

    # What the guest does.

    def print(self, text: str) -> None:
        self.send(Type.DEBUG_IO, print_string(text))

    def prompt(self, text: str, room: int) -> str:
        data = struct.pack("<IHHII", 0x3231, 6, 0, len(text) + 1, room) + text.encode() + b"\0"
        while True:
            self.send(Type.DEBUG_IO, data)
            answer = self.receive(Type.DEBUG_IO)
            if answer is not None:
                (length,) = struct.unpack_from("<I", answer, 12)
                assert len(answer) == 16 + length
                return answer[16:].decode()

    def ask_file(self, name: str) -> int:
        data = struct.pack("<II", 0x3430, 0) + bytes(56) + name.encode("utf-16-le") + b"\0\0"
        while True:
            self.send(Type.FILE_IO, data)
            answer = self.receive(Type.FILE_IO)
            if answer is not None:
                assert len(answer) == 64
                api, status = struct.unpack_from("<II", answer)
                assert api == 0x3430
                return status

    def load(self, path: str, base: int, size: int = 0x8000, *, unload: bool = False) -> int:
        return self.stop(symbols(path, base, size, unload=unload))

    def exception(self, code: int = 0x80000003, **more: int) -> int:
        return self.stop(exception(code, **more))

    def stop(self, change: bytes) -> int:
        """Wait at a state change; the status that the guest is continued with."""
        while True:
            self.send(Type.STATE_CHANGE64, change)
            self._restarted.set()
            status = self._serve()
            if status is not None:
                return status

    def _serve(self) -> int | None:
        while True:
            request = self.receive(Type.STATE_MANIPULATE)
            if request is None:
                return None
            (api,) = struct.unpack_from("<I", request)
            self.requests.append(api)
            if api in self.restart_at:
                self.restart_at.remove(api)
                self.start_anew()
                return None
            if api == 0x313C:
                return int(struct.unpack_from("<I", request, 16)[0])
            self.send(Type.STATE_MANIPULATE, self.answer(api, request))

    def answer(self, api: int, request: bytes) -> bytes:
        head, fields, more = request[:8], request[16:56], b""
        status = 0
        if api == 0x3130:
            address, count = struct.unpack_from("<QI", fields)
            more = self._memory_at(address, count)
            status = 0 if more else 0xC0000001
            fields = struct.pack("<QII", address, count, len(more)) + fields[16:]
        elif api == 0x3132:
            more = bytes(self.context)
        elif api == 0x3133:
            self.context = bytearray(request[56:])
        elif api == 0x3146 and self.version:
            fields = self.version
        else:
            status = 0xC0000001
        return head + struct.pack("<I4x", status) + fields + more

    def _memory_at(self, address: int, count: int) -> bytes:
        for start, data in self.memory.items():
            if start <= address < start + len(data):
                return data[address - start : address - start + count]
        return b""

    def put(self, address: int, data: bytes) -> None:
        self.memory[address | 0xFFFFFFFF00000000] = data

    def crash(self, code: int, parameters: tuple[int, int, int, int], second: bool = False) -> int:
        """Bugcheck as KeBugCheckEx does with a debugger: print, then break."""
        if not second:
            values = ",".join(f"0x{one:08X}" for one in parameters)
            self.print(f"\n*** Fatal System Error: 0x{code:08x}\n{' ' * 23}({values})\n\n")
        struct.pack_into("<I", self.context, 0xB0, 4 if second else 3)
        struct.pack_into("<I", self.context, 0xB8, PC & 0xFFFFFFFF)
        return self.exception()

    def build_memory(
        self, code: int, parameters: tuple[int, ...], modules: list[tuple[str, int]]
    ) -> None:
        """Lay out what a debugger reads of a stopped 32-bit guest."""
        self.version = struct.pack(
            "<HHBBHHBBBBHQQQ", 15, 3790, 6, 0, 3, 0x14C, 12, 3, 49, 0, 0,
            0xFFFFFFFF80800000, 0xFFFFFFFF808A8E48, 0xFFFFFFFF80890000,
        )  # fmt: skip
        self.put(0x80890000, struct.pack("<II", 0x80891000, 0x80891000))
        block = bytearray(0x200)
        block[0x10:0x14] = b"KDBG"
        struct.pack_into("<Q", block, 0x88, 0x80892000)
        self.put(0x80891000, bytes(block))
        self.put(0x80892000, struct.pack("<5I", code, *parameters))
        entries = [0x89000000 + 0x1000 * number for number in range(len(modules))]
        links = [0x808A8E48, *entries, 0x808A8E48]
        self.put(links[0], struct.pack("<II", links[1], links[-2]))
        for number, (name, base) in enumerate(modules, 1):
            entry = bytearray(0x48)
            struct.pack_into("<II", entry, 0, links[number + 1], links[number - 1])
            struct.pack_into("<III", entry, 0x18, base, base + 0x100, 0x8000)
            raw = name.encode("utf-16-le")
            struct.pack_into("<HHI", entry, 0x2C, len(raw), len(raw), links[number] + 0x100)
            self.put(links[number], bytes(entry))
            self.put(links[number] + 0x100, raw)


def print_string(text: str, processor: int = 0) -> bytes:
    """Data of a DbgPrint."""
    raw = text.encode("latin-1")
    return struct.pack("<IHHII", 0x3230, 6, processor, len(raw), 0) + raw


def exception(
    code: int,
    *,
    address: int = PC,
    pc: int = PC,
    first_chance: int = 1,
    thread: int = 0xFFFFFFFF89A00000,
    stream: bytes = INT3_AT_PC,
    parameters: tuple[int, ...] = (0,),
) -> bytes:
    """Data of an exception's state change, with a 32-bit control report."""
    head = struct.pack("<IHHIIQQ", 0x3030, 6, 0, 1, 0, thread, pc)
    record = struct.pack("<IIQQII", code, 0, 0, address, len(parameters), 0)
    record += struct.pack("<15Q", *parameters, *([0] * (15 - len(parameters))))
    chance = struct.pack("<II", first_chance, 0)
    report = struct.pack("<IIHH16s", 0xFFFF0FF0, 0x400, len(stream), 1, stream) + bytes(20)
    return head + record + chance + report


def symbols(path: str, base: int, size: int, *, unload: bool = False) -> bytes:
    """Data of a load-symbols state change; the path is behind the control report."""
    raw = path.encode("latin-1") + b"\0" if path else b""
    head = struct.pack("<IHHIIQQ", 0x3031, 6, 0, 1, 0, 0xFFFFFFFF89A00000, PC)
    body = struct.pack("<IIQqIIB", len(raw), 0, base, -1, 0x1234, size, unload)
    return (head + body).ljust(240, b"\0") + raw
