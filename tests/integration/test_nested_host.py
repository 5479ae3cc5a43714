"""The host under the guest: what testinfra and the toolstack say of it."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture(scope="module")
def dom0(still):
    return still.dom0.testinfra


def test_packages(dom0):
    for name in ("xen-utils-4.17", "xenstore-utils", "openssh-server", "lvm2"):
        assert dom0.package(name).is_installed, name
    assert dom0.package("xen-utils-4.17").version.startswith("4.17")


def test_daemons(dom0):
    running = {process.comm for process in dom0.process.filter(user="root")}
    assert {"xenstored", "xenconsoled", "sshd"} <= running


def test_files(dom0, still):
    configuration = dom0.file(f"/etc/xen/{still.domain.name}.cfg")
    assert configuration.is_file
    assert configuration.contains("phy:/dev/vdc,hda,w")
    assert dom0.file("/root/.ssh/authorized_keys").mode == 0o600
    assert dom0.run("test -b /dev/vdd").succeeded


def test_volume_group_is_there_and_empty(still, dom0, soon):
    assert dom0.run("vgs --noheadings -o vg_name").stdout.split() == ["vg00"]
    assert still.vg.list(soon) == []


def test_bridge_has_the_guest_and_no_way_out(still, dom0, soon):
    ports = dom0.run("ls /sys/class/net/xenbr0/brif").stdout.split()
    assert ports == [f"vif{still.domain.domid}.0"]
    assert "default" not in dom0.run("ip route").stdout
    with socket.create_server(("127.0.0.1", 0)) as outside:
        # QEMU's user network would carry 10.0.2.2 to the loopback of this machine.
        port = outside.getsockname()[1]
        tried = still.dom0.run(f"timeout 20 bash -c '< /dev/tcp/10.0.2.2/{port}'", soon)
        assert not tried.ok
        outside.settimeout(0.1)
        with pytest.raises(TimeoutError):
            outside.accept()


def test_hypervisor_runs_32_bit_pae_guests(still, template, soon):
    info = still.toolstack.info(soon)
    assert info["xen_version"] == template.versions["xen"]
    if template.accel.guest_type == "hvm":
        assert "hvm-3.0-x86_32p" in info["xen_caps"].split()


def test_toolstack_and_guest_say_what_the_guest_is(still, template, soon):
    listed = still.toolstack.config(still.domain, soon)["config"]
    kind = template.accel.guest_type
    assert listed["c_info"]["type"] == kind
    if kind == "hvm":
        assert listed["b_info"]["type.hvm"]["pae"] == "True"
    said = still.guest.channel.run("wmic os get PAEEnabled,Caption /value", soon).stdout
    assert "PAEEnabled=TRUE" in said
    if still.profile.guest_kind == "standin":
        assert "Windows" not in said
        assert "stand-in" in still.guest.channel.run("systeminfo", soon).stdout


def test_listing(still, soon):
    domains = still.toolstack.list(soon)
    assert [domain.name for domain in domains] == ["Domain-0", still.domain.name]
    assert domains[1].domid == still.domain.domid
    # Rounded down, and a page or two are missing from the whole.
    assert still.profile.memory.guest_mib - domains[1].mem_mib in (0, 1)
    assert still.toolstack.find("nobody", soon) is None


def test_console_is_a_root_shell(still, soon):
    with still.machine.console() as console:
        console.sendline("")
        console.expect(r"root@\S+:\S*# ", timeout=soon.remaining)
        console.sendline("echo $((6 * 7)) as $(id -un)")
        console.expect("42 as root", timeout=soon.remaining)
