"""Partition tables: layout, alignment, round trips."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin import mbr


def test_first_partition_is_where_server_2003_puts_it():
    partition = mbr.allocate(mbr.Table(), 131072)
    assert (partition.number, partition.kind, partition.start) == (1, 0x07, 63)
    assert partition.end == 8 * mbr.CYLINDER  # the last whole cylinder of 64 MiB


def test_sizes_are_rounded_up_to_cylinders():
    table = mbr.Table()
    first = mbr.allocate(table, 131072, 20 * 2048)
    assert (first.start, first.end) == (63, 3 * mbr.CYLINDER)
    table.partitions.append(first)
    second = mbr.allocate(table, 131072)
    assert (second.number, second.start, second.end) == (2, first.end, 8 * mbr.CYLINDER)


def test_no_room():
    table = mbr.Table()
    assert mbr.allocate(table, 131072, 131072) is None
    for number in range(1, 5):
        table.partitions.append(mbr.Partition(number, 7, number * mbr.CYLINDER, mbr.CYLINDER))
    assert mbr.allocate(table, 1 << 21) is None


def test_small_disk_is_used_to_its_end():
    partition = mbr.allocate(mbr.Table(), 10000)
    assert (partition.start, partition.end) == (63, 10000)


def test_bytes_of_an_entry():
    table = mbr.Table(0x12345678, [mbr.Partition(1, 7, 63, mbr.CYLINDER - 63, True)])
    sector = mbr.encode(table, b"\xfa" * 512)
    assert sector[:0x1B8] == b"\xfa" * 0x1B8  # code that was there stays
    assert sector[0x1B8:0x1BE] == b"\x78\x56\x34\x12\0\0"
    assert sector[0x1BE:0x1CE] == bytes.fromhex("80 01 01 00 07 fe 3f 00 3f000000 823e0000")
    assert sector[0x1FE:] == b"\x55\xaa"


def test_far_partition_has_the_largest_chs():
    sector = mbr.encode(mbr.Table(1, [mbr.Partition(4, 7, 1 << 30, 1 << 20)]))
    assert sector[0x1EF:0x1F2] == b"\xfe\xff\xff"


@pytest.mark.parametrize("data", [b"", b"\0" * 512, b"\xff" * 500])
def test_disks_without_a_table(data):
    table = mbr.decode(data)
    assert not table.valid
    assert table.partitions == []


def test_gpt_is_recognised():
    assert mbr.Table(0, [mbr.Partition(1, 0xEE, 1, 99)]).is_gpt


ENTRIES = st.dictionaries(
    st.integers(1, 4),
    st.tuples(st.integers(1, 255), st.integers(0, 2**32 - 1), st.integers(1, 2**32 - 1),
              st.booleans()),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), ENTRIES)
def test_round_trip(signature, entries):
    partitions = [mbr.Partition(number, *fields) for number, fields in sorted(entries.items())]
    again = mbr.decode(mbr.encode(mbr.Table(signature, partitions)))
    assert again.signature == signature
    assert [(p.number, p.kind, p.start, p.sectors, p.active) for p in again.partitions] == [
        (number, *fields) for number, fields in sorted(entries.items())
    ]


@pytest.mark.skipif(shutil.which("sfdisk") is None, reason="needs util-linux")
def test_sfdisk_reads_the_same(tmp_path):
    disk = tmp_path / "disk"
    table = mbr.Table(0xCAFE0001)
    table.partitions.append(mbr.allocate(table, 131072, 20 * 2048))
    table.partitions.append(mbr.allocate(table, 131072))
    with disk.open("wb") as file:
        file.write(mbr.encode(table))
        file.truncate(131072 * 512)
    out = subprocess.run(["sfdisk", "-d", disk], capture_output=True, text=True, check=True).stdout
    assert "label-id: 0xcafe0001" in out
    assert "start=          63, size=       48132, type=7" in out
