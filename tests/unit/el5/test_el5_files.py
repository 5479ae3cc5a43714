"""What is put into a host of Enterprise Linux 5, read by others than its writers."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import sexpdata
from insights.parsers.grub_conf import Grub1Config
from insights.tests import context_wrap
from pykickstart.parser import KickstartParser
from pykickstart.version import RHEL5, makeVersion

from lab.core.errors import UsageError
from lab.core.paths import repo_root
from lab.el5.files import host_files
from lab.el5.kickstart import DONE, FAILED, HOST_KEY, Kickstart
from lab.el5.model import Variant
from lab.images.recipe import load_recipes
from lab.media.kinds import MediaKind

IMAGES = repo_root() / "images"
VARIANTS = ["xen31-centos5", "xen31-centos5-dom0-64", "xen34-centos5"]
KEY = "ssh-rsa AAAAB3NzaC1yc2E= pvlab"


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Variant:
    return Variant.load(IMAGES / request.param)


def file(variant: Variant, path: str) -> str:
    (found,) = [one.text for one in host_files(variant, KEY) if one.path == path]
    return found


# -- grub.conf, xend-config.sxp ------------------------------------------------------------


def test_grub_conf(variant: Variant) -> None:
    text = file(variant, "/boot/grub/grub.conf")
    parsed = Grub1Config(context_wrap(text))
    (entry,) = parsed["title"]
    assert parsed["configs"]["default"] == ["0"]
    hypervisor, *words = shlex.split(entry["kernel"][0])
    assert hypervisor == "/xen-lab.gz"
    assert f"dom0_mem={variant.dom0_mib}M" in words
    assert {"com1=115200,8n1", "console=com1"} <= set(words)
    kernel, initrd = entry["module"]
    assert kernel.startswith("/vmlinuz-lab ro root=/dev/hda2 ")
    assert "console=ttyS0,115200" in kernel.split()
    assert initrd == "/initrd-lab.img"
    assert entry["root"] == ["(hd0,0)"]


def test_xend_config(variant: Variant) -> None:
    text = file(variant, "/etc/xen/xend-config.sxp").replace("'", '"').replace("\\", "\\\\")
    settings = {
        str(one[0].value()): one[1] for one in sexpdata.parse(text, true="yes", false="no", nil="")
    }
    assert settings["xend-relocation-hosts-allow"].split() == [
        r"^localhost$", r"^localhost\.localdomain$", r"^127\.0\.0\.1$",
    ]  # fmt: skip
    assert settings["network-script"].value() == "network-dummy"
    assert settings["vif-script"] == "vif-bridge bridge=xenbr0"
    assert settings["dom0-min-mem"] == variant.dom0_mib
    assert settings["enable-dump"] is True
    assert settings["xend-http-server"] is False


def test_the_network_is_the_lab_s() -> None:
    variant = Variant.load(IMAGES / "xen31-centos5")
    rules = file(variant, "/etc/sysconfig/iptables")
    assert "--dport 5985 -j DNAT --to-destination 192.168.53.10:5985" in rules
    assert "--dport 5986 -j DNAT --to-destination 192.168.53.11:5985" in rules
    bridge = dict(
        line.split("=")
        for line in file(variant, "/etc/sysconfig/network-scripts/ifcfg-xenbr0").splitlines()
    )
    assert bridge["TYPE"] == "Bridge"
    assert bridge["IPADDR"] == "192.168.53.1"


@pytest.mark.skipif(not shutil.which("iptables-restore"), reason="no iptables here")
def test_iptables_takes_the_rules() -> None:
    rules = file(Variant.load(IMAGES / "xen31-centos5"), "/etc/sysconfig/iptables")
    done = subprocess.run(["iptables-restore", "--test"], input=rules, text=True, check=False)
    assert done.returncode in (0, 3, 4)  # without the rights, it still reads them


# -- the kickstart -------------------------------------------------------------------------


def parsed(variant: Variant) -> KickstartParser:
    parser = KickstartParser(makeVersion(RHEL5))
    parser.readKickstartFromString(Kickstart(variant, KEY).text())
    return parser


def test_kickstart_for_rhel_5(variant: Variant) -> None:
    handler = parsed(variant).handler
    assert handler.bootloader.location == "mbr"
    assert [(one.mountpoint, one.disk) for one in handler.partition.partitions] == [
        ("/boot", "hda"), ("/", "hda"), ("swap", "hda"),
    ]  # fmt: skip
    (network,) = handler.network.network
    assert (network.ip, network.hostname) == ("10.0.2.15", "dom0")
    assert {"kernel-xen", "xen", "lvm2"} <= set(handler.packages.packageList)
    assert [one.name for one in handler.packages.groupList] == ["core"]
    assert handler.selinux.selinux == 0
    assert handler.rootpw.isCrypted


def test_scripts_of_the_kickstart(variant: Variant) -> None:
    scripts = parsed(variant).handler.scripts
    outside = [one for one in scripts if one.type == 1 and not one.inChroot]
    assert len(outside) == (1 if variant.hypervisor_medium else 0)
    for one in scripts:
        # Without an end of sections, an anaconda of that time would run it as a command.
        assert "%end" not in one.script
        done = subprocess.run(["bash", "-n"], input=one.script, text=True, capture_output=True)
        assert done.stderr == ""


@pytest.mark.parametrize("image", VARIANTS)
def test_nothing_of_it_is_secret(image: str) -> None:
    text = Kickstart(Variant.load(IMAGES / image), KEY).text()
    assert "PRIVATE KEY" not in text
    assert "rootpw --iscrypted !!\n" in text


def test_the_last_script_run_for_real(tmp_path: Path) -> None:
    """In a folder in place of the host, with its commands played by small programs."""
    variant = Variant.load(IMAGES / "xen31-centos5-dom0-64")
    (script,) = [one.script for one in parsed(variant).handler.scripts if one.type == 1]
    root, tools, port = tmp_path / "root", tmp_path / "bin", tmp_path / "port"
    for folder in ("boot", "etc/ssh", "etc/rc.d", "root"):
        (root / folder).mkdir(parents=True)
    tools.mkdir()
    for name in ("xen.gz-2.6.18-398.el5", "vmlinuz-2.6.18-398.el5xen",
                 "initrd-2.6.18-398.el5xen.img"):  # fmt: skip
        (root / "boot" / name).write_text(name)
    (root / "etc/securetty").write_text("tty1\n")
    for name, body in {
        "chkconfig": f'echo "$*" >> {tmp_path}/chkconfig',
        "ssh-keygen": f"echo 'ssh-rsa AAAA+host= root@dom0' > {root}/etc/ssh/ssh_host_rsa_key.pub",
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    for folder in ("/boot", "/etc", "/root"):
        script = script.replace(f" {folder}/", f" {root}{folder}/")
    script = script.replace("#/boot/", f"#{root}/boot/").replace("(ls /boot", f"(ls {root}/boot")
    script = script.replace("/dev/ttyS0\n", f"{port}\n").replace("/dev/ttyS0;", f"{port};")
    script = script.replace(f"> {port}", f">> {port}")
    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": f"{tools}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    said = port.read_text().splitlines() if port.exists() else [done.stderr]
    assert said[-2:] == [f"{HOST_KEY}: ssh-rsa AAAA+host=", DONE]
    assert (root / "boot/xen-lab.gz").read_text() == "xen.gz-2.6.18-398.el5"
    assert (root / "boot/initrd-lab.img").exists()
    assert "xend on" in (tmp_path / "chkconfig").read_text().splitlines()
    assert (root / "etc/pvlab/start").stat().st_mode & 0o111
    assert (root / "root/.ssh/authorized_keys").read_text() == f"{KEY}\n"

    (root / "boot/xen.gz-2.6.18-398.el5").unlink()
    port.unlink()
    subprocess.run(["bash", "-c", script], env={"PATH": f"{tools}:/usr/bin:/bin"})
    assert port.read_text().splitlines()[-1] == f"{FAILED}: no hypervisor was installed"


# -- variants and recipes ------------------------------------------------------------------


def test_variants() -> None:
    old = Variant.load(IMAGES / "xen31-centos5")
    assert (old.dom0_bits, old.medium, old.hypervisor_medium) == (
        32, MediaKind.EL5_I386, MediaKind.EL5_X86_64,
    )  # fmt: skip
    assert Variant.load(IMAGES / "xen31-centos5-dom0-64").hypervisor_medium is None
    assert Variant.load(IMAGES / "xen34-centos5").domain_keys == {"hap": 0}
    assert old.hardware.disk_in_dom0(1) == "/dev/hdb"
    assert old.hardware.machine == "pc"


@pytest.mark.parametrize("image", VARIANTS)
def test_a_recipe_names_the_media_that_its_variant_needs(image: str) -> None:
    recipe, variant = load_recipes(IMAGES)[image], Variant.load(IMAGES / image)
    needed = {variant.medium} | ({variant.hypervisor_medium} - {None})
    assert set(recipe.media) == needed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xen = '3.1'\n", "variant.toml: cpus: Field required"),
        ("xen = '4.1'\n[cpus]\n", "xen: String should match"),
        ("xen = '3.1'\nhypervisor = ['two words']\n[cpus]\n", r"hypervisor\.0"),
        ("xen =", "variant.toml: Invalid value"),
    ],
)
def test_a_variant_that_makes_no_sense(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "variant.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        Variant.load(tmp_path)
