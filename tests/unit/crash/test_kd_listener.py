from __future__ import annotations

import contextlib
import io
import os
import pty
import random
import socket
import struct
import threading
import time
import tty
from contextlib import contextmanager

import pytest
from kd_peer import PC, Faults, GaveUp, Peer

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken, UsageError
from lab.crash.kd import events as kd
from lab.crash.kd import log
from lab.crash.kd.listener import KdListener, Manners
from lab.crash.kd.messages import GET_CONTEXT, GET_VERSION, SET_CONTEXT
from lab.crash.kd.packets import FIRST_ID, Type
from lab.crash.kd.report import MAX_CRASHES, crash_facts
from lab.crash.kd.stream import SerialStream, open_serial

D1 = (0x0000001C, 0x00000002, 0x00000001, 0xF7A3C1B2)
QUICK = Manners(resend_s=0.2, stall_s=0.05, reply_s=5.0)
RESUMING = Manners(resend_s=0.2, stall_s=0.05, reply_s=5.0, resume=True)


@contextmanager
def listening(manners=QUICK, faults=None, sinks=(), **peer):
    """A listener and a guest at the two ends of a pseudo-terminal."""
    guest, host = pty.openpty()
    tty.setraw(guest)
    tty.setraw(host)
    stream = SerialStream(host)
    try:
        with KdListener(stream, manners, sinks=sinks) as listener:
            yield listener, Peer(guest, faults, **peer)
    finally:
        stream.close()
        os.close(guest)
        os.close(host)


@contextmanager
def guest_doing(work):
    """Let the guest run beside the test; what it raises fails the test."""
    raised = []

    def run():
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield thread
    thread.join()
    if raised:
        raise raised[0]


def soon():
    return Deadline(20)


def of(listener, kind):
    return [event for event in listener.events if isinstance(event, kind)]


def test_prints_are_heard_and_acknowledged():
    with listening() as (listener, peer):
        peer.print("XenVbd --> DriverEntry\n")
        peer.print("XenVbd <-- DriverEntry\n")
        assert [event.text for event in of(listener, kd.DebugPrint)] == [
            "XenVbd --> DriverEntry\n",
            "XenVbd <-- DriverEntry\n",
        ]
        assert peer.sent == 2


def test_a_bugcheck_is_told_at_its_print_and_the_guest_left_halted():
    with listening() as (listener, peer):
        with guest_doing(lambda: peer.crash(0xD1, D1)):
            bugcheck = listener.wait_for(kd.Bugcheck, soon())
            assert (bugcheck.code, bugcheck.parameters, bugcheck.heard) == (0xD1, D1, "print")
            stop = listener.wait_for(kd.Stop, soon())
            assert stop.registers["eax"] == 3
            assert stop.pc == PC & 0xFFFFFFFF
            listener.wait_for(kd.Left, soon())
            assert 0x313C not in peer.requests
            listener.resume()
            listener.wait_for(kd.Resumed, soon())
        assert peer.requests[-1] == 0x313C
        assert listener.facts()[0].code == 0xD1


def test_resumed_it_is_stepped_over_its_breakpoint_and_left_at_the_second():
    with listening(RESUMING) as (listener, peer):
        assert peer.crash(0xD1, D1) == 0x00010002
        assert int.from_bytes(peer.context[0xB8:0xBC], "little") == (PC & 0xFFFFFFFF) + 1
        peer.print("writing the dump\n")
        with guest_doing(lambda: peer.crash(0xD1, D1, second=True)):
            assert listener.wait_for(kd.Left, soon()).reason == "the bugcheck is over"
            listener.resume()
        assert len(of(listener, kd.Bugcheck)) == 1


def test_a_reboot_is_told_and_the_next_bugcheck_counts_again():
    with listening(RESUMING) as (listener, peer):
        for _ in range(2):
            peer.load("\\WINDOWS\\system32\\ntkrnlpa.exe", 0xFFFFFFFF80800000)
            peer.crash(0xD1, D1)
            peer.load("", 0xFFFFFFFFFFFFFFFF, 0, unload=True)
        assert len(of(listener, kd.GoingDown)) == 2
        assert [fact.code for fact in listener.facts()] == [0xD1, 0xD1]


def test_modules_come_and_go():
    with listening() as (listener, peer):
        path = "\\SystemRoot\\System32\\Drivers\\xenvbd.sys"
        assert peer.load(path, 0xFFFFFFFFF7A3C000) == 0x00010002
        peer.load(path, 0xFFFFFFFFF7A3C000, unload=True)
        first, second = of(listener, kd.ModuleLoad)
        assert (first.name, first.base, first.unloaded) == ("xenvbd.sys", 0xF7A3C000, False)
        assert second.unloaded


def test_memory_tells_what_the_print_did_not():
    with listening() as (listener, peer):
        peer.build_memory(
            0x7B, (1, 2, 3, 4), [("ntkrnlpa.exe", 0x80800000), ("xenvbd.sys", 0xF7A3C000)]
        )
        with guest_doing(peer.exception):
            bugcheck = listener.wait_for(kd.Bugcheck, soon())
            assert (bugcheck.code, bugcheck.parameters) == (0x7B, (1, 2, 3, 4))
            assert bugcheck.heard == "memory"
            listener.wait_for(kd.Left, soon())
            assert [event.name for event in of(listener, kd.ModuleLoad)] == [
                "ntkrnlpa.exe",
                "xenvbd.sys",
            ]
            assert of(listener, kd.System)[0].build == 3790
            listener.resume()
        fact = listener.facts()[0]
        assert fact.system == "Windows build 3790, 32-bit"


def test_stack_and_modules_of_a_guest_joined_late_point_at_the_driver():
    kernel, driver, stack = 0x80800000, 0xF7A3C000, 0xF8A11E00
    with listening(RESUMING) as (listener, peer):
        peer.build_memory(0x7B, (1, 2, 3, 4), [("ntkrnlpa.exe", kernel), ("xenvbd.sys", driver)])
        struct.pack_into("<I", peer.context, 0xB4, stack + 8)  # ebp
        struct.pack_into("<I", peer.context, 0xC4, stack)  # esp
        words = (0, 0, stack + 0x20, kernel + 0x1000, *(0,) * 4, 0, driver + 0x1B2)
        peer.put(stack, struct.pack(f"<{len(words)}I", *words).ljust(0x200, b"\0"))
        peer.crash(0x7B, (1, 2, 3, 4))
        (fact,) = listener.facts()
        assert [frame.text() for frame in fact.frames[-2:]] == [
            "ntkrnlpa.exe+0x1000",
            "xenvbd+0x1b2",
        ]
        assert fact.module == "xenvbd"
        assert [module.name for module in fact.modules] == ["ntkrnlpa.exe", "xenvbd.sys"]
        assert fact.sources["frames"].at.startswith("event ")
        # What the guest says itself counts more.
        peer.print("Driver at fault: xenpci.sys.\n")
        assert listener.facts()[0].module == "xenpci"


def test_modules_of_the_next_boot_are_not_the_crash_s():
    with listening(RESUMING) as (listener, peer):
        peer.load("ntkrnlpa.exe", 0xFFFFFFFF80800000)
        peer.load("xenvbd.sys", 0xFFFFFFFFF7A3C000)
        peer.crash(0xD1, D1)
        peer.load("ntkrnlpa.exe", 0xFFFFFFFF80800000)
        peer.load("other.sys", 0xFFFFFFFFF7B00000)
        (fact,) = listener.facts()
        assert [module.name for module in fact.modules] == ["ntkrnlpa.exe", "xenvbd.sys"]
        assert fact.module == "xenvbd"
        assert "parameter 4" in fact.sources["module"].at


def test_a_print_cut_before_its_parameters_is_completed_from_memory():
    with listening() as (listener, peer):
        peer.build_memory(0xD1, D1, [])
        peer.print("\n*** Fatal System Error: 0x000000d1\n")
        with guest_doing(peer.exception):
            listener.wait_for(kd.Left, soon())
            listener.resume()
        assert [event.parameters for event in of(listener, kd.Bugcheck)] == [D1]


def test_without_memory_the_code_alone_is_told():
    with listening() as (listener, peer):
        peer.print("\n*** Fatal System Error: 0x000000d1\n")
        with guest_doing(peer.exception):
            listener.wait_for(kd.Left, soon())
            listener.resume()
        assert [(event.code, event.parameters) for event in of(listener, kd.Bugcheck)] == [
            (0xD1, ())
        ]


def test_an_exception_nobody_handled_goes_to_the_guest_and_names_the_module():
    with listening(RESUMING) as (listener, peer):
        peer.load("xenvbd.sys", 0xFFFFFFFFF7A3C000)
        assert peer.exception(0xC0000005, address=0xFFFFFFFFF7A3D1B2, first_chance=0) == 0x80010001
        (fact,) = listener.facts()
        assert (fact.kind, fact.module) == ("unknown", "xenvbd")
        assert fact.frames[0].text() == "xenvbd+0x11b2"
        peer.crash(0x8E, (0xC0000005, 0xF7A3D1B2, 0, 0))
        (fact,) = listener.facts()
        assert (fact.code, fact.frames[0].text()) == (0x8E, "xenvbd+0x11b2")


def test_questions_and_file_requests_are_answered():
    with listening() as (listener, peer):
        peer.print("\n*** Assertion failed: Irql == 0\n***   Source File: xenvbd.c, line 12\n")
        assert peer.prompt("Break, Ignore (bi)? ", 2) == "i"
        assert peer.ask_file("xenvbd.sys") == 0xC0000001
        peer.print("still there\n")
        (fact,) = listener.facts()
        assert fact.kind == "assert"
        assert fact.message == "Irql == 0 (Source File: xenvbd.c, line 12)"


def test_a_guest_that_hits_the_same_place_for_ever_is_left():
    with listening(RESUMING) as (listener, peer):

        def loop():
            while not of(listener, kd.Left):
                peer.exception(stream=b"\x90")

        with guest_doing(loop):
            assert "in a row" in listener.wait_for(kd.Left, soon()).reason
            listener.resume()


def test_joining_a_guest_whose_packet_ids_are_unknown():
    with listening(RESUMING) as (listener, peer):
        peer.send_id, peer.expected = FIRST_ID ^ 1, FIRST_ID ^ 1
        peer.print("from the middle\n")
        assert peer.exception() == 0x00010002
        assert len(of(listener, kd.Stop)) == 1
        peer.print("and on\n")
        assert [event.text for event in of(listener, kd.DebugPrint)] == [
            "from the middle\n",
            "and on\n",
        ]


def test_a_reset_by_the_guest_is_answered_once():
    with listening() as (listener, peer):
        peer.print("one\n")
        peer.control(Type.RESET)
        listener.wait_for(kd.Lost, soon())
        assert peer.next_packet(time.monotonic() + 20).type is Type.RESET
        peer.send_id = peer.expected = FIRST_ID
        peer.control(Type.RESET)
        peer.print("two\n")
        assert [event.text for event in of(listener, kd.DebugPrint)] == ["one\n", "two\n"]


def test_a_guest_that_started_anew_repeats_its_stop_and_is_told_once():
    with listening() as (listener, peer):
        with guest_doing(peer.exception):
            listener.wait_for(kd.Left, soon())
            peer.restart()
            listener.resume()
        peer.print("done\n")
        assert len(of(listener, kd.Stop)) == 1


@pytest.mark.parametrize("asked", [GET_CONTEXT, SET_CONTEXT, GET_VERSION])
def test_a_guest_that_starts_anew_instead_of_answering_is_asked_again(asked):
    with listening(RESUMING) as (listener, peer):
        peer.restart_at = {asked}
        with guest_doing(peer.exception):
            listener.wait_for(kd.Resumed, soon())
        peer.print("done\n")
        assert len(of(listener, kd.Stop)) == 1
        assert of(listener, kd.Stop)[0].registers
        assert peer.requests.count(asked) == 2


def test_break_in_is_one_byte():
    with listening() as (listener, peer):
        listener.break_in()
        assert os.read(peer.fd, 16) == b"\x62"


def test_boot_messages_on_the_same_port_are_kept():
    with listening() as (listener, peer):
        os.write(peer.fd, b"SeaBIOS (vers")
        os.write(peer.fd, b"ion 1.16)\r\nBooting\x00\xff i 00")
        peer.print("kernel\n")
        assert [event.text for event in of(listener, kd.Stray)] == [
            "SeaBIOS (version 1.16)\r\n",
            "Booting i 00",
        ]
        os.write(peer.fd, b"x" * 5000 + b"\n")
        listener.wait_for(kd.Stray, soon(), where=lambda event: event.text.endswith("x\n"))


def test_a_message_too_short_is_told_and_survived():
    with listening() as (listener, peer):
        peer.send(Type.DEBUG_IO, b"\x30\x32")
        peer.send(Type.TRACE_IO, b"\x30\x33\0\0")
        peer.print("fine\n")
        assert [event.text for event in of(listener, kd.DebugPrint)] == ["fine\n"]
        assert len(of(listener, kd.Lost)) == 2


def test_waiting_names_what_did_not_come():
    with listening() as (listener, _), pytest.raises(DeadlineExpired, match="Bugcheck"):
        listener.wait_for(kd.Bugcheck, Deadline(0.01))


def test_a_closed_line_ends_the_waiting():
    guest, host = socket.socketpair()
    with guest, host:
        stream = SerialStream(host.fileno())
        with KdListener(stream) as listener:
            guest.close()
            with pytest.raises(LabBroken, match="closed"):
                listener.wait_for(kd.Bugcheck, soon())
            assert listener.wait_closed(soon())
        stream.close()
        assert host.getblocking()


@pytest.mark.parametrize("seed", range(4))
def test_a_bad_line_loses_and_doubles_nothing(seed):
    faults = Faults(seed, drop=0.1, lose_byte=0.1, flip=0.1, twice=0.1, garbage=0.1, deaf=0.1)
    lines = [f"line {number:02} of the guest 00 ii\n" for number in range(20)]
    # The guest repeats faster than the listener: a repetition of the listener's own would be
    # an acknowledgement to it (kddll.c, KdReceivePacket).
    manners = Manners(resume=True, resend_s=0.15, stall_s=0.02, reply_s=10.0)
    with listening(manners, faults, ack_s=0.02) as (listener, peer):
        for number, line in enumerate(lines):
            peer.print(line)
            if number % 10 == 4:
                peer.load(f"driver{number}.sys", 0xFFFFFFFFF7000000 + number * 0x10000)
        peer.crash(0xD1, D1)
        printed = [event.text for event in of(listener, kd.DebugPrint)]
        assert printed[: len(lines)] == lines
        assert [event.name for event in of(listener, kd.ModuleLoad)] == [
            "driver4.sys",
            "driver14.sys",
        ]
        (fact,) = listener.facts()
        assert (fact.code, fact.parameters) == (0xD1, D1)


def test_nobody_listening_makes_the_guest_give_up():
    guest, host = pty.openpty()
    tty.setraw(guest)
    try:
        with pytest.raises(GaveUp):
            Peer(guest, tries=2).print("hello?")
    finally:
        os.close(guest)
        os.close(host)


def test_the_records_say_what_was_seen(tmp_path):
    text, path = io.StringIO(), tmp_path / "kd.jsonl"
    with path.open("w") as file:
        sinks = (log.TextLog(text), log.JsonLog(file))
        with listening(RESUMING, sinks=sinks) as (listener, peer):
            peer.print("XenVbd --> Put\r\n")
            peer.crash(0xD1, D1)
            peer.print("Driver at fault: xenvbd.sys.\n")
            facts = listener.facts()
    lines = text.getvalue().splitlines()
    assert lines[0].endswith("Z  XenVbd --> Put")
    assert any("BUGCHECK 0x000000d1 (0x0000001c, " in line for line in lines)
    assert log.recognise(path.read_bytes(), "kd.jsonl")
    (fact,) = log.read(path)
    assert fact.module == "xenvbd"
    assert fact.log[0].driver == "xenvbd"
    assert fact.parameters == facts[0].parameters == D1
    assert set(fact.sources) >= {"code", "parameters", "module", "log", "when", "registers"}


def test_a_cut_record_is_read_up_to_the_cut(tmp_path):
    path = tmp_path / "kd.jsonl"
    with path.open("w") as file:
        sink = log.JsonLog(file)
        sink(kd.Bugcheck(1.0, 0xD1, D1, "print"))
        sink(kd.Closed(2.0))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    (fact,) = log.read(path)
    assert fact.notes == ("truncated: line 2 cannot be read",)
    for raw in (whole[:20], b'{"event": "print"}', b'{"event": ' * 5000, b"[]"):
        path.write_bytes(raw)
        with pytest.raises(UsageError):
            log.read(path)


def test_a_damaged_record_never_escapes(tmp_path):
    path = tmp_path / "kd.jsonl"
    with path.open("w") as file:
        sink = log.JsonLog(file)
        for event in (
            kd.ModuleLoad(1.0, "C:\\xenvbd.sys", 0xF7A3C000, 0x8000, 1, unloaded=False),
            kd.DebugPrint(2.0, "*** Assertion failed: x\n", 0),
            kd.System(2.5, 3790, wide=False),
            kd.Bugcheck(3.0, 0xD1, D1, "print"),
            kd.Stop(4.0, 0x80000003, PC, (0,), True, PC, 0, False, {"eax": 3}),
            kd.Stack(4.5, 0xF8A11E00, bytes(64).hex()),
            kd.Closed(5.0),
        ):
            sink(event)
    whole = path.read_bytes()
    chance = random.Random(7)  # noqa: S311
    for _ in range(200):
        raw = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(4) if raw else 0):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(raw))
        with contextlib.suppress(UsageError):
            log.read(path)


def test_a_record_of_too_many_crashes_is_cut():
    facts = crash_facts(
        (kd.Bugcheck(1.0, 0xD1, (number,) * 4, "print") for number in range(2000)), "x"
    )
    assert len(facts) == MAX_CRASHES
    assert facts[0].notes == (f"only the first {MAX_CRASHES} crashes of the record",)


def test_a_serial_port_is_a_socket_or_a_terminal(tmp_path):
    (tmp_path / "file").write_text("")
    for address, told in ((tmp_path / "file", "neither"), (tmp_path / "none", "No such file")):
        with pytest.raises(UsageError, match=told), open_serial(str(address)):
            pass
    with pytest.raises(UsageError, match="cannot be connected"), open_serial("127.0.0.1:1"):
        pass
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        with open_serial(str(tmp_path / "socket")) as stream:
            guest, _ = server.accept()
            with guest, KdListener(stream) as listener:
                Peer(guest.fileno()).print("over a socket\n")
                assert listener.wait_for(kd.DebugPrint, soon()).text == "over a socket\n"


def test_a_terminal_is_made_raw_and_given_back():
    guest, host = pty.openpty()
    try:
        with open_serial(os.ttyname(host)) as stream, KdListener(stream) as listener:
            Peer(guest).print("over a terminal\r\n")
            assert listener.wait_for(kd.DebugPrint, soon()).text == "over a terminal\r\n"
    finally:
        os.close(guest)
        os.close(host)
