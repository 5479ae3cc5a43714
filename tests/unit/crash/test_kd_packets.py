from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.crash.kd.packets import (
    FIRST_ID,
    MAX_DATA,
    SYNC,
    Damaged,
    Noise,
    Packet,
    Parser,
    Type,
    encode,
)

DATA = Packet(Type.DEBUG_IO, FIRST_ID | SYNC, b"hello")
ACK = Packet(Type.ACKNOWLEDGE, FIRST_ID)

data_packets = st.builds(
    Packet,
    st.sampled_from([Type.DEBUG_IO, Type.STATE_CHANGE64, Type.STATE_MANIPULATE, Type.FILE_IO]),
    st.sampled_from([FIRST_ID, FIRST_ID ^ 1, FIRST_ID | SYNC]),
    st.binary(max_size=60),
)
control_packets = st.builds(
    Packet, st.sampled_from([Type.ACKNOWLEDGE, Type.RESEND, Type.RESET]), st.just(FIRST_ID)
)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[a:b] for a, b in itertools.pairwise(marks)]


def test_layout():
    assert encode(DATA) == bytes.fromhex("30303030 0300 0500 00088080 14020000") + b"hello\xaa"
    assert encode(ACK) == bytes.fromhex("69696969 0400 0000 00008080 00000000")


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="do not fit"):
        encode(Packet(Type.DEBUG_IO, FIRST_ID, bytes(MAX_DATA + 1)))
    with pytest.raises(ValueError, match="do not fit"):
        encode(Packet(Type.RESET, 0, b"x"))


@given(st.lists(data_packets | control_packets, max_size=6), st.lists(st.integers(0), max_size=9))
@settings(max_examples=100, deadline=None)
def test_packets_come_back_however_they_are_cut(packets, places):
    parser = Parser()
    pieces = cut(b"".join(map(encode, packets)), places)
    assert [item for piece in pieces for item in parser.feed(piece)] == packets
    assert not parser.partial


@given(st.binary(max_size=400), st.lists(st.integers(0), max_size=9))
@settings(max_examples=150, deadline=None)
def test_any_bytes_end_in_items(raw, places):
    parser = Parser()
    items = [item for piece in cut(raw, places) for item in parser.feed(piece)]
    for _ in range(len(raw) + 1):
        items += parser.give_up()
    assert not parser.partial
    noise = sum(len(item.data) for item in items if isinstance(item, Noise))
    assert noise <= len(raw)


@given(st.binary(max_size=40).filter(lambda raw: not {0x30, 0x69} & set(raw)), data_packets)
@settings(max_examples=60, deadline=None)
def test_a_packet_is_found_behind_garbage(junk, packet):
    items = Parser().feed(junk + encode(packet))
    assert items == ([Noise(junk)] if junk else []) + [packet]


@given(data_packets, st.data())
@settings(max_examples=100, deadline=None)
def test_one_wrong_data_byte_is_noticed_and_the_next_packet_found(packet, data):
    raw = bytearray(encode(packet))
    place = data.draw(st.integers(16, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    parser = Parser()
    items = parser.feed(bytes(raw) + encode(ACK) + encode(DATA))
    for _ in range(3):
        items += parser.give_up()
    found = [item for item in items if isinstance(item, Packet)]
    assert any(isinstance(item, Damaged) for item in items)
    assert found[-1] == DATA
    assert packet not in found or packet == DATA


def test_leader_bytes_before_the_leader():
    assert Parser().feed(b"00" + encode(DATA)) == [Noise(b"00"), DATA]
    assert Parser().feed(b"iii" + encode(DATA)) == [Noise(b"iii"), DATA]


def test_a_packet_that_breaks_off_is_given_up_and_its_repetition_found():
    parser = Parser()
    raw = encode(DATA)
    assert parser.feed(raw[:18]) == []
    assert parser.partial
    assert parser.give_up()[0] == Damaged("the packet breaks off")
    assert parser.feed(raw)[-1] == DATA


def test_a_length_that_lies_does_not_swallow_what_follows():
    parser = Parser()
    lying = bytes.fromhex("30303030 0300 a00f 00008080 00000000")
    items = parser.feed(lying + encode(DATA))
    assert items == []
    assert DATA in parser.give_up()


@pytest.mark.parametrize("header", ["0300a10f", "0c000000", "00000000", "04000000"])
def test_impossible_headers_are_noise(header):
    raw = bytes.fromhex("30303030" + header) + bytes(8)
    parser = Parser()
    items = parser.feed(raw + b"x" * 20)
    assert all(isinstance(item, Noise) for item in items)
    assert not parser.partial
