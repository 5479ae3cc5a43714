"""Damaged and hostile media: a line, never a traceback, never without end."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isomaker import centos_files, make_iso, windows_files
from pemaker import program

from lab.media.kinds import Identity, Unusable
from lab.media.probe import identify_apart
from lab.media.recognise import identify


class _TooLong(BaseException):
    """Not an Exception: the reader must not be able to take it for damage."""


@contextmanager
def _bounded(seconds: int = 60) -> Iterator[None]:
    """What a child process's limit on processor time does in production."""

    def ring(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def look(path: Path) -> Identity | Unusable:
    with _bounded():
        try:
            return identify(path)
        except Unusable as error:
            told = error
    assert "\n" not in str(told)
    return told


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("discs")
    return [
        make_iso(folder / "w.iso", windows_files()).read_bytes(),
        make_iso(folder / "c.iso", centos_files(), rock_ridge=True).read_bytes(),
    ]


@pytest.mark.parametrize("which", [0, 1])
def test_flipped_bits_of_discs(discs: list[bytes], which: int, tmp_path: Path) -> None:
    whole = discs[which]
    path = tmp_path / "given"
    chance = random.Random(which)  # noqa: S311 - the same damage in every run
    # Everything from the descriptors to the first file: where the structure is.
    used = [at for at in range(16 * 2048, len(whole)) if whole[at]]
    told = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for at in chance.sample(used, chance.choice((1, 1, 4, 40))):
            damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        told += isinstance(look(path), Unusable)
    assert told > 5


@pytest.mark.parametrize("which", [0, 1])
def test_discs_cut_off_anywhere(discs: list[bytes], which: int, tmp_path: Path) -> None:
    path = tmp_path / "given"
    for end in range(0, len(discs[which]) - 2048, 1021):
        path.write_bytes(discs[which][:end])
        assert isinstance(look(path), Unusable)


@given(data=st.data())
def test_flipped_bits_of_programs(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(program({"KB Article Number": "KB968930"}))
    for _ in range(data.draw(st.integers(0, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.exe"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    look(path)


@given(content=st.binary(max_size=400))
def test_any_bytes(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    assert isinstance(look(path), Unusable)


def test_a_folder_that_contains_itself_ends(discs: list[bytes], tmp_path: Path) -> None:
    """The record of I386 in the root points back at the root (ECMA-119, 9.1.3)."""
    disc = bytearray(discs[0])
    root = int.from_bytes(disc[16 * 2048 + 156 + 2 :][:4], "little")
    at = disc.index(b"\x04I386", root * 2048) - 32
    disc[at + 2 : at + 6] = root.to_bytes(4, "little")
    disc[at + 6 : at + 10] = root.to_bytes(4, "big")
    path = tmp_path / "given.iso"
    path.write_bytes(disc)
    with pytest.raises(Unusable, match=r"is damaged|is a damaged disc|one cannot install from"):
        identify_apart(path)


def test_the_reader_of_hostile_files_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that ends without a word, as one killed at its limits does."""
    path = tmp_path / "given"
    path.write_bytes(b"MZ")
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(Unusable, match=r"given: is damaged: reading it breaks the reader"):
        identify_apart(path)


def test_apart_and_together_say_the_same(discs: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "given.iso"
    path.write_bytes(discs[0])
    assert identify_apart(path) == identify(path)
    path.write_bytes(discs[0][: 20 * 2048])
    with pytest.raises(Unusable) as apart:
        identify_apart(path)
    with pytest.raises(Unusable) as together:
        identify(path)
    assert str(apart.value) == str(together.value)
