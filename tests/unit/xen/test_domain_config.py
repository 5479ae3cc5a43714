"""A domain's configuration in both dialects, read back by Python itself, as xm does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.core.paths import repo_root
from lab.xen import xm
from lab.xen.config import DomainConfig

HVM = DomainConfig(
    name="virtdemo",
    hvm=True,
    memory_mib=512,
    vcpus=1,
    disks=("phy:/dev/vg00/virt-virtdemo,hda,w", "file:/srv/cd.iso,hdc:cdrom,r"),
    vifs=("mac=00:16:3e:00:00:10,bridge=xenbr0,type=ioemu",),
    others={
        "pae": 1,
        "acpi": 1,
        "apic": 1,
        "boot": "c",
        "serial": "pty",
        "on_poweroff": "destroy",
        "on_reboot": "restart",
        "on_crash": "restart",
    },
)
PV = DomainConfig(
    name="pv", hvm=False, memory_mib=160, kernel="/boot/k", ramdisk="/boot/r", cmdline="quiet"
)

WORDS = st.text("abcdefghijklmnop-_./:, =", min_size=1, max_size=12)
CONFIGS = st.builds(
    DomainConfig,
    name=WORDS,
    hvm=st.just(True),
    memory_mib=st.integers(1, 1 << 16),
    vcpus=st.integers(1, 8),
    disks=st.lists(WORDS, max_size=3).map(tuple),
    vifs=st.lists(WORDS, max_size=2).map(tuple),
    others=st.dictionaries(
        st.sampled_from(["pae", "acpi", "boot", "serial", "vnc"]),
        st.one_of(WORDS, st.integers(0, 9)),
    ),
)


def executed(program: str) -> dict[str, Any]:
    """What xm gets: it executes the file (tools/python/xen/xm/create.py)."""
    values: dict[str, Any] = {}
    exec(program, {}, values)  # noqa: S102 - that is the format
    return values


def test_what_xm_gets() -> None:
    assert executed(HVM.for_xm()) == {
        "name": "virtdemo",
        "builder": "hvm",
        "kernel": "/usr/lib/xen/boot/hvmloader",
        "device_model": "/usr/lib/xen/bin/qemu-dm",
        "memory": 512,
        "vcpus": 1,
        "disk": ["phy:/dev/vg00/virt-virtdemo,hda,w", "file:/srv/cd.iso,hdc:cdrom,r"],
        "vif": ["mac=00:16:3e:00:00:10,bridge=xenbr0,type=ioemu"],
        "pae": 1,
        "acpi": 1,
        "apic": 1,
        "boot": "c",
        "serial": "pty",
        "on_poweroff": "destroy",
        "on_reboot": "restart",
        "on_crash": "restart",
    }
    assert executed(HVM.for_xm(library="lib64"))["device_model"] == "/usr/lib64/xen/bin/qemu-dm"
    pv = executed(PV.for_xm())
    assert (pv["kernel"], pv["extra"], "builder" in pv) == ("/boot/k", "quiet", False)


def test_what_xl_gets() -> None:
    assert HVM.for_xl().splitlines()[:3] == ['name = "virtdemo"', 'type = "hvm"', "memory = 512"]
    assert 'cmdline = "quiet"' in PV.for_xl()


@given(CONFIGS)
def test_both_dialects_are_read_back(config: DomainConfig) -> None:
    assert DomainConfig.read(config.for_xl()) == config
    assert DomainConfig.read(config.for_xm()) == config


@pytest.mark.parametrize("image", ["standin-pae", "standin-pv"])
def test_the_stand_ins_domains(image: str) -> None:
    template = (repo_root() / "images" / image / "domain.cfg.j2").read_text()
    text = jinja2.Template(template).render(
        name="virtdemo", memory_mib=96, system_disk="/dev/vdc", serial_log="/l", kernel="/k",
        ramdisk="/r",
    )  # fmt: skip
    config = DomainConfig.read(text)
    assert DomainConfig.read(config.for_xl()) == config
    assert executed(config.for_xl()) == executed(text)


@pytest.mark.skipif(not shutil.which("awk"), reason="no awk here")
def test_the_shim_makes_the_same_of_it(tmp_path: Path) -> None:
    template = (repo_root() / "images/standin-pae/domain.cfg.j2").read_text()
    text = jinja2.Template(template).render(
        name="virtdemo", memory_mib=96, system_disk="/dev/vdc", serial_log="/l"
    )
    config = DomainConfig.read(text)
    program = xm.shim().decode().split("CONFIG='", 1)[1].split("'\n\ncreate()")[0]
    done = subprocess.run(
        ["awk", program], input=config.for_xm(), capture_output=True, text=True, check=True
    )
    assert DomainConfig.read(done.stdout) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 'x'", "needs a name and a memory size"),
        ("import os\nname = 'x'", "line 1: not a plain value"),
        ("name = 'x'\nmemory = 64 * 4\n", "line 2: not a plain value"),
        ("name = 'x'\nmemory = 'much'\n", "'much' where a number belongs"),
        ("name = 'x'\nmemory = 64\ndisk = 'phy:a,b,w'", "where a list belongs"),
        ("name = 5\nmemory = 64", "5 where a text belongs"),
        ("name = 'x\n", "line 1: cannot be read"),
        ("name = 'x'\nmemory = 64\non_crash = 'explode'", "on_crash: `explode` is not for every"),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        DomainConfig.read(text)
    assert "\n" not in caught.value.message


def test_what_a_dialect_cannot_say() -> None:
    direct = DomainConfig(name="x", hvm=True, memory_mib=64, kernel="/boot/k")
    assert DomainConfig.read(direct.for_xl()) == direct
    with pytest.raises(UsageError, match="cannot boot an HVM guest from a kernel"):
        direct.for_xm()
    with pytest.raises(UsageError, match="cannot hold this text"):
        HVM.with_name("both ' and \"").for_xl()
