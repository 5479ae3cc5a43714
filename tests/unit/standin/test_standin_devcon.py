"""devcon: packages, modules, states, setupapi.log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from standin import inf, pnp
from standin.system import System
from standin_guest import Guest

INF = """; a package
[Version]
Signature = "$WINDOWS NT$"
Class = SCSIAdapter
ClassGuid = {4D36E97B-E325-11CE-BFC1-08002BE10318}
Provider = %P%
DriverVer = 11/22/2007,0.0.3.1

[DestinationDirs]
DefaultDestDir = 12

[SourceDisksNames.x86]
1 = "Disk, with a comma",,,\\i386

[SourceDisksFiles]
xenvbd.sys = 1
second.sys = 1

[Manufacturer]
%P% = Models,NTx86

[Models.NTx86]
"Test Xen block device" = Inst,XEN\\VBD ; the child

[Inst.NT]
CopyFiles = Files

[Files]
xenvbd.sys
second.sys

[Inst.NT.Services]
AddService = xenvbd,2,Main ; SPSVCINST_ASSOCSERVICE
AddService = second,0,Other

[Main]
ServiceType = 1
StartType = 0
ErrorControl = 1
ServiceBinary = %12%\\xenvbd.sys

[Other]
DisplayName = "The second one"
ServiceType = 1
StartType = 1
ErrorControl = 1
ServiceBinary = %12%\\second.sys
AddReg = Other.Registry

[Other.Registry]
HKR,Parameters,ModuleOptions,,"level=3 name=x"
HKR,Parameters,Number,0x00010001,0x10

[Strings]
P = "Tests"
"""
INSTANCE = "XEN\\VBD\\4&33C61A47&0&00"
UPDATE = "devcon update C:\\pvlab\\drv\\xenvbd.inf XEN\\VBD"


@pytest.fixture
def package(guest: Guest) -> Path:
    folder = guest.c / "pvlab/drv"
    (folder / "i386").mkdir(parents=True)
    (folder / "xenvbd.inf").write_text(INF)
    (folder / "i386/xenvbd.sys").write_bytes(b"\x7fELF\0license=GPL\0name=xen_blkfront\0")
    (folder / "i386/SECOND.SYS").write_bytes(b"\x7fELF\0name=second_module\0")
    return folder


def modules(guest: Guest) -> list[tuple[str, ...]]:
    return [call for call in guest.host.calls if call[0] in ("insmod", "rmmod")]


def status(guest: Guest) -> str:
    return guest.run("devcon status XEN\\VBD")[1].splitlines()[2].strip()


def test_tree_before_a_driver(guest: Guest, golden):
    assert guest.run("devcon status *") == (0, golden("devcon_status_bare.txt"), "")
    assert guest.run('devcon hwids "PCI\\VEN_5853&DEV_0001"') == (
        0, golden("devcon_hwids.txt"), ""
    )  # fmt: skip


def test_children_driven_by_the_kernel(guest: Guest):
    folder = guest.root / "sys/bus/xen/devices/vif-0"
    folder.mkdir()
    assert "problem: 28" in guest.run("devcon status XEN\\VIF")[1]
    (folder / "driver").mkdir()
    assert "Driver is running." in guest.run("devcon status XEN\\VIF")[1]


def test_update_installs_and_loads(guest: Guest, package):
    code, out, err = guest.run(UPDATE)
    assert (code, err) == (0, "")
    assert out == (
        "Updating drivers for XEN\\VBD from C:\\pvlab\\drv\\xenvbd.inf.\n"
        "Drivers installed successfully.\n"
    )
    drivers = guest.c / "WINDOWS/system32/drivers"
    assert modules(guest) == [
        ("insmod", str(drivers / "xenvbd.sys"), "dyndbg=+p"),
        ("insmod", str(drivers / "second.sys"), "level=3", "name=x"),
    ]
    assert status(guest) == "Driver is running."
    assert (guest.c / "WINDOWS/inf/oem0.inf").read_text() == INF
    code, out, _ = guest.run(
        "reg query HKLM\\SYSTEM\\CurrentControlSet\\Services\\second /v ImagePath"
    )
    assert "ImagePath\tREG_EXPAND_SZ\tsystem32\\DRIVERS\\second.sys" in out
    hive = guest.system.hive
    key = f"{pnp.SERVICES}\\second\\Parameters"
    assert hive.get(key, "Number") == 16


def test_setupapi_log(guest: Guest, package, golden):
    guest.run(UPDATE)
    data = (guest.c / "WINDOWS/setupapi.log").read_bytes()
    assert b"\n" not in data.replace(b"\r\n", b"")
    text = data.decode().replace("\r\n", "\n")
    text = re.sub(r"^\[[\d/]{10} [\d:]{8} \d+\.\d+ ", "[2003/01/02 03:04:05 1.1 ", text)
    assert text == golden("setupapi.log")


def test_driverfiles(guest: Guest, package):
    assert "No driver information available" in guest.run("devcon driverfiles XEN\\VBD")[1]
    guest.run(UPDATE)
    assert guest.run("devcon driverfiles XEN\\VBD")[1] == (
        f"{INSTANCE}\n    Name: Test Xen block device\n"
        "    Driver installed from c:\\windows\\inf\\oem0.inf [Inst]. 2 file(s) used by driver:\n"
        "        C:\\WINDOWS\\system32\\drivers\\xenvbd.sys\n"
        "        C:\\WINDOWS\\system32\\drivers\\second.sys\n"
        "1 matching device(s) found.\n"
    )


def test_update_replaces_the_running_driver(guest: Guest, package):
    guest.run(UPDATE)
    guest.host.calls.clear()
    (package / "xenvbd.inf").write_text(INF.replace("0.0.3.1", "0.0.3.2"))
    assert guest.run(UPDATE)[0] == 0
    assert [call[:2] for call in modules(guest)[:2]] == [
        ("rmmod", "second_module"), ("rmmod", "xen_blkfront")
    ]  # fmt: skip
    assert len(modules(guest)) == 4
    assert (
        guest.system.devices.driver(guest.system.devices.with_id("XEN\\VBD")[0])["InfPath"]
        == "oem1.inf"
    )


def test_driver_in_use_needs_a_restart(guest: Guest, package):
    guest.run(UPDATE)
    guest.host.results["rmmod"] = (1, b"Module xen_blkfront is in use")
    assert guest.run(UPDATE)[0] == 1
    assert status(guest) == "The device has the following problem: 14"
    log = (guest.c / "WINDOWS/setupapi.log").read_text()
    assert "#W104" in log
    code, out, _ = guest.run("devcon remove XEN\\VBD")
    assert code == 1
    assert out.endswith(
        "The 1 device(s) are ready to be removed. To remove the devices, reboot the system.\n"
    )


def test_module_that_does_not_load(guest: Guest, package):
    guest.host.results["insmod"] = (1, b"insmod: ERROR: Invalid module format")
    assert guest.run(UPDATE)[0] == 0  # as Windows: installed, but the device has a problem
    assert status(guest) == "The device has the following problem: 39"
    log = (guest.c / "WINDOWS/setupapi.log").read_text()
    assert "CM_PROB_DRIVER_FAILED_LOAD (xenvbd: insmod: ERROR: Invalid module format)" in log


def test_disable_enable_restart_remove(guest: Guest, package):
    guest.run(UPDATE)
    code, out, _ = guest.run("devcon disable XEN\\VBD")
    assert (code, out) == (0, f"{INSTANCE:60}: Disabled\n1 device(s) disabled.\n")
    assert status(guest) == "Device is disabled."
    code, out, _ = guest.run("devcon enable @XEN\\*")
    assert (code, out) == (0, f"{INSTANCE:60}: Enabled\n1 device(s) are enabled.\n")
    assert status(guest) == "Driver is running."
    assert guest.run("devcon restart =scsiadapter")[1].endswith("1 device(s) restarted.\n")
    code, out, _ = guest.run("devcon remove XEN\\VBD")
    assert (code, out) == (0, f"{INSTANCE:60}: Removed\n1 device(s) were removed.\n")
    assert status(guest) == "The device has the following problem: 28"
    assert guest.run("devcon remove NO\\SUCH") == (2, "No devices were removed.\n", "")


def test_stopped_driver_starts_on_rescan(guest: Guest, package):
    guest.run(UPDATE)
    guest.host.run("rmmod", "second_module")
    assert status(guest) == "Device is currently stopped."
    assert guest.run("devcon rescan") == (
        0, "Scanning for new hardware.\nScanning completed.\n", ""
    )  # fmt: skip
    assert status(guest) == "Driver is running."


def test_drivers_load_again_at_boot(guest: Guest, package):
    guest.run(UPDATE)
    for name in ("second_module", "xen_blkfront"):
        guest.host.run("rmmod", name)
    guest.host.calls.clear()
    System(guest.config, guest.host).devices.load_at_boot()
    assert [Path(call[1]).name for call in modules(guest)] == ["xenvbd.sys", "second.sys"]


def test_disabled_device_stays_disabled_at_boot(guest: Guest, package):
    guest.run(UPDATE)
    guest.run("devcon disable XEN\\VBD")
    guest.host.calls.clear()
    guest.system.devices.load_at_boot()
    assert modules(guest) == []


def test_mounted_volumes_are_dismounted_first(guest: Guest, package):
    guest.run(UPDATE)
    guest.disk("xvdc", 131072)
    guest.diskpart("select disk 1", "create partition primary", "assign letter=e")
    guest.run("format E: /q /y /v:X")
    guest.host.calls.clear()
    guest.host.results["rmmod"] = (1, b"in use")
    assert guest.run("devcon disable XEN\\VBD")[0] == 1
    assert [call[0] for call in guest.host.calls] == ["umount", "rmmod", "mount.ntfs"]
    assert guest.run("vol E:")[0] == 0


def test_install_makes_a_root_device(guest: Guest, package):
    text = INF.replace("XEN\\VBD", "ROOT\\THING")
    (package / "xenvbd.inf").write_text(text)
    code, out, _ = guest.run("devcon install C:\\pvlab\\drv\\xenvbd.inf ROOT\\THING")
    assert code == 0
    assert out.startswith("Device node created. Install is complete when drivers are installed.")
    assert "ROOT\\SCSIADAPTER\\0000" in guest.run("devcon find ROOT\\THING")[1]


@pytest.mark.parametrize(
    ("line", "code", "out"),
    [
        ("devcon update no.inf XEN\\VBD", 2, "devcon failed.\n"),
        ("devcon update C:\\boot.ini XEN\\VBD", 2, "devcon failed.\n"),
        (f"{UPDATE.removesuffix('VBD')}NO", 2, "devcon failed.\n"),
        ("devcon status NO\\SUCH", 0, "No matching devices found.\n"),
        ("devcon", 3, ""),
        ("devcon dance", 3, ""),
        ("devcon status", 3, ""),
        ("devcon update x", 3, ""),
        ("devcon rescan now", 3, ""),
    ],
)
def test_errors(guest: Guest, package, line, code, out):
    assert guest.run(line)[:2] == (code, out)


def test_missing_file_of_a_package(guest: Guest, package):
    (package / "i386/SECOND.SYS").unlink()
    code, out, _ = guest.run(UPDATE)
    assert (code, out.splitlines()[-1]) == (2, "devcon failed.")
    assert "#E122" in (guest.c / "WINDOWS/setupapi.log").read_text()
    assert modules(guest) == []


def test_reboot_switch(guest: Guest, package):
    guest.run(UPDATE)
    guest.host.results["rmmod"] = (1, b"in use")
    assert guest.run("devcon -r remove XEN\\VBD")[0] == 1
    assert guest.host.powered == [("reboot", 0)]


def test_seeded_packages_of_the_lab_are_read():
    folder = Path(__file__).parents[3] / "images/standin-drivers"
    for path in folder.glob("*/xenvbd.inf"):
        model = inf.Inf(inf.decode(path.read_bytes())).model("xen\\vbd")
        assert ("i386\\xenvbd.sys", "WINDOWS\\system32\\drivers\\xenvbd.sys") in model.copies
        assert model.services[0].name == "xenvbd"


@pytest.mark.parametrize(
    "text",
    ["", "[Version]\nSignature=x\n", INF.replace("[Inst.NT]", "[Other.Inst]"),
     INF.replace("[Other]", "[Gone]"), INF.replace("DefaultDestDir = 12", "DefaultDestDir = 99")],
)  # fmt: skip
def test_bad_infs(text):
    with pytest.raises(inf.InfError):
        inf.Inf(text).model("XEN\\VBD")


def test_inf_in_utf16():
    assert inf.Inf(inf.decode(INF.encode("utf-16"))).hardware_ids() == ["XEN\\VBD"]


@pytest.mark.parametrize(
    ("text", "result"),
    [('a, "b,c" ,d', ["a", "b,c", "d"]), ('"say ""x"""', ['say "x"']), ("", [""])],
)
def test_fields(text, result):
    assert inf.fields(text) == result
