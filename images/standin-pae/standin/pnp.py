"""Plug and Play of the stand-in: the device tree, installed drivers and their modules.

The tree has what a Xen guest of November 2007 shows: the PCI platform device
``PCI\\VEN_5853&DEV_0001`` (here driven by the kernel's own xenbus) and its children such as
``XEN\\VBD``. A driver's ``.sys`` is a kernel module; starting its service inserts it.

Problem codes: "Device Manager Error Messages" of the Windows Driver Kit (CM_PROB_*).
Registry layout: Windows Driver Kit, "Registry Trees and Keys for Devices and Drivers".
"""

import os
import threading
import time

from standin.errors import win32_code

SERVICES = "HKLM\\SYSTEM\\CurrentControlSet\\Services"
ENUM = "HKLM\\SYSTEM\\CurrentControlSet\\Enum"
CLASSES = "HKLM\\SYSTEM\\CurrentControlSet\\Control\\Class"

CRITICAL = "HKLM\\SYSTEM\\CurrentControlSet\\Control\\CriticalDeviceDatabase"

PROBLEM_NEED_RESTART = 14
PROBLEM_NOT_INSTALLED = 28
PROBLEM_LOAD_FAILED = 39

#: ConfigFlags bit of a device that was disabled (CONFIGFLAG_DISABLED).
DISABLED = 1

#: Service start types that are loaded when the system starts.
START_AT_BOOT = (0, 1, 2)
START_DISABLED = 4

XENPCI = "PCI\\VEN_5853&DEV_0001&SUBSYS_00015853&REV_01\\3&267A616A&0&10"

#: Kinds of children that xenpci has: xenbus device type to name in the tree.
CHILDREN = {"vbd": "VBD", "vif": "VIF", "vfb": "VFB", "console": "CONSOLE"}


class Device:
    """One device node.

    Attributes:
        instance: instance id.
        hardware_ids, compatible_ids: as lists.
        name: what a listing shows.
        class_name: setup class, empty when none.
    """

    def __init__(self, instance, hardware_ids, compatible_ids, name, class_name):
        self.instance = instance
        self.hardware_ids = hardware_ids
        self.compatible_ids = compatible_ids
        self.name = name
        self.class_name = class_name

    @property
    def key(self):
        """Its key in the registry."""
        return f"{ENUM}\\{self.instance}"


class BusyError(Exception):
    """A driver cannot be stopped while something uses it."""


class Devices:
    """The device tree and the drivers in it.

    Args:
        system: the ``standin.system.System``.
    """

    def __init__(self, system):
        self._system = system
        self._lock = threading.RLock()
        self._load_errors = {}
        self._pending_restart = set()

    # The tree

    def all(self):
        """Every device node."""
        config = self._system.config
        devices = []
        if os.path.isdir(os.path.join(config.sys_root, "bus/xen")):
            devices.append(
                Device(
                    XENPCI,
                    [
                        "PCI\\VEN_5853&DEV_0001&SUBSYS_00015853&REV_01",
                        "PCI\\VEN_5853&DEV_0001&SUBSYS_00015853",
                        "PCI\\VEN_5853&DEV_0001&CC_FF8000",
                        "PCI\\VEN_5853&DEV_0001&CC_FF80",
                    ],
                    ["PCI\\VEN_5853&DEV_0001&REV_01", "PCI\\VEN_5853&DEV_0001", "PCI\\VEN_5853"],
                    "Xen PCI Driver",
                    "System",
                )
            )
            kinds = {"vbd"}
            try:
                names = os.listdir(os.path.join(config.sys_root, "bus/xen/devices"))
            except OSError:
                names = []
            kinds.update(name.rsplit("-", 1)[0] for name in names)
            for index, (kind, name) in enumerate(CHILDREN.items()):
                if kind in kinds:
                    instance = f"XEN\\{name}\\4&33C61A47&0&{index:02d}"
                    devices.append(self._described(instance, [f"XEN\\{name}"], name.lower()))
        for group in self._system.hive.keys(f"{ENUM}\\ROOT"):
            for leaf in self._system.hive.keys(f"{ENUM}\\ROOT\\{group}"):
                instance = f"ROOT\\{group}\\{leaf}"
                ids = self._system.hive.get(f"{ENUM}\\{instance}", "HardwareID", [])
                devices.append(self._described(instance, ids, group))
        return devices

    def _described(self, instance, ids, fallback):
        hive = self._system.hive
        key = f"{ENUM}\\{instance}"
        name = hive.get(key, "DeviceDesc") or fallback
        return Device(instance, ids, [], name, hive.get(key, "Class", ""))

    def create_root(self, class_name, hardware_id):
        """A root-enumerated device, as ``devcon install`` makes one."""
        group = (class_name or "UNKNOWN").upper()
        taken = self._system.hive.keys(f"{ENUM}\\ROOT\\{group}")
        number = next(n for n in range(len(taken) + 1) if f"{n:04d}" not in taken)
        instance = f"ROOT\\{group}\\{number:04d}"
        self._system.hive.set(f"{ENUM}\\{instance}", "HardwareID", "REG_MULTI_SZ", [hardware_id])

    def with_id(self, hardware_id):
        """Devices that have a hardware or compatible id."""
        wanted = hardware_id.lower()
        return [
            device
            for device in self.all()
            if any(wanted == item.lower() for item in device.hardware_ids + device.compatible_ids)
        ]

    # State

    def status(self, device):
        """``running``, ``disabled``, ``stopped`` or a CM_PROB number."""
        hive = self._system.hive
        if device.instance == XENPCI:
            return "running"
        if hive.get(device.key, "ConfigFlags", 0) & DISABLED:
            return "disabled"
        services = self.services(device)
        if not services:
            return "running" if self._has_inbox_driver(device) else PROBLEM_NOT_INSTALLED
        if device.instance in self._pending_restart:
            return PROBLEM_NEED_RESTART
        if any(name in self._load_errors for name in services):
            return PROBLEM_LOAD_FAILED
        if all(self.is_loaded(name) for name in services):
            return "running"
        return "stopped"

    def _has_inbox_driver(self, device):
        """Whether the kernel itself drives the xenbus devices of this kind, such as the vif."""
        kind = device.instance.split("\\")[1].lower()
        folder = os.path.join(self._system.config.sys_root, "bus/xen/devices")
        try:
            names = os.listdir(folder)
        except OSError:
            return False
        return any(
            name.rsplit("-", 1)[0] == kind and os.path.exists(os.path.join(folder, name, "driver"))
            for name in names
        )

    def services(self, device):
        """Names of the services installed for a device, in loading order."""
        return self._system.hive.get(device.key, "PvlabServices", [])

    def installed_services(self):
        """Names of all services that packages have installed."""
        return [
            name
            for name in self._system.hive.keys(SERVICES)
            if self._system.hive.get(f"{SERVICES}\\{name}", "ImagePath")
        ]

    def image(self, service):
        """The real path of a service's module."""
        image = self._system.hive.get(f"{SERVICES}\\{service}", "ImagePath", "")
        return self._system.windows_file(*image.split("\\"))

    def is_loaded(self, service):
        """Whether a service's module is in the kernel."""
        name = module_name(self.image(service))
        return os.path.isdir(os.path.join(self._system.config.sys_root, "module", name))

    # Drivers

    def install(self, device, inf, model, inf_path, log):
        """Install a package on a device and start it.

        Args:
            device: the device.
            inf: the ``standin.inf.Inf``.
            model: its ``standin.inf.Model`` for the device.
            inf_path: real path of the INF.
            log: function taking one line of setupapi.log.

        Returns:
            Whether a restart is needed because the old driver is in use.

        Raises:
            OSError: a file is missing or cannot be copied.
        """
        with self._lock:
            oem = self._copy(model, inf_path, log)
            needs_restart = False
            try:
                self._stop(device)
            except BusyError:
                needs_restart = True
                log(
                    f'#W104 Device "{device.instance}" required reboot: Query remove failed '
                    "(install): CfgMgr32 returned: 0x17: CR_REMOVE_VETOED."
                )
            self._register(device, inf, model, oem)
            if needs_restart:
                self._pending_restart.add(device.instance)
                return True
            self._start(device, log)
            return False

    def _copy(self, model, inf_path, log):
        """Copy the package's files; returns the name the INF was stored under."""
        from standin.paths import lookup

        folder = os.path.dirname(inf_path)
        plan = []
        for source, target in model.copies:
            path = lookup(folder, source.split("\\"))
            with open(path, "rb") as file:
                plan.append((source, target, file.read()))
        for source, target, data in plan:
            log(f'#-336 Copying file "{source.lower()}" to "C:\\{target}".')
            write_synced(lookup(self._system.config.c_root, target.split("\\")), data)
        with open(inf_path, "rb") as file:
            data = file.read()
        number = 0
        while True:
            path = self._system.windows_file("inf", f"oem{number}.inf")
            if not os.path.exists(path):
                break
            with open(path, "rb") as file:
                if file.read() == data:
                    return f"oem{number}.inf"
            number += 1
        write_synced(path, data)
        return f"oem{number}.inf"

    def install_section(self, model, inf_path, log):
        """Copy files and add services, for no device.

        Raises:
            OSError: a file is missing or cannot be copied.
        """
        with self._lock:
            self._copy(model, inf_path, log)
            self._add_services(model)

    def _add_services(self, model):
        """Write the registry keys of services; returns their names."""
        hive = self._system.hive
        names = []
        for service in model.services:
            key = f"{SERVICES}\\{service.name}"
            values = [
                ("Type", "REG_DWORD", service.kind),
                ("Start", "REG_DWORD", service.start),
                ("ErrorControl", "REG_DWORD", service.error_control),
                ("ImagePath", "REG_EXPAND_SZ", f"system32\\DRIVERS\\{service.binary}"),
            ]
            if service.display:
                values.append(("DisplayName", "REG_SZ", service.display))
            if service.group:
                values.append(("Group", "REG_SZ", service.group))
            hive.set_many(key, values)
            for row in service.registry:
                self._add_registry(key, row)
            names.append(service.name)
        return names

    def _register(self, device, inf, model, oem):
        """Write the registry keys of a device and its services."""
        hive = self._system.hive
        names = self._add_services(model)
        function = [service.name for service in model.services if service.is_function]
        hive.set_many(
            device.key,
            [
                ("DeviceDesc", "REG_SZ", model.description),
                ("Mfg", "REG_SZ", model.manufacturer),
                ("Class", "REG_SZ", inf.class_name),
                ("ClassGUID", "REG_SZ", inf.class_guid),
                ("Service", "REG_SZ", (function or names or [""])[0]),
                ("ConfigFlags", "REG_DWORD", 0),
                ("HardwareID", "REG_MULTI_SZ", device.hardware_ids),
                # Not Windows': the AddService order, which the start after a boot follows.
                ("PvlabServices", "REG_MULTI_SZ", names),
            ],
        )
        hive.set_many(
            f"{CLASSES}\\{inf.class_guid or '{unknown}'}\\{device.instance.split(chr(92))[1]}",
            [
                ("InfPath", "REG_SZ", oem),
                ("InfSection", "REG_SZ", model.section),
                ("InfSectionExt", "REG_SZ", model.actual[len(model.section) :]),
                ("ProviderName", "REG_SZ", inf.provider),
                ("DriverDate", "REG_SZ", inf.date),
                ("DriverVersion", "REG_SZ", inf.version),
                ("DriverDesc", "REG_SZ", model.description),
                ("Files", "REG_MULTI_SZ", [f"C:\\{target}" for _, target in model.copies]),
            ],
        )

    def driver(self, device):
        """Values of the installed driver's key: InfPath, InfSection, Files; empty if none."""
        guid = self._system.hive.get(device.key, "ClassGUID", "")
        if not self.services(device):
            return {}
        key = f"{CLASSES}\\{guid or '{unknown}'}\\{device.instance.split(chr(92))[1]}"
        return {name: data for name, (_, data) in self._system.hive.values(key).items()}

    def _add_registry(self, key, row):
        """One AddReg line: root, subkey, name, flags, value."""
        row = [*row, "", "", "", ""]
        root, below, name, flags, value = row[:5]
        base = key if root.upper() == "HKR" else root
        path = f"{base}\\{below}" if below else base
        number = int(flags, 0) if flags else 0
        if number & 0x00010001 == 0x00010001:
            self._system.hive.set(path, name, "REG_DWORD", int(value or "0", 0))
        else:
            kind = "REG_EXPAND_SZ" if number & 0x00020000 else "REG_SZ"
            self._system.hive.set(path, name, kind, value)

    def _options(self, service):
        """Arguments for a service's module: its Parameters key, else the default."""
        text = self._system.hive.get(f"{SERVICES}\\{service}\\Parameters", "ModuleOptions")
        return (self._system.config.module_options if text is None else text).split()

    def _load(self, service):
        """Insert a service's module.

        Returns:
            An error text, empty on success.
        """
        host = self._system.host
        config = self._system.config
        for path in config.module_dependencies.get(service, ()):
            name = module_name(path)
            if not os.path.isdir(os.path.join(config.sys_root, "module", name)):
                host.run("insmod", path)
        image = self.image(service)
        if not os.path.exists(image):
            return "the file is missing"
        code, output = host.run("insmod", image, *self._options(service))
        return "" if code == 0 else output.decode("ascii", "replace").strip() or f"status {code}"

    def _start(self, device, log):
        """Load a device's services in order; the first failure stops it."""
        self._pending_restart.discard(device.instance)
        for service in self.services(device):
            start = self._system.hive.get(f"{SERVICES}\\{service}", "Start", 3)
            if start == START_DISABLED or self.is_loaded(service):
                continue
            error = self._load(service)
            if error:
                self._load_errors[service] = error
                log(
                    f'#W101 Device "{device.instance}" is not started: Device has problem: 0x27: '
                    f"CM_PROB_DRIVER_FAILED_LOAD ({service}: {error})."
                )
                return
            self._load_errors.pop(service, None)

    def _stop(self, device):
        """Unload a device's services, last first.

        Raises:
            BusyError: something uses one; what was unloaded is loaded again.
        """
        loaded = [name for name in self.services(device) if self.is_loaded(name)]
        for service in self.services(device):
            self._load_errors.pop(service, None)
        if not loaded:
            return
        letters = [item for item in self._system.letters.all() if item.mounted]
        stopped = []
        try:
            for item in letters:
                self._system.letters.unmount(item)
                stopped.append(item)
            for service in reversed(loaded):
                code, output = self._system.host.run("rmmod", module_name(self.image(service)))
                if code:
                    raise BusyError(output.decode("ascii", "replace").strip())
        except (OSError, BusyError) as error:
            for service in loaded:
                if not self.is_loaded(service):
                    self._load(service)
            for item in stopped:
                self._system.letters.mount(item)
            raise BusyError(str(error)) from error
        self._system.disks.scan()

    def disable(self, device):
        """Stop a device and keep it stopped.

        Raises:
            BusyError: it is disabled from the next start on.
        """
        with self._lock:
            flags = self._system.hive.get(device.key, "ConfigFlags", 0)
            self._system.hive.set(device.key, "ConfigFlags", "REG_DWORD", flags | DISABLED)
            try:
                self._stop(device)
            except BusyError:
                self._pending_restart.add(device.instance)
                raise

    def enable(self, device):
        """Allow a device again and start it."""
        with self._lock:
            flags = self._system.hive.get(device.key, "ConfigFlags", 0)
            self._system.hive.set(device.key, "ConfigFlags", "REG_DWORD", flags & ~DISABLED)
            self._start(device, lambda line: None)

    def restart(self, device):
        """Stop and start a device.

        Raises:
            BusyError: it is in use and goes on running.
        """
        with self._lock:
            self._stop(device)
            self._start(device, lambda line: None)

    def remove(self, device):
        """Stop a device and forget its driver; the files stay, as on Windows.

        Raises:
            BusyError: it is gone from the next start on.
        """
        with self._lock:
            services = self.services(device)
            busy = None
            try:
                self._stop(device)
            except BusyError as error:
                busy = error
            for service in services:
                self._system.hive.set(
                    f"{SERVICES}\\{service}", "Start", "REG_DWORD", START_DISABLED
                )
            self._system.hive.delete_key(device.key)
            if busy is not None:
                self._pending_restart.add(device.instance)
                raise busy

    def rescan(self):
        """Look for new hardware: start installed drivers that are not running, scan disks."""
        with self._lock:
            for device in self.all():
                if self.status(device) == "stopped":
                    self._start(device, lambda line: None)
        self._system.disks.scan()

    def _claim_critical(self):
        """Devices without a driver take one from the critical device database (KB314082)."""
        hive = self._system.hive
        for device in self.all():
            if device.instance == XENPCI or self.services(device):
                continue
            for item in device.hardware_ids + device.compatible_ids:
                key = f"{CRITICAL}\\{item.replace(chr(92), '#')}"
                service = hive.get(key, "Service")
                if service and hive.get(f"{SERVICES}\\{service}", "ImagePath"):
                    others = [name for name in self.installed_services() if name != service]
                    hive.set_many(
                        device.key,
                        [
                            ("Service", "REG_SZ", service),
                            ("ClassGUID", "REG_SZ", hive.get(key, "ClassGUID", "")),
                            ("ConfigFlags", "REG_DWORD", 0),
                            ("HardwareID", "REG_MULTI_SZ", device.hardware_ids),
                            # Filters that came with it are loaded behind it.
                            ("PvlabServices", "REG_MULTI_SZ", [service, *others]),
                        ],
                    )
                    break

    def load_at_boot(self):
        """Start the drivers of all devices that are not disabled, as a starting Windows does."""
        with self._lock:
            self._claim_critical()
            for device in self.all():
                if device.instance != XENPCI and self.status(device) != "disabled":
                    self._start(device, lambda line: None)


def module_name(path):
    """The kernel's name of a module file: its ``name=`` in .modinfo, else from the file name."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        data = b""
    at = data.find(b"\0name=")
    if at >= 0:
        return data[at + 6 : data.find(b"\0", at + 6)].decode("ascii", "replace")
    return os.path.basename(path).rsplit(".", 1)[0].replace("-", "_")


def write_synced(path, data):
    """Write a file so that a crash right after keeps it."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class SetupLog:
    """One section of setupapi.log ("Troubleshooting Device Installation with the SetupAPI Log
    File", Microsoft, 2003): a header with time and process, then tagged lines.

    Args:
        path: real path of the log.
        pid: process id for the header.
    """

    _instance = 0

    def __init__(self, path, pid):
        SetupLog._instance += 1
        self._path = path
        stamp = time.strftime("%Y/%m/%d %H:%M:%S")
        self._lines = [f"[{stamp} {pid}.{SetupLog._instance} Driver Install]"]

    def __call__(self, line):
        """Add a line and write what there is: a crash must find the log up to here."""
        self._lines.append(line)
        self.flush()

    def flush(self):
        """Append the lines so far to the file and sync it."""
        if not self._lines:
            return
        with open(self._path, "ab") as file:
            file.write("".join(line + "\r\n" for line in self._lines).encode("cp1252", "replace"))
            file.flush()
            os.fsync(file.fileno())
        self._lines.clear()


def error_line(instance, error):
    """The line for a failed installation."""
    code = win32_code(error) if isinstance(error, OSError) else 0xE0000203
    return f'#E122 Device install failed. Device: "{instance}". Error {code}: {error}.'
