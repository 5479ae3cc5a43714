"""findstr, certutil and fc."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin.tools import certutil
from standin_guest import Guest

TEXT = b"alpha\r\nBeta x\r\ngamma 42\r\n"


@pytest.mark.parametrize(
    ("arguments", "code", "out"),
    [
        ('"^"', 0, TEXT),
        ("a", 0, TEXT),
        ("beta", 1, b""),
        ("/i beta", 0, b"Beta x\r\n"),
        ("/v /i beta", 0, b"alpha\r\ngamma 42\r\n"),
        ('"alp 42"', 0, b"alpha\r\ngamma 42\r\n"),
        ('/c:"ta x"', 0, b"Beta x\r\n"),
        ('/c:"a.p"', 1, b""),
        ('/r /c:"a.p"', 0, b"alpha\r\n"),
        ("/n 42$", 0, b"3:gamma 42\r\n"),
        ("/o 42", 0, b"15:gamma 42\r\n"),
        ("/b a", 0, b"alpha\r\n"),
        ("/e x", 0, b"Beta x\r\n"),
        ("/x alpha", 0, b"alpha\r\n"),
        ("/l a.p", 1, b""),
        ("[0-9][0-9]", 0, b"gamma 42\r\n"),
        ('"[^a-z0-9]x"', 0, b"Beta x\r\n"),
        ('"\\<x\\>"', 0, b"Beta x\r\n"),
        ("\\.", 1, b""),
        ("mm*a", 0, b"gamma 42\r\n"),
    ],
)
def test_findstr(guest: Guest, arguments, code, out):
    found, text, _ = guest.run(f"findstr {arguments}", TEXT)
    assert (found, text.replace("\n", "\r\n").encode()) == (code, out)


def test_findstr_in_files(guest: Guest):
    (guest.c / "pvlab/a.txt").write_bytes(TEXT)
    (guest.c / "pvlab/b.txt").write_bytes(b"beta")
    assert guest.run("findstr /i beta *.txt")[1] == "a.txt:Beta x\nb.txt:beta\n"
    assert guest.run("findstr /m a a.txt b.txt")[1] == "a.txt\nb.txt\n"
    assert guest.run("findstr beta b.txt") == (0, "beta\n", "")
    assert guest.run("findstr /s /i beta C:\\pvlab\\b*.txt")[0] == 0
    assert guest.run("findstr x no.txt") == (2, "", "FINDSTR: Cannot open no.txt\n")
    (guest.c / "pvlab/g.txt").write_bytes(b"alpha\r\n")
    assert guest.run("findstr /g:g.txt a.txt")[1] == "alpha\n"
    assert guest.run("findstr") == (2, "", "FINDSTR: Bad command line\n")
    assert guest.run("findstr /q x") == (2, "", "FINDSTR: Bad command line\n")
    assert guest.run("findstr /g:no x")[0] == 2


def test_findstr_ends_the_last_line(guest: Guest):
    assert guest.run('findstr "^"', b"a\r\nb")[1] == "a\nb\n"
    assert guest.run('findstr "^"', b"")[0] == 1


def test_certutil_round_trip(guest: Guest):
    data = bytes(range(256)) * 9
    (guest.c / "pvlab/a.bin").write_bytes(data)
    code, out, _ = guest.run("certutil -encode a.bin a.b64")
    size = (guest.c / "pvlab/a.b64").stat().st_size
    assert (code, out) == (
        0,
        f"Input Length = 2304\nOutput Length = {size}\n"
        "CertUtil: -encode command completed successfully.\n",
    )
    assert guest.run("certutil -decode -f a.b64 b.bin")[0] == 0
    assert (guest.c / "pvlab/b.bin").read_bytes() == data
    assert guest.run("certutil -decode a.b64 b.bin") == (
        -2147024816,
        "CertUtil: -decode command FAILED: 0x80070050 (WIN32: 80)\nCertUtil: The file exists.\n",
        "",
    )


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_certutil_base64(data):
    assert certutil.decode(certutil.encode(data)) == data
    assert certutil.decode(base64.encodebytes(data)) == data


def test_certutil_hash(guest: Guest):
    (guest.c / "pvlab/a.bin").write_bytes(b"abc")
    for name, made in (("", "sha1"), (" md5", "md5")):
        code, out, _ = guest.run(f"certutil -hashfile a.bin{name}")
        assert code == 0
        assert out.splitlines()[1].replace(" ", "") == hashlib.new(made, b"abc").hexdigest()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        ("-decode no.b64 x", "0x80070002 (WIN32: 2)"),
        ("-hashfile no.bin", "0x80070002"),
        ("-encode empty x", "0x800703ee (WIN32: 1006)"),
        ("-hashfile empty", "0x800703ee"),
        ("-hashfile C:\\boot.ini CRC", "0xd0000225"),
        ("-decode C:\\boot.ini x", "0x8007000d (WIN32: 13)"),
        ("-nonsense", "Unknown arg: -nonsense"),
        ("", "Missing command"),
        ("-encode a", "Expected at least 2"),
        ("-encode a b c", "Too many arguments"),
    ],
)
def test_certutil_errors(guest: Guest, arguments, fragment):
    (guest.c / "pvlab/empty").write_bytes(b"")
    code, out, _ = guest.run(f"certutil {arguments}")
    assert code < 0
    assert fragment in out


def test_fc(guest: Guest):
    folder = guest.c / "pvlab"
    (folder / "a").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    (folder / "b").write_bytes(b"one\r\nTWO\r\nthree\r\n")
    (folder / "c").write_bytes(b"one\r\n")
    assert guest.run("fc /b a a") == (
        0, "Comparing files a and A\nFC: no differences encountered\n\n", ""
    )  # fmt: skip
    assert guest.run("fc /b a b") == (
        1,
        "Comparing files a and B\n00000005: 74 54\n00000006: 77 57\n00000007: 6F 4F\n\n",
        "",
    )
    assert guest.run("fc /b a c")[1].endswith("FC: A longer than C\n\n")
    assert guest.run("fc /b c a")[1].endswith("FC: A longer than C\n\n")
    assert guest.run("fc a b")[1] == (
        "Comparing files a and B\n***** a\none\ntwo\nthree\n***** B\none\nTWO\nthree\n*****\n\n"
    )
    assert guest.run("fc /c a b")[0] == 0
    assert guest.run("fc a no")[0] == 2
    assert guest.run("fc a")[0] == -1
    assert guest.run("fc /z a b")[0] == -1
