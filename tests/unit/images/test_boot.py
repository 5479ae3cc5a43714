from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lab.core.errors import LabBroken
from lab.images.boot import (
    GUEST_FILE,
    HOST_FILE,
    GuestBoot,
    HostBoot,
    read_guest,
    read_host,
    write_guest,
    write_host,
)

HOST = HostBoot(
    kernel="xen",
    append="dom0_mem={dom0_mib}M",
    modules=(("vmlinux", "root=/dev/vda"), ("initrd", "")),
    root="root.img",
    private_key="id_ed25519",
    host_key="ssh-ed25519 AAAA",
    ssh_port=22,
    winrm_port=5985,
    guest_address="192.168.53.10",
    toolstacks=("xl", "xm"),
)

GUEST = GuestBoot(
    guest_type="hvm",
    bits="32-bit PAE",
    disk="disk.img",
    domain_config="domain.cfg.j2",
    files={"kernel": "vmlinuz"},
    username="Administrator",
    password_file="password",
    c_partition=2,
    c_folder="C",
)


def test_round_trip(tmp_path: Path):
    write_host(tmp_path, HOST)
    write_guest(tmp_path, GUEST)
    assert read_host(tmp_path) == HOST
    assert read_guest(tmp_path) == GUEST


def test_guest_whose_profile_says_the_password(tmp_path: Path):
    write_guest(tmp_path, GUEST.model_copy(update={"password_file": None, "files": {}}))
    found = read_guest(tmp_path)
    assert found.password_file is None
    assert found.files == {}


def test_descriptions_do_not_change():
    with pytest.raises(ValidationError):
        HOST.kernel = "other"  # type: ignore[misc]


def test_missing_description(tmp_path: Path):
    with pytest.raises(LabBroken, match=r"no usable host\.json: .*No such file") as caught:
        read_host(tmp_path)
    assert caught.value.hint == "pvlab image verify"


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": 5},
        {"toolstacks": ["xl", "virsh"]},
        {"ssh_port": "many"},
        {"modules": [["vmlinux"]]},
        {"unknown": 1},
    ],
    ids=str,
)
def test_damaged_host(tmp_path: Path, change: dict[str, Any]):
    (tmp_path / HOST_FILE).write_text(json.dumps({**HOST.model_dump(mode="json"), **change}))
    with pytest.raises(LabBroken, match=rf"no usable host\.json: .*{next(iter(change))}") as caught:
        read_host(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00", '{"guest_type": "hvm"}'])
def test_damaged_guest(tmp_path: Path, text: str):
    (tmp_path / GUEST_FILE).write_text(text)
    with pytest.raises(LabBroken, match=rf"{tmp_path.name}: no usable guest\.json"):
        read_guest(tmp_path)


def test_missing_field(tmp_path: Path):
    fields = GUEST.model_dump(mode="json")
    del fields["username"]
    (tmp_path / GUEST_FILE).write_text(json.dumps(fields))
    with pytest.raises(LabBroken, match="username"):
        read_guest(tmp_path)
