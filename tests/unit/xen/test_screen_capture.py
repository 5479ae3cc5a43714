from __future__ import annotations

import contextlib
import socket
import struct
import threading
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from xen_fakes import ScriptedDom0

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken, PvlabError
from lab.xen.screen import capture, screen_of

PICTURE = Image.frombytes("RGB", (6, 4), bytes(range(72)))


def pixels(image):
    return b"".join(
        bytes((*image.getpixel((x, y)), 0)) for y in range(image.height) for x in range(image.width)
    )


def rectangle(image, left=0, top=0):
    return struct.pack(">HHHHi", left, top, image.width, image.height, 0) + pixels(image)


def update(*rectangles):
    return struct.pack(">BxH", 0, len(rectangles)) + b"".join(rectangles)


def init(image):
    head = struct.pack(">HH", image.width, image.height)
    return head + bytes(16) + struct.pack(">I", 4) + b"QEMU"


class Conversation:
    """The server's side of one connection, step by step."""

    def __init__(self, connection):
        self.connection = connection

    def say(self, data):
        self.connection.sendall(data)

    def hear(self, size):
        data = b""
        while len(data) < size:
            part = self.connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def begin(self, minor=8):
        self.say(b"RFB 003.00%d\n" % minor)
        assert self.hear(12) == b"RFB 003.00%d\n" % minor
        if minor == 3:
            self.say(struct.pack(">I", 1))
        else:
            self.say(b"\x02\x02\x01")
            assert self.hear(1) == b"\x01"
            if minor == 8:
                self.say(bytes(4))
        assert self.hear(1) == b"\x01"
        self.say(init(PICTURE))
        assert self.hear(20)[4:6] == bytes((32, 24))
        assert self.hear(12) == struct.pack(">BxHii", 2, 2, 0, -223)

    def asked(self):
        kind, incremental, left, top, width, height = struct.unpack(">BBHHHH", self.hear(10))
        assert (kind, incremental, left, top) == (3, 0, 0, 0)
        return width, height


@contextmanager
def server(script):
    raised = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(20)
                    script(Conversation(connection))
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()
    if raised:
        raise raised[0]


@pytest.mark.parametrize("minor", [3, 7, 8])
def test_a_frame_in_each_version_of_the_protocol(minor):
    def script(peer):
        peer.begin(minor)
        assert peer.asked() == PICTURE.size
        peer.say(update(rectangle(PICTURE)))

    with server(script) as port:
        assert capture("127.0.0.1", port, Deadline(20)).tobytes() == PICTURE.tobytes()


def test_a_frame_in_parts_between_other_messages():
    def script(peer):
        peer.begin()
        peer.asked()
        upper, lower = PICTURE.crop((0, 0, 6, 1)), PICTURE.crop((0, 1, 6, 4))
        peer.say(b"\x02" + b"\x03\0\0\0" + struct.pack(">I", 5) + b"hello")
        peer.say(update(rectangle(lower, 0, 1)))
        peer.say(struct.pack(">BxHH", 1, 0, 2) + bytes(12))
        peer.say(update(rectangle(upper)))

    with server(script) as port:
        assert capture("127.0.0.1", port, Deadline(20)).tobytes() == PICTURE.tobytes()


def test_a_screen_that_changes_its_size_is_asked_for_again():
    larger = PICTURE.resize((12, 8))

    def script(peer):
        peer.begin()
        peer.asked()
        peer.say(update(struct.pack(">HHHHi", 0, 0, 12, 8, -223)))
        assert peer.asked() == (12, 8)
        peer.say(update(rectangle(larger)))

    with server(script) as port:
        assert capture("127.0.0.1", port, Deadline(20)).tobytes() == larger.tobytes()


def after_init(data):
    def script(peer):
        peer.begin()
        peer.asked()
        peer.say(data)

    return script


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (lambda peer: peer.say(b"SSH-2.0-OpenSSH_9"), "no VNC server"),
        (lambda peer: peer.say(b"RFB 003.008\n\x01\x02"), "wants a password"),
        (lambda peer: peer.say(b"RFB 003.008\n\0\0\0\0\x04busy"), "refuses: busy"),
        (lambda peer: peer.say(b"RFB 003.003\n\0\0\0\0\0\0\0\x04busy"), "refuses: busy"),
        (lambda peer: peer.say(b"RFB 003.008\n\x01\x01\0\0\0\x01\0\0\0\x02no"), "refuses: no"),
        (lambda peer: peer.say(b"RFB 003.008\n\x01\x01\0\0\0\0\0\0\0\0" + bytes(20)), "0 x 0"),
        (after_init(b"\x09"), "kind 9"),
        (after_init(update(struct.pack(">HHHHi", 0, 0, 1, 1, 16))), "encoding 16"),
        (after_init(update(struct.pack(">HHHHi", 6, 0, 1, 1, 0))), "outside"),
        (after_init(update(struct.pack(">HHHHi", 0, 0, 65535, 65535, -223))), "65535 x 65535"),
        (after_init(b"\x03\0\0\0\xff\xff\xff\xff"), "nonsense"),
        (after_init(b"\0\0"), "closed"),
    ],
)
def test_servers_that_cannot_be_used(script, told):
    def lenient(peer):
        script(peer)
        # What the client still says must not reset the connection before it has read.
        with contextlib.suppress(EOFError, OSError):
            peer.connection.shutdown(socket.SHUT_WR)
            peer.hear(1 << 20)

    with server(lenient) as port, pytest.raises(LabBroken, match=told):
        capture("127.0.0.1", port, Deadline(20))


def test_a_silent_server_is_given_up():
    done = threading.Event()
    with server(lambda peer: done.wait(20)) as port:
        with pytest.raises(DeadlineExpired, match="screen"):
            capture("127.0.0.1", port, Deadline(0.05))
        done.set()


def test_no_server():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LabBroken, match="no VNC server answers"):
        capture("127.0.0.1", port, Deadline(20))


@given(st.binary(max_size=120))
@settings(max_examples=40, deadline=None)
def test_any_answer_ends_in_one_line(raw):
    def script(peer):
        peer.say(b"RFB 003.008\n\x01\x01\0\0\0\0" + raw)
        with contextlib.suppress(EOFError, OSError):
            peer.connection.shutdown(socket.SHUT_WR)
            peer.hear(1 << 20)

    with server(script) as port, contextlib.suppress(PvlabError):
        capture("127.0.0.1", port, Deadline(20))


class Tunnelled(ScriptedDom0):
    """A dom0 whose loopback ports are this machine's."""

    @contextmanager
    def tunnel(self, host, port):
        assert host == "127.0.0.1"
        yield port


def test_a_guest_s_screen_is_found_through_xenstore():
    def script(peer):
        peer.begin()
        peer.asked()
        peer.say(update(rectangle(PICTURE)))

    with server(script) as port:
        dom0 = Tunnelled().answer("xenstore-read /local/domain/3/console/vnc-port", f"{port}\n")
        assert screen_of(dom0, 3, Deadline(20)).size == (6, 4)


def test_a_guest_without_a_screen():
    dom0 = Tunnelled().answer(
        "xenstore-read", stderr="xenstore-read: couldn't read path x", exit_code=1
    )
    with pytest.raises(LabBroken, match="domain 3 has no screen"):
        screen_of(dom0, 3, Deadline(20))
