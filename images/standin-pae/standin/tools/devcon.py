"""devcon.exe: the device console of the Driver Development Kit.

Texts and exit codes (0 done, 1 restart needed, 2 failed, 3 usage): "DevCon" in the Windows
Driver Kit's tools reference and its examples page.
"""

import os

from standin.inf import Inf, InfError, decode
from standin.paths import absolute, matcher
from standin.pnp import BusyError, SetupLog, error_line

OK, REBOOT, FAILED, USAGE = range(4)


def run(ctx):
    """``devcon [-r] command [arguments]``."""
    args = ctx.args
    reboot = False
    while args and args[0][:1] in "-/" and len(args[0]) > 1:
        option = args[0][1:].lower()
        if option == "r":
            reboot = True
        elif option.startswith("m:"):
            ctx.out("devcon failed.\n")  # there are no other machines
            return FAILED
        else:
            break
        args = args[1:]
    command = _COMMANDS.get(args[0].lower()) if args else None
    if command is None:
        ctx.err(
            f"{ctx.name} Usage: {ctx.name} [-r] [-m:\\\\<machine>] <command> [<arg>...]\n"
            f"For more information, type: {ctx.name} help\n"
        )
        return USAGE
    code = command(ctx, args[0].lower(), args[1:])
    if code == REBOOT and reboot:
        process = ctx.system.processes.start("shutdown.exe")
        ctx.system.shut_down("reboot", 0, process)
    return code


def _invalid(ctx, name):
    ctx.err(
        f"{ctx.name}: Invalid use of {name}.\nFor more information, type: {ctx.name} help {name}\n"
    )
    return USAGE


def _find(ctx, patterns):
    """Devices that match ids, ``@instance`` ids or ``=class``."""
    found = []
    for device in ctx.system.devices.all():
        for pattern in patterns:
            if pattern.startswith("="):
                hit = device.class_name.lower() == pattern[1:].lower()
            elif pattern.startswith("@"):
                hit = matcher(pattern[1:])(device.instance)
            elif pattern.startswith("'"):
                hit = pattern[1:].lower() in [item.lower() for item in _ids(device)]
            else:
                test = matcher(pattern)
                hit = any(test(item) for item in _ids(device))
            if hit:
                found.append(device)
                break
    return found


def _ids(device):
    return device.hardware_ids + device.compatible_ids


def _tail(ctx, count):
    ctx.out(f"{count} matching device(s) found.\n" if count else "No matching devices found.\n")
    return OK


def _list(ctx, name, args):
    """find and findall."""
    if not args:
        return _invalid(ctx, name)
    devices = _find(ctx, args)
    for device in devices:
        ctx.out(f"{device.instance:60}: {device.name}\n")
    return _tail(ctx, len(devices))


def _status(ctx, name, args):
    if not args:
        return _invalid(ctx, name)
    devices = _find(ctx, args)
    for device in devices:
        state = ctx.system.devices.status(device)
        text = {
            "running": "Driver is running.",
            "disabled": "Device is disabled.",
            "stopped": "Device is currently stopped.",
        }.get(state) or f"The device has the following problem: {state:02d}"
        ctx.out(f"{device.instance}\n    Name: {device.name}\n    {text}\n")
    return _tail(ctx, len(devices))


def _hwids(ctx, name, args):
    if not args:
        return _invalid(ctx, name)
    devices = _find(ctx, args)
    for device in devices:
        ctx.out(f"{device.instance}\n    Name: {device.name}\n")
        for title, ids in (
            ("Hardware", device.hardware_ids),
            ("Compatible", device.compatible_ids),
        ):
            if ids:
                ctx.out(f"    {title} ID's:\n" + "".join(f"        {item}\n" for item in ids))
    return _tail(ctx, len(devices))


def _driverfiles(ctx, name, args):
    if not args:
        return _invalid(ctx, name)
    devices = _find(ctx, args)
    for device in devices:
        ctx.out(f"{device.instance}\n    Name: {device.name}\n")
        driver = ctx.system.devices.driver(device)
        if not driver:
            ctx.out("    No driver information available for the device.\n")
            continue
        files = driver.get("Files", [])
        ctx.out(
            f"    Driver installed from c:\\windows\\inf\\{driver['InfPath']} "
            f"[{driver['InfSection']}]. {len(files)} file(s) used by driver:\n"
        )
        ctx.out("".join(f"        {path}\n" for path in files))
    return _tail(ctx, len(devices))


def _rescan(ctx, name, args):
    if args:
        return _invalid(ctx, name)
    ctx.out("Scanning for new hardware.\n")
    ctx.system.devices.rescan()
    ctx.out("Scanning completed.\n")
    return OK


def _each(ctx, name, args, action, done, restart, none):
    """Do something to all matching devices and print the three kinds of ending."""
    if not args:
        return _invalid(ctx, name)
    count = 0
    needs_restart = False
    for device in _find(ctx, args):
        try:
            action(device)
            result = done[0]
        except BusyError:
            needs_restart = True
            result = restart[0]
        count += 1
        ctx.out(f"{device.instance:60}: {result}\n")
    if not count:
        ctx.out(none + "\n")
        return FAILED
    ctx.out((restart[1] if needs_restart else done[1]).format(count) + "\n")
    return REBOOT if needs_restart else OK


def _enable(ctx, name, args):
    return _each(
        ctx,
        name,
        args,
        ctx.system.devices.enable,
        ("Enabled", "{} device(s) are enabled."),
        (
            "Enabled on reboot",
            "The {} device(s) are ready to be enabled. To enable the devices, "
            "restart the devices or\nreboot the system .",
        ),
        "No devices were enabled, either because the devices were not found,\n"
        "or because the devices could not be enabled.",
    )


def _disable(ctx, name, args):
    return _each(
        ctx,
        name,
        args,
        ctx.system.devices.disable,
        ("Disabled", "{} device(s) disabled."),
        (
            "Disabled on reboot",
            "The {} device(s) are ready to be disabled. To disable the "
            "devices, restart the\ndevices or reboot the system .",
        ),
        "No devices were disabled, either because the devices were not found,\n"
        "or because the devices could not be disabled.",
    )


def _restart(ctx, name, args):
    return _each(
        ctx,
        name,
        args,
        ctx.system.devices.restart,
        ("Restarted", "{} device(s) restarted."),
        (
            "Requires reboot",
            "The {} device(s) are ready to be restarted. To restart the devices, "
            "reboot the system.",
        ),
        "No devices were restarted, either because the devices were not found,\n"
        "or because the devices could not be restarted.",
    )


def _remove(ctx, name, args):
    return _each(
        ctx,
        name,
        args,
        ctx.system.devices.remove,
        ("Removed", "{} device(s) were removed."),
        (
            "Removed on reboot",
            "The {} device(s) are ready to be removed. To remove the devices, reboot the system.",
        ),
        "No devices were removed.",
    )


def _update(ctx, name, args):
    """update and install: install a package on all devices with a hardware id."""
    if len(args) != 2:
        return _invalid(ctx, name)
    inf_name, hardware_id = args
    devices = ctx.system.devices
    shown = absolute(inf_name, ctx.session.cwd)
    log = SetupLog(ctx.system.windows_file("setupapi.log"), ctx.process.pid)
    log(f'#-198 Command line processed: "{ctx.name}" {name} {inf_name} {hardware_id}')
    try:
        path = ctx.path(inf_name)
        with open(path, "rb") as file:
            inf = Inf(decode(file.read()))
        model = inf.model(hardware_id)
    except (OSError, InfError) as error:
        log(error_line(hardware_id, error))
        ctx.out(f"{ctx.name} failed.\n")
        return FAILED
    if name == "install":
        # A device that the bus already reports is not made a second time.
        if not devices.with_id(hardware_id):
            devices.create_root(inf.class_name, hardware_id)
        ctx.out("Device node created. Install is complete when drivers are installed...\n")
    ctx.out(f"Updating drivers for {hardware_id} from {shown}.\n")
    targets = devices.with_id(hardware_id)
    if not targets:
        log(f'#E154 Class installer failed: no device with id "{hardware_id}". Error 0xe000020b.')
        ctx.out(f"{ctx.name} failed.\n")
        return FAILED
    if ctx.system.quirks.refuses_unsigned(name):
        log(
            f'#E358 An unsigned or incorrectly signed file "{shown}" for driver '
            f'"{model.description}" blocked (server install). Error 0xe000022f: The third-party '
            "INF does not contain digital signature information."
        )
        ctx.out(f"{ctx.name} failed.\n")
        return FAILED
    needs_restart = False
    for device in targets:
        _log_selection(log, device, inf, model, shown)
        try:
            needs_restart |= devices.install(device, inf, model, path, log)
        except OSError as error:
            log(error_line(device.instance, error))
            ctx.out(f"{ctx.name} failed.\n")
            return FAILED
        log(f'#I121 Device install of "{device.instance}" finished successfully.')
    ctx.out("Drivers installed successfully.\n")
    return REBOOT if needs_restart else OK


def _log_selection(log, device, inf, model, shown):
    """The lines of setupapi.log up to the copying of files."""
    ids = ",".join(item.lower() for item in device.hardware_ids)
    low = os.path.normcase(shown).lower()
    for line in (
        f"#-019 Searching for hardware ID(s): {ids}",
        f'#I022 Found "{device.hardware_ids[0]}" in {shown}; Device: "{model.description}"; '
        f'Driver: "{model.description}"; Provider: "{inf.provider}"; Mfg: '
        f'"{model.manufacturer}"; Section name: "{model.section}".',
        f"#I023 Actual install section: [{model.actual}]. Rank: 0x00000000. Effective driver "
        f"date: {inf.date}.",
        "#-166 Device install function: DIF_SELECTBESTCOMPATDRV.",
        f'#I063 Selected driver installs from section [{model.section}] in "{low}".',
        f"#I320 Class GUID of device remains: {inf.class_guid}.",
        "#I060 Set selected driver.",
        "#I058 Selected best compatible driver.",
        "#-166 Device install function: DIF_INSTALLDEVICEFILES.",
        f'#I124 Doing copy-only install of "{device.instance}".',
        "#-166 Device install function: DIF_REGISTER_COINSTALLERS.",
        "#I056 Coinstallers registered.",
        "#-166 Device install function: DIF_INSTALLINTERFACES.",
        f'#-011 Installing section [{model.actual}.Interfaces] from "{low}".',
        "#I054 Interfaces installed.",
        "#-166 Device install function: DIF_INSTALLDEVICE.",
        f'#I123 Doing full install of "{device.instance}".',
    ):
        log(line)


def _reboot(ctx, name, args):
    ctx.out("Rebooting the local computer.\n")
    ctx.system.shut_down("reboot", 0, ctx.system.processes.start("shutdown.exe"))
    return OK


def _help(ctx, name, args):
    ctx.out(
        f"Device Console Help:\n{ctx.name} [-r] [-m:\\\\<machine>] <command> [<arg>...]\n"
        "-r           Reboots the system only when a restart or reboot is required.\n"
        "<machine>    Specifies a remote computer.\n"
        "<command>    Specifies a Devcon command (see command list below).\n"
        "<arg>...     One or more arguments that modify a command.\n"
        f"For help with a specific command, type: {ctx.name} help <command>\n"
        + "".join(f"{command}\n" for command in sorted(_COMMANDS))
    )
    return OK


_COMMANDS = {
    "disable": _disable,
    "driverfiles": _driverfiles,
    "enable": _enable,
    "find": _list,
    "findall": _list,
    "help": _help,
    "hwids": _hwids,
    "install": _update,
    "reboot": _reboot,
    "remove": _remove,
    "rescan": _rescan,
    "restart": _restart,
    "status": _status,
    "update": _update,
    "updateni": _update,
}
