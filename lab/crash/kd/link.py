"""The debugger's end of the serial transport: acknowledging, repeating, starting anew.

It reads no line and waits for nothing: bytes and the time go in, packets and bytes come out.

The rules: every data packet is acknowledged with its own id, without the sync bit; a damaged
one is answered with RESEND; a sender repeats a packet until it is acknowledged; ids alternate
in each direction; the sync bit marks a sender that starts anew, and RESET, which is answered
with RESET, makes both ends start anew. Sources: ReactOS, drivers/base/kdcom/kddll.c
(KdReceivePacket, KdSendPacket: the guest's end), Xen, tools/debugger/kdd/kdd.h.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lab.crash.kd.packets import FIRST_ID, SYNC, Damaged, Item, Noise, Packet, Parser, Type, encode

_TRIES = 5  # of one packet, before both ends start anew
_RESETS = 10  # sent for one packet, before it is given up


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something was lost or repeated; it may be harmless.

    Attributes:
        reason: in words.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A data packet that was not handed out before.

    Attributes:
        packet: as it came.
        disturbed: how often, up to it, the guest was given a reason to say again what it waits
            at: by a RESEND or a new start. What it says again is a new packet.
    """

    packet: Packet
    disturbed: int


Received = Delivery | Noise | Trouble
"""What a link hands out: data packets, each once, and what else there was."""


class Link:
    """One line to one guest.

    Args:
        resend_s: seconds without an acknowledgement after which a packet is repeated.
        stall_s: seconds of silence after which the rest of a begun packet counts as lost.
    """

    def __init__(self, *, resend_s: float = 1.0, stall_s: float = 1.0) -> None:
        self._parser = Parser()
        self._resend_s = resend_s
        self._stall_s = stall_s
        self._output = bytearray()
        self._queue: deque[tuple[Type, bytes]] = deque()
        self._tries = 0
        self._resets = 0
        self._send_id = FIRST_ID
        self._expected: int | None = None
        self._known = False  # whether the guest starts from the ids that we start from
        self._resetting = False
        self._last: tuple[int, Type, bytes] | None = None
        self._asked = 0  # RESETs of ours whose answer has not come
        self._asked_at = 0.0
        self._answered_at: float | None = None
        self._disturbed = 0
        self._resend_at: float | None = None
        self._stall_at: float | None = None

    @property
    def idle(self) -> bool:
        """Whether everything that was sent is acknowledged."""
        return not self._queue

    def send(self, kind: Type, data: bytes, now: float) -> None:
        """Queue a data packet.

        Args:
            kind: its type.
            data: at most ``packets.MAX_DATA`` bytes.
            now: seconds of any steady clock.
        """
        self._queue.append((kind, data))
        if len(self._queue) == 1:
            self._begin(now)

    def forget_sent(self) -> None:
        """Drop what is not acknowledged: it is of no use any more."""
        if self._queue:
            # It may have arrived or not, and so the guest may expect either id.
            self._known = False
        self._queue.clear()
        self._resetting = False
        self._resend_at = None

    def output(self) -> bytes:
        """Take the bytes that have to be written now."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def timeout(self, now: float) -> float | None:
        """Seconds until ``poll`` has something to do; None when nothing is pending."""
        times = [at for at in (self._resend_at, self._stall_at) if at is not None]
        return max(0.0, min(times) - now) if times else None

    def feed(self, data: bytes, now: float) -> list[Received]:
        """Take bytes that were read.

        Returns:
            New data packets, and what else has to be told.
        """
        received = self._take(self._parser.feed(data), now)
        self._stall_at = now + self._stall_s if self._parser.partial else None
        return received

    def poll(self, now: float) -> list[Received]:
        """Do what is due: repeat a packet, give up the rest of a begun one."""
        received: list[Received] = []
        if self._stall_at is not None and now >= self._stall_at:
            received += self._take(self._parser.give_up(), now)
            self._stall_at = now + self._stall_s if self._parser.partial else None
        if self._resend_at is not None and now >= self._resend_at:
            received += self._again(now)
        return received

    def _begin(self, now: float) -> None:
        self._tries = 0
        if self._queue and not self._known and not self._resetting:
            # Whoever spoke to the guest before left ids that we do not know. A packet with the
            # wrong one would be acknowledged and dropped.
            self._start_anew(now)
        else:
            self._transmit(now)

    def _start_anew(self, now: float) -> None:
        self._resetting = True
        self._asked += 1
        self._asked_at = now
        self._control(Type.RESET, 0)
        self._resend_at = now + self._resend_s

    def _transmit(self, now: float) -> None:
        if not self._queue:
            self._resend_at = None
            return
        kind, data = self._queue[0]
        self._output += encode(Packet(kind, self._send_id, data))
        self._tries += 1
        self._resend_at = now + self._resend_s

    def _again(self, now: float) -> list[Received]:
        if not self._queue:
            self._resend_at = None
            return []
        if self._tries < _TRIES and not self._resetting:
            self._transmit(now)
            return []
        self._resets += 1
        if self._resets <= _RESETS:
            self._tries = 0
            self._start_anew(now)
            return []
        self._resets = 0
        kind, _ = self._queue.popleft()
        self._resetting = False
        self._known = False
        if self._queue:
            self._begin(now)
        else:
            self._resend_at = None
        return [Trouble(f"the guest does not acknowledge a packet of type {kind.name}")]

    def _control(self, kind: Type, number: int) -> None:
        self._disturbed += kind is Type.RESEND
        self._output += encode(Packet(kind, number))

    def _take(self, items: list[Item], now: float) -> list[Received]:
        received: list[Received] = []
        for item in items:
            if isinstance(item, Noise):
                received.append(item)
            elif isinstance(item, Damaged):
                self._control(Type.RESEND, 0)
                received.append(Trouble(item.reason))
            elif item.control:
                received += self._take_control(item, now)
            else:
                received += self._take_data(item, now)
        return received

    def _take_control(self, packet: Packet, now: float) -> list[Received]:
        if packet.type is Type.ACKNOWLEDGE:
            if self._queue and not self._resetting and packet.id & ~SYNC == self._send_id:
                self._sent(now)
        elif packet.type is Type.RESEND:
            if self._queue and not self._resetting and self._tries < _TRIES:
                self._transmit(now)
        elif packet.type is Type.RESET:
            return self._take_reset(now)
        return []

    def _take_reset(self, now: float) -> list[Received]:
        ours = self._is_answer(now)
        if not ours:
            self._answered_at = now
            self._control(Type.RESET, 0)
        self._restarted()
        if self._queue:
            # The guest repeats first what it was saying; ours goes out at that or later.
            self._resend_at = now + self._resend_s
        return [] if ours else [Trouble("the guest asked to start anew")]

    def _is_answer(self, now: float) -> bool:
        """Whether a RESET needs no answer of ours, which would be answered again for ever."""
        if now - self._asked_at > _RESETS * self._resend_s:
            self._asked = 0
        if self._asked:
            self._asked -= 1
            return True
        return self._answered_at is not None and now - self._answered_at < 2 * self._resend_s

    def _restarted(self) -> None:
        self._disturbed += 1
        self._resetting = False
        self._known = True
        self._send_id = FIRST_ID
        self._expected = FIRST_ID
        self._last = None
        self._tries = 0

    def _sent(self, now: float) -> None:
        self._queue.popleft()
        # It heard our acknowledgement before it took anything, so what it says once more with
        # SYNC is said anew.
        self._last = None
        self._send_id ^= 1
        self._resets = 0
        self._tries = 0
        self._transmit(now)

    def _take_data(self, packet: Packet, now: float) -> list[Received]:
        plain = packet.id & ~SYNC
        if plain not in (FIRST_ID, FIRST_ID ^ 1):
            self._control(Type.RESEND, 0)
            return [Trouble(f"wrong packet id 0x{packet.id:x}")]
        this = (packet.id, packet.type, packet.data)
        if packet.id & SYNC:
            # Its sender starts anew, unless it only did not hear our acknowledgement.
            repeated = self._last == this
            if not repeated:
                self.forget_sent()
                self._restarted()
        else:
            repeated = self._expected is not None and plain != self._expected
        self._control(Type.ACKNOWLEDGE, plain)
        if repeated:
            return []
        self._last = this
        self._expected = plain ^ 1
        if self._queue:
            self._overtaken(packet, now)
        return [Delivery(packet, self._disturbed)]

    def _overtaken(self, packet: Packet, now: float) -> None:
        """A new packet came while ours waits for its acknowledgement."""
        if self._resetting:
            return
        if self._tries and packet.type is not Type.STATE_CHANGE64:
            # The guest went on, so ours has arrived and only the acknowledgement is lost.
            self._sent(now)
        else:
            # A state change may be the one that ours answers, said again. If ours had arrived
            # all the same, then it is acknowledged a second time and not acted upon.
            self._transmit(now)
