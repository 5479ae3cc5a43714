from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.cli.place import become, ssh_command
from lab.core.errors import LabBroken

DOM0 = SimpleNamespace(host="127.0.0.1", port=2222, username="root", key_file=Path("/k/dom0"))


def test_login_shell():
    command = ssh_command(DOM0, [])
    assert command[0] == "ssh"
    assert command[-1] == "root@127.0.0.1"
    assert command[command.index("-p") + 1] == "2222"
    assert command[command.index("-i") + 1] == "/k/dom0"
    assert "-t" not in command


def test_command_reaches_dom0_s_shell_as_it_was_typed():
    command = ssh_command(DOM0, ["ls", "a b", "$HOME"], terminal=True)
    assert command[-1] == "ls 'a b' '$HOME'"
    assert "-t" in command


def test_missing_program_is_the_lab_s():
    with pytest.raises(LabBroken, match="no-such-program cannot be started"):
        become(["no-such-program"])
