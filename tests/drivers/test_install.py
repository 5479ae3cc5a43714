"""The package installs, and the devices it serves run."""

from __future__ import annotations

import pytest

from lab.guest.driverstore import DeviceState

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


@pytest.mark.claim("DriverVer is the version that runs", "the package itself")
def test_installed_version_is_the_package_s(installed_driver, driver_package, guest, lab):
    for inf in driver_package.infs:
        for hardware_id in set(inf.hardware_ids) & set(installed_driver.devices):
            version = guest.drivers.version(hardware_id, lab.deadline("command"))
            assert version == inf.version, f"{hardware_id} runs version {version}"
