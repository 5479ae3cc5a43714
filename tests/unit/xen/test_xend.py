from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from xen_fakes import ScriptedDom0, ShellDom0

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired, LabBroken
from lab.xen.xend import AutoCore, parse_log, read_log, rotated
from lab.xen.xm import XmToolstack

# XendLogging.py of 3.1, and what DevController.py and XendDomainInfo.py log.
LOG = [
    "a line that began in a file which is gone",
    "[2007-11-19 12:00:00 3456] DEBUG (DevController:148) Waiting for 5632.",
    "[2007-11-19 12:01:40 3456] ERROR (xmlrpclib2:178) Device 5632 (vbd) could not be connected.",
    "Traceback (most recent call last):",
    '  File "/usr/lib/python2.4/site-packages/xen/util/xmlrpclib2.py", line 131, in _dispatch',
    "[2007-11-19 12:02:00 3456] WARNING (XendDomainInfo:875) Domain has crashed: name=x id=7.",
]


def test_the_names_of_cores() -> None:
    core = AutoCore.parse("2007-1119-1203.59-virt-demo.1.7.core")
    assert core == AutoCore(
        "2007-1119-1203.59-virt-demo.1.7.core",
        datetime(2007, 11, 19, 12, 3, 59),
        "virt-demo.1",
        7,
        True,
    )
    incomplete = AutoCore.parse("2007-1119-1203.59-virtdemo.7.core-incomplete")
    assert incomplete is not None
    assert not incomplete.complete
    for other in ("x.core", "2007-1399-1203.59-x.7.core", "/var/xen/dump:"):
        assert AutoCore.parse(other) is None


def test_automatic_cores() -> None:
    dom0 = ScriptedDom0().answer(
        "ls -1 /var/xen/dump /var/lib/xen/dump",
        "/var/lib/xen/dump:\n2007-1119-1203.59-b.8.core\n2007-1118-1203.59-a.7.core\n\n"
        "/var/xen/dump:\n2007-1118-1203.59-a.7.core\nnotes\n",
        exit_code=2,
    )
    cores = XmToolstack(dom0).automatic_cores(Deadline(5))
    assert [(one.name, one.domid) for one in cores] == [("a", 7), ("b", 8)]


def test_log() -> None:
    lines = list(parse_log(LOG))
    assert [(one.level, one.module) for one in lines] == [
        ("DEBUG", "DevController"),
        ("ERROR", "xmlrpclib2"),
        ("WARNING", "XendDomainInfo"),
    ]
    assert [one.trouble for one in lines] == [False, True, True]
    assert lines[1].text.splitlines()[1] == "Traceback (most recent call last):"
    assert lines[2].time == datetime(2007, 11, 19, 12, 2)


def test_log_of_3_0() -> None:
    (line,) = parse_log(["[2006-11-19 12:00:00 xend] INFO (SrvDaemon:283) Xend Daemon started"])
    assert line.text == "Xend Daemon started"


def test_a_log_that_was_rotated_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "xend.log").write_text("\n".join(LOG[4:]))
    (tmp_path / "xend.log.1").write_text("\n".join(LOG[2:4]) + "\n")
    (tmp_path / "xend.log.2").write_text("\n".join(LOG[1:2]) + "\n")
    (tmp_path / "xend.log.10").write_text(LOG[0] + "\n")
    (tmp_path / "xend.log.old").write_text("something else")
    assert [one.name for one in rotated(tmp_path)] == [
        "xend.log.10", "xend.log.2", "xend.log.1", "xend.log",
    ]  # fmt: skip
    assert list(read_log(tmp_path)) == list(parse_log(LOG))
    assert list(read_log(tmp_path / "none")) == []


RESTART = """#!/bin/sh
case $0 in
  */service) [ "$*" = 'xend restart' ] && echo 0 >{folder}/tries ;;
  *) read -r n <{folder}/tries; echo $((n + 1)) >{folder}/tries
     [ "$n" -ge {after} ] || {{ echo 'Error: Unable to connect to xend: x. Is xend running?' >&2
       exit 1; }}
     echo 'Name                                      ID   Mem VCPUs      State   Time(s)' ;;
esac
"""


def restarting(folder: Path, after: int) -> XmToolstack:
    for name in ("service", "xm"):
        (folder / name).write_text(RESTART.format(folder=folder, after=after))
        (folder / name).chmod(0o755)
    return XmToolstack(ShellDom0(folder))


def test_restart_waits_until_xend_answers(tmp_path: Path) -> None:
    restarting(tmp_path, 2).restart_daemon(Deadline(20))
    assert (tmp_path / "tries").read_text() == "3\n"


def test_restart_that_does_not_help(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExpired, match=r"xend to answer.*Unable to connect to xend"):
        restarting(tmp_path, 99).restart_daemon(Deadline(0.6))


def test_restart_that_fails() -> None:
    dom0 = ScriptedDom0().answer("service xend restart", stderr="xend: unrecognized", exit_code=1)
    with pytest.raises(LabBroken, match="unrecognized"):
        XmToolstack(dom0).restart_daemon(Deadline(5))
