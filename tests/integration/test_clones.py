"""Every clone is a machine of its own."""

from __future__ import annotations

from gate_process import LISTEN, in_state, sockets

NOTE = r"C:\pvlab\note.txt"


def test_next_clone_knows_nothing_of_the_last_one(start, soon):
    with start() as first:
        first.guest.files.put_bytes(b"seen\r\n", NOTE, soon)
        assert first.guest.channel.run(f"type {NOTE}", soon).stdout == "seen\r\n"
        first.dom0.run("echo seen > /root/note && sync", soon, check=True)
        first.vg.create("note", 8, soon)
    with start() as second:
        assert not second.guest.channel.run(f"type {NOTE}", soon).ok
        assert not second.dom0.run("cat /root/note", soon).ok
        assert second.vg.list(soon) == []


def test_two_clones_at_once_share_nothing(start, soon):
    with start() as one, start() as other:
        assert not set(one.machine.ports.values()) & set(other.machine.ports.values())
        assert one.machine.pid != other.machine.pid
        one.guest.files.put_bytes(b"one\r\n", NOTE, soon)
        other.guest.files.put_bytes(b"other\r\n", NOTE, soon)
        assert one.guest.channel.run(f"type {NOTE}", soon).stdout == "one\r\n"
        assert other.guest.channel.run(f"type {NOTE}", soon).stdout == "other\r\n"


def test_closed_clone_leaves_neither_process_nor_port(start, soon):
    with start() as place:
        pid = place.machine.pid
        listening = sockets(pid, LISTEN)
        assert len(listening) == len(place.machine.ports)
        assert place.health(soon).ok
    assert not place.machine.alive
    assert not listening & in_state(LISTEN)
