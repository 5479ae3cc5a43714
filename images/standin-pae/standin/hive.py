"""The registry: a small tree kept as JSON in C:\\WINDOWS\\system32\\config.

Keys are found without regard to case and keep the case they were made with. A value is
(type, data): text for REG_SZ and REG_EXPAND_SZ, an integer for REG_DWORD, hexadecimal text
for REG_BINARY, a list of texts for REG_MULTI_SZ. Every change is written at once and synced,
so that a crash of the guest loses nothing a real hive would keep.
"""

import json
import os
import threading

ROOTS = {
    "HKLM": "HKEY_LOCAL_MACHINE",
    "HKCU": "HKEY_CURRENT_USER",
    "HKCR": "HKEY_CLASSES_ROOT",
    "HKU": "HKEY_USERS",
    "HKCC": "HKEY_CURRENT_CONFIG",
}


def split(key):
    """A key's path as parts, with the root's full name.

    ``CurrentControlSet`` is ``ControlSet001``, the only one there is.

    Raises:
        ValueError: the root is not one of the registry's.
    """
    parts = [part for part in key.split("\\") if part]
    if not parts:
        raise ValueError(key)
    root = parts[0].upper()
    full = ROOTS.get(root, root)
    if full not in ROOTS.values():
        raise ValueError(key)
    parts[0] = full
    if len(parts) > 2 and parts[1].upper() == "SYSTEM" and parts[2].lower() == "currentcontrolset":
        parts[2] = "ControlSet001"
    return parts


class Hive:
    """The registry.

    Args:
        path: the JSON file; made on the first change.
    """

    def __init__(self, path):
        self._path = path
        self._lock = threading.RLock()
        try:
            with open(path, encoding="utf-8") as file:
                self._root = json.load(file)
        except FileNotFoundError:
            self._root = {"keys": {}, "values": {}}

    def _find(self, key, create=False):
        """The node of a key, or ``None``."""
        node = self._root
        for part in split(key):
            entry = node["keys"].get(part.lower())
            if entry is None:
                if not create:
                    return None
                entry = node["keys"][part.lower()] = {"name": part, "keys": {}, "values": {}}
            node = entry
        return node

    def _save(self):
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        temporary = self._path + ".new"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(self._root, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)

    def exists(self, key):
        """Whether there is such a key."""
        with self._lock:
            return self._find(key) is not None

    def keys(self, key):
        """Names of a key's subkeys, sorted."""
        with self._lock:
            node = self._find(key)
            return sorted(entry["name"] for entry in node["keys"].values()) if node else []

    def values(self, key):
        """A key's values: name to (type, data)."""
        with self._lock:
            node = self._find(key)
            if node is None:
                return {}
            return {name: (kind, data) for name, kind, data in node["values"].values()}

    def get(self, key, name, default=None):
        """The data of a value."""
        with self._lock:
            node = self._find(key)
            entry = node["values"].get(name.lower()) if node else None
            return default if entry is None else entry[2]

    def create(self, key):
        """Make a key."""
        with self._lock:
            if self._find(key) is None:
                self._find(key, create=True)
                self._save()

    def set(self, key, name, kind, data):
        """Set a value, making its key."""
        self.set_many(key, [(name, kind, data)])

    def set_many(self, key, values):
        """Set several (name, type, data) of a key with one write to the disk."""
        with self._lock:
            node = self._find(key, create=True)
            for name, kind, data in values:
                node["values"][name.lower()] = [name, kind, data]
            self._save()

    def delete_value(self, key, name):
        """Remove a value; whether there was one."""
        with self._lock:
            node = self._find(key)
            if node is None or node["values"].pop(name.lower(), None) is None:
                return False
            self._save()
            return True

    def delete_key(self, key):
        """Remove a key and what is in it; whether there was one."""
        with self._lock:
            *parent, leaf = split(key)
            node = self._find("\\".join(parent)) if parent else None
            if node is None or node["keys"].pop(leaf.lower(), None) is None:
                return False
            self._save()
            return True
