"""Command lines run: built-ins, operators, redirections, exit codes."""

from __future__ import annotations

import re
import time

import pytest
from standin_guest import Guest

NOT_FOUND = (
    "'{}' is not recognized as an internal or external command,\noperable program or batch file.\n"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("echo hi", (0, "hi\n", "")),
        ("echo.", (0, "\n", "")),
        ("echo", (0, "ECHO is on.\n", "")),
        ("ECHO   a  b ", (0, "  a  b \n", "")),
        ("echo %COMPUTERNAME% %NOPE%", (0, "STANDIN %NOPE%\n", "")),
        ("ver", (0, "\npvlab stand-in [Version 5.2.3790]\n", "")),
        ("rem x & echo y", (0, "", "")),
        ("nosuch", (1, "", NOT_FOUND.format("nosuch"))),
        ("nosuch & echo yes", (0, "yes\n", NOT_FOUND.format("nosuch"))),
        ("nosuch || echo bad", (0, "bad\n", NOT_FOUND.format("nosuch"))),
        ("nosuch 2>nul && echo ok", (1, "", "")),
        ("exit 7", (7, "", "")),
        ("exit /b 3 & echo no", (3, "", "")),
        ("(echo a & echo b) | findstr b", (0, "b\n", "")),
        ("echo a | exit 4", (4, "", "")),
        ("exit 4 | echo a", (0, "a\n", "")),
        ("if 1==1 (echo y) else (echo n)", (0, "y\n", "")),
        ("if not 1==1 (echo y) else (echo n)", (0, "n\n", "")),
        ("if /i abc==ABC echo same", (0, "same\n", "")),
        ("if 10 gtr 9 echo more", (0, "more\n", "")),
        ("if defined PATH echo d", (0, "d\n", "")),
        ("if exist C:\\windows\\SYSTEM32 echo d", (0, "d\n", "")),
        ("if exist Z:\\x (echo y) else echo n", (0, "n\n", "")),
        ("if exist C:\\pvlab\\nul echo folder", (0, "folder\n", "")),
        ("| echo", (1, "", "| was unexpected at this time.\n")),
        ("type", (1, "", "The syntax of the command is incorrect.\n")),
        ("type no.txt", (1, "", "The system cannot find the file specified.\n")),
        ("type no\\no.txt", (1, "", "The system cannot find the file specified.\n")),
        ("echo a > no\\x", (1, "", "The system cannot find the path specified.\n")),
        ("findstr x < no", (1, "", "The system cannot find the file specified.\n")),
        ("echo a > Z:\\x", (1, "", "The system cannot find the drive specified.\n")),
        ("cd", (0, "C:\\pvlab\n", "")),
        ("cd no", (1, "", "The system cannot find the path specified.\n")),
        ("cd \\win* & cd", (0, "C:\\pvlab\n", "The system cannot find the path specified.\n")),
        ("cd.. & cd & cd\\windows & cd", (0, "C:\\\nC:\\WINDOWS\n", "")),
        ("Z:", (1, "", "The system cannot find the drive specified.\n")),
        ("vol Z:", (1, "", "The system cannot find the path specified.\n")),
        ("md x & md x", (1, "", "A subdirectory or file x already exists.\n")),
        ('md a<b', (1, "", "The system cannot find the file specified.\n")),
        ("rd no", (2, "", "The system cannot find the file specified.\n")),
        ("md p\\q & rd p", (145, "", "The directory is not empty.\n")),
        ("md p\\q & rd /s /q P & dir /b", (1, "", "File Not Found\n")),
        ("set NOPE", (1, "", "Environment variable NOPE not defined\n")),
        ("set X=a b& set x", (0, "X=a b\n", "")),
        ("set X=1& set X=& set X", (1, "", "Environment variable X not defined\n")),
        ("dir /q", (1, "", 'Invalid switch - "q".\n')),
        ("dir Z:", (1, "", "The system cannot find the path specified.\n")),
        ("del no.txt", (0, "", "Could Not Find C:\\pvlab\\no.txt\n")),
        ("copy no.txt x", (1, "        0 file(s) copied.\n",
                           "The system cannot find the file specified.\n")),
        ("move no.txt x", (1, "", "The system cannot find the file specified.\n")),
        ('start "" nosuch', (9059, "", "The system cannot find the file nosuch.\n")),
        ('cmd /c "echo a & echo b"', (0, "a \nb\n", "")),
        ("cmd /c exit 9", (9, "", "")),
        ('"C:\\WINDOWS\\system32\\hostname.exe"', (0, "STANDIN\n", "")),
        ("C:\\nowhere\\hostname.exe", (1, "", NOT_FOUND.format("C:\\nowhere\\hostname.exe"))),
    ],
)  # fmt: skip
def test_lines(guest: Guest, line, expected):
    assert guest.run(line) == expected


def test_redirections_write_crlf(guest: Guest):
    guest.run("echo one>a.txt&echo two >> A.TXT& nosuch 2>> a.txt")
    data = (guest.c / "pvlab/a.txt").read_bytes()
    assert data.startswith(b"one\r\ntwo \r\n'nosuch' is not")
    assert guest.run("type a.txt | findstr two") == (0, "two \n", "")


def test_both_streams_into_one_file(guest: Guest):
    guest.run("(echo a & nosuch) > all.txt 2>&1")
    text = (guest.c / "pvlab/all.txt").read_text()
    assert text.startswith("a \n'nosuch'")


def test_bytes_pass_unchanged(guest: Guest):
    data = bytes(range(256)) * 40
    (guest.c / "pvlab/x.bin").write_bytes(data)
    assert guest.run("copy /b x.bin y.bin") == (0, "        1 file(s) copied.\n", "")
    assert guest.run("type y.bin > z.bin")[0] == 0
    assert (guest.c / "pvlab/z.bin").read_bytes() == data
    assert guest.run("fc /b x.bin z.bin")[0] == 0


def test_copy_joins_and_matches(guest: Guest):
    guest.run("echo a>a.txt&echo b>b.txt&md d")
    assert guest.run("copy /b a.txt+b.txt c.txt")[1] == "        1 file(s) copied.\n"
    assert (guest.c / "pvlab/c.txt").read_bytes() == b"a\r\nb\r\n"
    assert guest.run("copy *.txt d")[1] == "a.txt\nb.txt\nc.txt\n        3 file(s) copied.\n"
    assert guest.run("copy a.txt a.txt") == (
        1, "        0 file(s) copied.\n", "The file cannot be copied onto itself.\n"
    )  # fmt: skip
    assert guest.run("copy nul empty.txt")[0] == 0
    assert guest.run("del d\\*.txt & dir /b d") == (1, "", "File Not Found\n")


def test_move_and_rename(guest: Guest):
    guest.run("echo a>a.txt & md d")
    assert guest.run("move /y a.txt d") == (0, "        1 file(s) moved.\n", "")
    assert guest.run("ren d\\a.txt B.txt & dir /b d") == (0, "B.txt\n", "")
    assert guest.run("ren d\\no.txt x")[0] == 1


def test_dir(guest: Guest, golden):
    guest.run("md sub & echo hello>a.txt")
    code, out, err = guest.run("dir")
    out = re.sub(r"\d\d/\d\d/\d{4}  \d\d:\d\d [AP]M", "01/02/2003  04:05 PM", out)
    out = re.sub(r" +[\d,]+ bytes free", "      1,000,000 bytes free", out)
    out = re.sub(r"Number is \w{4}-\w{4}", "Number is 0123-4567", out)
    assert (code, err) == (0, "")
    assert out == golden("dir.txt")
    assert guest.run("dir /b /s")[1] == "C:\\pvlab\\a.txt\nC:\\pvlab\\sub\n"
    assert guest.run("dir /ad /b")[1] == "sub\n"
    assert guest.run("dir /b a.*")[1] == "a.txt\n"
    assert guest.run("dir /b no.txt") == (1, "", "File Not Found\n")


def test_names_are_found_in_any_case(guest: Guest):
    (guest.c / "pvlab/MiXed.Txt").write_text("x\n")
    assert guest.run("type c:\\PVLAB\\mixed.TXT")[0] == 0
    guest.run("echo y> MIXED.txt")
    assert [path.name for path in (guest.c / "pvlab").iterdir()] == ["MiXed.Txt"]


def test_pipe_keeps_children_apart(guest: Guest):
    assert guest.run("set X=1 | echo a & set X")[0] == 1


def test_started_program_outlives_its_command(guest: Guest):
    assert guest.run('start "title" findstr /m x nosuchfile') == (0, "", "")
    assert guest.run("start /wait cmd /c exit 6")[0] == 6


def test_date_and_time(guest: Guest):
    assert re.fullmatch(r"\w{3} \d\d/\d\d/\d{4} \n", guest.run("date /t")[1])
    assert re.fullmatch(r"\d\d:\d\d [AP]M\n", guest.run("time /t")[1])
    assert guest.host.clock is None
    assert guest.run("date 02-29-2004")[0] == 0
    assert time.strftime("%Y-%m-%d", time.localtime(guest.host.clock)) == "2004-02-29"
    assert guest.run("time 07:08:09")[0] == 0
    assert time.strftime("%H:%M:%S", time.localtime(guest.host.clock)) == "07:08:09"
    assert guest.run("time 7:08")[0] == 0
    for wrong in ("date 02-30-2004", "date", "time 25:00", "date tomorrow", "time 1:2:3:4"):
        code, _, said = guest.run(wrong)
        assert code == 1
        assert said == f"The system cannot accept the {wrong[:4]} entered.\n"
    assert guest.run("date 01-01-1960")[2] == "A required privilege is not held by the client.\n"
