"""diskio: the lab's raw disk tool, on plain files."""

from __future__ import annotations

import re

import pytest
from standin.tools import diskio
from standin_guest import Guest

from lab.guest import diskio as lab_side

SIZE = 4096


@pytest.fixture
def disk(guest: Guest):
    return guest.disk("xvdc", SIZE)


def test_size(guest: Guest, disk):
    assert guest.run("diskio size 1") == (0, f"bytes={SIZE * 512} sector=512\n", "")


def test_both_sides_have_one_pattern(guest: Guest, disk):
    guest.run("diskio write 1 /first:3 /count:40 /gen:7 /seed:9 /flush")
    assert disk.read_bytes()[3 * 512 : 43 * 512] == lab_side.pattern(3, 40, 7, 9)


def test_run_leaves_the_last_generation(guest: Guest, disk):
    code, out, _ = guest.run(
        f"diskio run 1 /first:0 /count:{SIZE} /gens:3 /block:99 /threads:4 /order:random /shift"
        " /log:C:\\pvlab\\run.log"
    )
    assert code == 0
    assert re.sub(r"\d+", "N", out.splitlines()[-1]) == "done errors=N mismatches=N requests=N ms=N"
    assert disk.read_bytes() == lab_side.pattern(0, SIZE, 3, 1)
    assert (guest.c / "pvlab/run.log").read_bytes().startswith(b"generation=1\r\ngeneration=2\r\n")


def test_overlapped_requests_do_the_same(guest: Guest, disk):
    code, out, _ = guest.run(
        f"diskio run 1 /first:1 /count:{SIZE - 2} /gens:2 /block:40 /threads:4 /order:random"
        " /overlapped"
    )
    assert code == 0, out
    assert disk.read_bytes()[512:-512] == lab_side.pattern(1, SIZE - 2, 2, 1)


def test_overlapped_errors_are_told(guest: Guest, disk):
    code, out, _ = guest.run(f"diskio verify 1 /first:{SIZE - 1} /count:2 /overlapped")
    assert code == 1
    assert "code=38" in out


def test_a_good_neighbour_does_not_fail_with_a_bad_one(guest: Guest, disk):
    # The kernel would make one request of both.
    guest.run("diskio write 1 /first:0 /count:8")
    assert (guest.root / "sys/block/xvdc/queue/nomerges").read_text() == "2"


def test_every_wrong_sector_is_named(guest: Guest, disk):
    guest.run(f"diskio write 1 /count:{SIZE}")
    data = bytearray(disk.read_bytes())
    data[512 * 5 + 100] ^= 1  # a bit
    data[512 * 7 : 512 * 8] = bytes(512)
    data[512 * 9 : 512 * 10] = data[512 * 11 : 512 * 12]
    disk.write_bytes(data)
    code, out, _ = guest.run(f"diskio verify 1 /count:{SIZE} /block:64")
    assert code == 2
    assert out.splitlines()[:3] == [
        "mismatch sector=5 gen=1 found=damaged",
        "mismatch sector=7 gen=1 found=zeroes",
        "mismatch sector=9 gen=1 found=sector:11,gen:1,seed:1",
    ]
    assert " mismatches=3 " in out


def test_reading_past_the_end_is_an_error(guest: Guest, disk):
    code, out, _ = guest.run(f"diskio verify 1 /first:{SIZE - 1} /count:2")
    assert code == 1
    assert out.startswith(f"error op=read first={SIZE - 1} count=2 code=38\n")


@pytest.mark.parametrize("line", ["diskio", "diskio eat 1", "diskio size x", "diskio write 1 /z:1"])
def test_usage(guest: Guest, disk, line):
    assert guest.run(line)[0] == 3


def test_the_system_disk_is_not_written(guest: Guest):
    before = (guest.root / "dev/sda").read_bytes()
    assert guest.run("diskio write 0 /count:1")[0] == 3
    assert guest.run("diskio bench 0 /count:8 /ops:1 /op:write")[0] == 3
    assert (guest.root / "dev/sda").read_bytes() == before


def test_no_such_disk(guest: Guest):
    assert guest.run("diskio size 5")[0] == 1


def test_what_a_wrong_sector_holds():
    data = diskio.sectors(8, 1, 2, 3)
    assert diskio.describe(data, 4) == "sector:8,gen:2,seed:3"
    assert diskio.describe(b"\xa5" * 512, 4) == "foreign:" + "a5" * 16
