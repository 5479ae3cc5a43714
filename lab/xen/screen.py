"""One picture of a guest's screen, over VNC.

A client for exactly that: no authentication, raw pixels, one frame. The libraries there are
bring an event loop or numerics for it. Source of every message: RFC 6143.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.xen.dom0 import Dom0
from lab.xen.xenstore import Xenstore

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_SECURITY = 1  # RFC 6143, 7.1.2
_VERSIONS = {3: b"RFB 003.003\n", 7: b"RFB 003.007\n", 8: b"RFB 003.008\n"}  # 7.1.1
_RAW = 0  # 7.7.1
_DESKTOP_SIZE = -223  # 7.8.2
_UPDATE, _COLOUR_MAP, _BELL, _CUT_TEXT = range(4)  # 7.6
_PIXEL_FORMAT = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 0, 8, 16)
"""7.4: four bytes a pixel, little-endian: red, green, blue and one unused."""

_MAX_SIDE = 8192  # pixels; what QEMU's display adapters can at most
_MAX_PIXELS = 16 << 20
_MAX_TEXT = 1 << 20  # bytes of names, reasons and cut texts that are read over
_MAX_RECTANGLES = 100_000
_CHUNK = 1 << 16


def screen_of(dom0: Dom0, domid: int, deadline: Deadline, *, watches: bool = True) -> Image:
    """A picture of a guest's screen, as its device model in dom0 serves it.

    Args:
        dom0: the connection.
        domid: the guest, configured with ``vnc=1`` and no password.
        deadline: for all of it.
        watches: as for ``Xenstore``.

    Raises:
        LabBroken: the guest has no screen, or it cannot be read.
        DeadlineExpired: it did not come in time.
    """
    # Xen, docs/misc/xenstore-paths: written by the toolstack for a VNC server that runs.
    path = f"/local/domain/{domid}/console/vnc-port"
    port = Xenstore(dom0, watches=watches).read(path, deadline)
    if port is None or not port.isdigit():
        raise LabBroken(f"domain {domid} has no screen", hint="vnc=1 in its configuration")
    with dom0.tunnel("127.0.0.1", int(port)) as local:
        return capture("127.0.0.1", local, deadline)


def capture(host: str, port: int, deadline: Deadline) -> Image:
    """A picture of a whole screen, as an RGB image.

    Args:
        host: name or address of the VNC server.
        port: its TCP port; display 0 is 5900.
        deadline: when to give up.

    Raises:
        LabBroken: there is no VNC server, it wants a password, or it talks nonsense.
        DeadlineExpired: the picture did not come in time.
    """
    try:
        with socket.create_connection((host, port), max(0.1, deadline.remaining)) as connection:
            return _Session(connection, deadline).picture()
    except TimeoutError:
        raise deadline.expire("a picture of the guest's screen", "") from None
    except OSError as error:
        raise LabBroken(f"no VNC server answers: {error.strerror or error}") from error


class _Session:
    """One connection.

    Args:
        connection: to the server.
        deadline: for every wait.
    """

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def picture(self) -> Image:
        from PIL import Image

        self._handshake()
        width, height = self._initialise()
        encodings = struct.pack(">BxHii", 2, 2, _RAW, _DESKTOP_SIZE)
        self._send(b"\0\0\0\0" + _PIXEL_FORMAT + encodings)
        image = self._blank(width, height)
        missing = width * height
        self._ask(image)
        while missing > 0:
            (kind,) = self._unpack(">B")
            if kind == _UPDATE:
                (count,) = self._unpack(">xH")
                if count > _MAX_RECTANGLES:
                    raise LabBroken("the VNC server sends nonsense")
                resized = False
                for _ in range(count):
                    left, top, wide, high, encoding = self._unpack(">HHHHi")
                    if encoding == _DESKTOP_SIZE:
                        image = self._blank(wide, high)
                        missing, resized = wide * high, True
                    elif encoding == _RAW:
                        self._check(image, left, top, wide, high)
                        pixels = self._receive(4 * wide * high)
                        if pixels:
                            part = Image.frombytes("RGB", (wide, high), pixels, "raw", "RGBX")
                            image.paste(part, (left, top))
                        missing -= wide * high
                    else:
                        raise LabBroken(f"the VNC server uses encoding {encoding} unasked")
                if resized and missing > 0:
                    self._ask(image)
            elif kind == _COLOUR_MAP:
                _, colours = self._unpack(">xHH")
                self._receive(6 * colours)
            elif kind == _CUT_TEXT:
                self._text(*self._unpack(">3xI"))
            elif kind != _BELL:
                raise LabBroken(f"the VNC server sends a message of kind {kind}")
        return image

    def _handshake(self) -> None:
        greeting = self._receive(12)
        if not greeting.startswith(b"RFB 003.") or not greeting[8:11].isdigit():
            raise LabBroken("that is no VNC server")
        offered = int(greeting[8:11])
        # 7.1.1: an unknown minor version counts as 3.3; later ones can do 3.8.
        version = 8 if offered >= 8 else 7 if offered == 7 else 3
        self._send(_VERSIONS[version])
        if version == 3:
            (chosen,) = self._unpack(">I")
            kinds = [chosen]
        else:
            (count,) = self._unpack(">B")
            kinds = list(self._receive(count)) or [0]
        if kinds == [0]:
            raise LabBroken(f"the VNC server refuses: {self._text(*self._unpack('>I'))}")
        if _NO_SECURITY not in kinds:
            raise LabBroken(
                "the VNC server wants a password", hint="no vncpasswd in the guest's configuration"
            )
        if version > 3:
            self._send(bytes((_NO_SECURITY,)))
        # 7.1.3: only 3.8 tells the result of no security.
        if version == 8 and self._unpack(">I") != (0,):
            raise LabBroken(f"the VNC server refuses: {self._text(*self._unpack('>I'))}")

    def _initialise(self) -> tuple[int, int]:
        self._send(b"\1")  # 7.3.1: others stay connected
        width, height = self._unpack(">HH16x")
        self._text(*self._unpack(">I"))
        return width, height

    def _blank(self, width: int, height: int) -> Image:
        from PIL import Image

        if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
            raise LabBroken(f"the guest's screen has {width} x {height} pixels")
        if width * height > _MAX_PIXELS:
            raise LabBroken(f"the guest's screen has {width} x {height} pixels")
        return Image.new("RGB", (width, height))

    def _ask(self, image: Image) -> None:
        # 7.5.3: the whole screen, not only what changes.
        self._send(struct.pack(">BBHHHH", 3, 0, 0, 0, image.width, image.height))

    @staticmethod
    def _check(image: Image, left: int, top: int, wide: int, high: int) -> None:
        if left + wide > image.width or top + high > image.height:
            raise LabBroken("the VNC server sends pixels outside of the screen")

    def _text(self, length: int) -> str:
        if length > _MAX_TEXT:
            raise LabBroken("the VNC server sends nonsense")
        text = self._receive(length).decode("latin-1")
        return "".join(char for char in text if char.isprintable())

    def _unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._receive(struct.calcsize(form)))

    def _send(self, data: bytes) -> None:
        self._connection.settimeout(self._left())
        self._connection.sendall(data)

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._connection.settimeout(self._left())
            part = self._connection.recv(min(_CHUNK, size - len(data)))
            if not part:
                raise LabBroken("the VNC server closed the connection")
            data += part
        return bytes(data)

    def _left(self) -> float:
        if self._deadline.expired:
            raise self._deadline.expire("a picture of the guest's screen", "a part of it")
        return self._deadline.remaining
