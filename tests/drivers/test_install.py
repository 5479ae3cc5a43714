"""The package installs, and the devices it serves run."""

from __future__ import annotations

import re

import pytest

from lab.guest.bootini import BootMenu
from lab.guest.driverstore import DeviceState
from lab.guest.prints import check_boot, rules_for
from lab.suite import lifecycle

pytestmark = [pytest.mark.area("install"), pytest.mark.fresh_install]

ANNOUNCED = "xen-devel, 2007-11-09: third release of GPL'd PV drivers for Windows (0.0.3)"


@pytest.mark.smoke
@pytest.mark.claim("xenpci and xenvbd run on Windows Server 2003 SP2, 32-bit PAE", ANNOUNCED)
def test_devices_run(installed_driver, guest, lab):
    assert installed_driver.devices, "the installation served no device"
    for hardware_id in installed_driver.devices:
        devices = guest.drivers.status(hardware_id, lab.deadline("command"))
        assert devices, f"no device with {hardware_id} is left after the installation"
        for device in devices:
            assert device.state is DeviceState.RUNNING, (
                f"{device.instance} is {device.state}"
                + (f", problem {device.problem}" if device.problem else "")
                + (", a reboot was asked for" if installed_driver.reboot_needed else "")
            )


@pytest.mark.claim("these INFs install drivers for these devices", "the package itself")
def test_setup_log_names_every_inf(installed_driver, driver_package):
    log = "\n".join(installed_driver.log_lines).lower()
    for inf in driver_package.infs:
        assert inf.path.name.lower() in log, f"nothing was logged about {inf.path.name}"


@pytest.mark.claim("these INFs install drivers for these devices", "the package itself")
def test_setup_log_tells_of_no_error(installed_driver):
    # "Troubleshooting Device Installation with the SetupAPI Log File": #E is an error, #I121 a
    # device that was installed. What is not signed is installed in another way, and told of.
    errors = [line for line in installed_driver.log_lines if re.search(r"#E(?!358)\d+", line)]
    assert not errors, f"setupapi.log: {errors[0].strip()}"
    log = "\n".join(installed_driver.log_lines)
    assert re.search(r"#I121 .* finished successfully|installed by SetupAPI, unsigned", log), (
        "setupapi.log tells of no device that was installed"
    )


@pytest.mark.claim("/gplpv in boot.ini makes the drivers look for devices at the start", ANNOUNCED)
@pytest.mark.cost(reboot=1, command=10)
def test_boot_option_is_seen(installed_driver, driver_package, place, guest, dbgview, lab):
    rules = rules_for(driver_package)
    if rules is None or rules.boot is None or not place.access.guest.boot_ini:
        pytest.skip("these drivers have no boot option, or this guest no boot.ini")
    on = BootMenu(guest.channel, guest.files).read(lab.deadline("command")).started
    assert on.has(rules.boot.option), "the installation did not switch the drivers on"
    lifecycle.reboot(place, lab.deadline("boot"))
    lines = dbgview.lines(lab.deadline("command"))
    if not any(re.search(rules.attach.speaks, line.text) for line in lines):
        pytest.skip(f"this build of {rules.family} prints nothing, or before DbgView runs")
    problem = check_boot(rules.boot, lines, switched_on=True)
    assert not problem, problem


@pytest.mark.claim("DriverVer is the version that runs", "the package itself")
def test_installed_version_is_the_package_s(installed_driver, driver_package, guest, lab):
    for inf in driver_package.infs:
        for hardware_id in set(inf.hardware_ids) & set(installed_driver.devices):
            version = guest.drivers.version(hardware_id, lab.deadline("command"))
            assert version == inf.version, f"{hardware_id} runs version {version}"
