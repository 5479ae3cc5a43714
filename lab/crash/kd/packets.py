"""Packets of the Windows kernel debugger's serial transport, to and from bytes.

Layout and constants: ReactOS, sdk/include/reactos/windbgkd.h (KD_PACKET, PACKET_TYPE_*), and
Xen, tools/debugger/kdd/kdd.h ("Serial line protocol"), which agree. All fields are
little-endian: leader u32, type u16, length of the data u16, packet id u32, checksum u32 (the
sum of the data's bytes). The data follows, and behind the data of a data packet, one 0xAA.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

DATA_LEADER = 0x30303030
CONTROL_LEADER = 0x69696969
TRAILER = 0xAA
BREAK_IN = b"\x62"
"""One such byte outside of packets asks a running guest to stop (BREAKIN_PACKET_BYTE)."""

FIRST_ID = 0x80800000
"""INITIAL_PACKET_ID; the next packet has the last bit changed, and so on."""
SYNC = 0x00000800
"""SYNC_PACKET_ID: set in the id of a sender's first packet after it started anew."""
MAX_DATA = 4000
"""PACKET_MAX_SIZE: bytes of data in one packet."""

_HEADER = struct.Struct("<IHHII")
_LEADERS = (b"\x30\x30\x30\x30", b"\x69\x69\x69\x69")


class Type(enum.IntEnum):
    """What a packet is (PACKET_TYPE_KD_*)."""

    STATE_CHANGE32 = 1
    STATE_MANIPULATE = 2
    DEBUG_IO = 3
    ACKNOWLEDGE = 4
    RESEND = 5
    RESET = 6
    STATE_CHANGE64 = 7
    POLL_BREAKIN = 8
    TRACE_IO = 9
    CONTROL_REQUEST = 10
    FILE_IO = 11


_CONTROL = frozenset({Type.ACKNOWLEDGE, Type.RESEND, Type.RESET})


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet that arrived whole.

    Attributes:
        type: one of ``Type``.
        id: as sent, with the sync bit.
        data: without the trailing byte; empty for control packets.
    """

    type: Type
    id: int
    data: bytes = b""

    @property
    def control(self) -> bool:
        """Whether it is about the transport itself."""
        return self.type in _CONTROL


@dataclass(frozen=True, slots=True)
class Damaged:
    """A data packet that cannot be used: the sender has to be asked again.

    Attributes:
        reason: in words.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Noise:
    """Bytes that belong to no packet: boot messages, or the rest of something damaged."""

    data: bytes


Item = Packet | Damaged | Noise


def checksum(data: bytes) -> int:
    """The sum of all bytes, 32 bits."""
    return sum(data) & 0xFFFFFFFF


def encode(packet: Packet) -> bytes:
    """A packet as it goes over the line.

    Raises:
        ValueError: more than ``MAX_DATA`` bytes, or data in a control packet.
    """
    if len(packet.data) > MAX_DATA or (packet.control and packet.data):
        raise ValueError(f"{len(packet.data)} bytes do not fit a {packet.type.name} packet")
    leader = CONTROL_LEADER if packet.control else DATA_LEADER
    head = _HEADER.pack(leader, packet.type, len(packet.data), packet.id, checksum(packet.data))
    return head if packet.control else head + packet.data + bytes((TRAILER,))


class Parser:
    """Finds packets in a stream of bytes that may hold anything.

    It never keeps more than one packet's bytes: what can be no packet is handed out at once.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._noise = bytearray()

    @property
    def partial(self) -> bool:
        """Whether the beginning of a packet is waiting for its rest."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes.

        Args:
            data: as read, cut anywhere.

        Returns:
            What became complete, in the order of the stream.
        """
        self._buffer += data
        return self._scan()

    def give_up(self) -> list[Item]:
        """The rest of a begun packet will not come: look for others inside of it."""
        if not self._buffer:
            return []
        # A few bytes that only look like a leader were no packet worth asking for.
        begun = len(self._buffer) >= _HEADER.size and self._buffer[0] == _LEADERS[0][0]
        found: list[Item] = [Damaged("the packet breaks off")] if begun else []
        self._skip(1)
        found += self._scan()
        return found

    def _scan(self) -> list[Item]:
        found: list[Item] = []
        while self._buffer:
            item = self._next()
            if item is None:
                break
            if isinstance(item, Packet | Damaged):
                self._flush(found)
                found.append(item)
        self._flush(found)
        return found

    def _flush(self, found: list[Item]) -> None:
        if self._noise:
            found.append(Noise(bytes(self._noise)))
            self._noise.clear()

    def _skip(self, count: int) -> None:
        self._noise += self._buffer[:count]
        del self._buffer[:count]

    def _next(self) -> Item | None:
        """The item at the buffer's start, ``Noise`` after a skip, None to wait for more."""
        buffer = self._buffer
        starts = [at for at in (buffer.find(leader[:1]) for leader in _LEADERS) if at >= 0]
        self._skip(min(starts, default=len(buffer)))
        if not buffer:
            return None
        if bytes(buffer[:4]) not in _LEADERS:
            if len(buffer) < 4 and len(set(buffer)) == 1:
                return None
            self._skip(1)
            return Noise(b"")
        if len(buffer) < _HEADER.size:
            return None
        leader, kind, length, number, total = _HEADER.unpack_from(buffer)
        control = leader == CONTROL_LEADER
        if not _plausible(control, kind, length):
            self._skip(1)
            return Noise(b"")
        if control:
            del buffer[: _HEADER.size]
            return Packet(Type(kind), number)
        end = _HEADER.size + length
        if len(buffer) <= end:
            return None
        data = bytes(buffer[_HEADER.size : end])
        if buffer[end] != TRAILER or checksum(data) != total:
            wrong = "trailing byte" if buffer[end] != TRAILER else "checksum"
            # The length itself may be what is wrong, so the data may hold the next packet.
            self._skip(1)
            return Damaged(f"wrong {wrong}")
        del buffer[: end + 1]
        return Packet(Type(kind), number, data)


def _plausible(control: bool, kind: int, length: int) -> bool:
    if kind not in Type.__members__.values():
        return False
    return (kind in _CONTROL) == control and length <= (0 if control else MAX_DATA)
