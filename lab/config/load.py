"""Finding and reading ``lab.toml``.

The file has a key ``default``, the name of the profile to use, and a table
``profiles.NAME`` per profile. A profile takes over whatever its ``extends`` has; tables
merge key by key, lists and values replace. The profile ``standin`` is built in and can be
extended or overridden.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from lab.config.profile import DEFAULT_PROFILE, Profile
from lab.core.errors import UsageError
from lab.core.suggest import did_you_mean

FILE_NAME = "lab.toml"
BUILT_IN = "built-in defaults"

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Layer:
    """One profile table as its file has it.

    Attributes:
        name: the profile's name.
        table: its keys, ``extends`` left out.
    """

    name: str
    table: Table


def find_config(path: Path | None = None) -> Path | None:
    """The configuration file to use.

    Args:
        path: what the user named (``--config``).

    Returns:
        ``path``, else the file that ``PVLAB_CONFIG`` names, else ``lab.toml`` in the current
        folder, else None: the built-in defaults.

    Raises:
        UsageError: a file that was named does not exist.
    """
    if path is not None:
        return _must_exist(path, "--config")
    if named := os.environ.get("PVLAB_CONFIG"):
        return _must_exist(Path(named).expanduser(), "PVLAB_CONFIG")
    here = Path(FILE_NAME)
    return here if here.is_file() else None


def load_profile(name: str | None = None, path: Path | None = None) -> Profile:
    """Read one profile.

    Args:
        name: the profile; None takes the file's ``default``, else ``standin``.
        path: the configuration file; None searches as ``find_config`` does.

    Returns:
        The profile with its parents merged in; ``driver`` is resolved against the file's folder.

    Raises:
        UsageError: no such file or profile, an unknown key, or a bad value; the message starts
            with the file and the key's path.
    """
    source = find_config(path)
    label = BUILT_IN if source is None else str(source)
    document: Table = {} if source is None else _read(source)
    profiles = _profiles(document, label)
    wanted = name or _default(document, label)
    layers = _lineage(wanted, profiles, label)
    for layer in layers:
        _refuse_unknown(Profile, layer.table, _dotted("profiles", layer.name), label)
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer.table)
    try:
        profile = Profile(**merged, name=wanted)
    except ValidationError as error:
        raise _refusal(error, layers, label) from None
    if profile.driver is not None and source is not None:
        folder = source.resolve().parent
        profile = profile.model_copy(update={"driver": folder / profile.driver.expanduser()})
    return profile


def profile_names(path: Path | None = None) -> list[str]:
    """The names that ``load_profile`` knows with this file, sorted.

    Raises:
        UsageError: as ``load_profile`` does for the file as a whole.
    """
    source = find_config(path)
    if source is None:
        return [DEFAULT_PROFILE]
    return sorted({DEFAULT_PROFILE, *_profiles(_read(source), str(source))})


def _dotted(*keys: str) -> str:
    """A key's path as TOML writes it: parts that are not bare keys in quotes, on one line."""
    return ".".join(
        key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key) for key in keys
    )


def _must_exist(path: Path, named_by: str) -> Path:
    if not path.is_file():
        raise UsageError(f"{path}: no such configuration file (named by {named_by})")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not valid TOML: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _profiles(document: Table, label: str) -> dict[str, Table]:
    for key in document:
        if key not in ("default", "profiles"):
            raise _unknown_key(label, _dotted(key), key, ["default", "profiles"])
    profiles = document.get("profiles", {})
    if not isinstance(profiles, dict):
        raise UsageError(f"{label}:profiles: should be a table of profiles")
    for name, table in profiles.items():
        if not isinstance(table, dict):
            path = _dotted("profiles", name)
            raise UsageError(f"{label}:{path}: should be a table", hint=f"write [{path}]")
    return profiles


def _default(document: Table, label: str) -> str:
    default = document.get("default", DEFAULT_PROFILE)
    if not isinstance(default, str):
        raise UsageError(f"{label}:default: should be the name of a profile")
    return default


def _lineage(wanted: str, profiles: Mapping[str, Table], label: str) -> list[_Layer]:
    """The profile's layers, oldest ancestor first."""
    layers: list[_Layer] = []
    name: str | None = wanted
    asked_by = ""
    while name is not None:
        if name in (layer.name for layer in layers):
            circle = " -> ".join(_dotted(n) for n in [*(layer.name for layer in layers), name])
            raise UsageError(f"{label}:{asked_by}: goes in a circle: {circle}")
        if name not in profiles:
            if name == DEFAULT_PROFILE:
                break
            where = f"{label}:{asked_by}" if asked_by else label
            known = sorted({*profiles, DEFAULT_PROFILE})
            raise UsageError(
                f"{where}: no profile {name!r}",
                hint=did_you_mean(name, known) or f"there are: {', '.join(map(_dotted, known))}",
            )
        table = dict(profiles[name])
        asked_by = _dotted("profiles", name, "extends")
        parent = table.pop("extends", None)
        if parent is not None and not isinstance(parent, str):
            raise UsageError(f"{label}:{asked_by}: should be a profile's name")
        layers.append(_Layer(name, table))
        name = parent
    return layers[::-1]


def _merge(base: Table, over: Table) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        # `credentials` is a value that may be spelled as a table, not a table to merge into:
        # it has one key only, so merging and replacing are the same.
        both_tables = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if both_tables else value  # type: ignore[arg-type]
    return merged


def _tables_of(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The model's fields that are plain tables."""
    return {
        name: field.annotation
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _refuse_unknown(model: type[BaseModel], table: Table, path: str, label: str) -> None:
    """Refuse keys the model does not have, where they are written rather than merged.

    Raises:
        UsageError: with the nearest known key, or the table that the key belongs to.
    """
    tables = _tables_of(model)
    known = [name for name in model.model_fields if not (model is Profile and name == "name")]
    if model is Profile:
        known.append("extends")
    for key, value in table.items():
        if key in ("password", "passwd"):
            raise UsageError(
                f"{label}:{path}.{key}: passwords do not belong in this file",
                hint='use winrm.credentials = { env = "NAME" }',
            )
        if key not in known:
            home = next((t for t, m in tables.items() if key in m.model_fields), None)
            belongs = f"it belongs in [{path}.{home}]" if home else ""
            raise _unknown_key(label, f"{path}.{_dotted(key)}", key, known, belongs)
        if key in tables and isinstance(value, dict):
            _refuse_unknown(tables[key], value, f"{path}.{key}", label)


def _unknown_key(
    label: str, path: str, key: str, known: Iterable[str], belongs: str = ""
) -> UsageError:
    known = sorted(known)
    hint = belongs or did_you_mean(key, known) or f"known keys: {', '.join(known)}"
    return UsageError(f"{label}:{path}: unknown key", hint=hint)


def _refusal(error: ValidationError, layers: list[_Layer], label: str) -> UsageError:
    """The first problem as one line; the offending value is left out, it may be a secret."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    keys = [str(part) for part in first["loc"]]
    owner = next((la for la in reversed(layers) if _has(la.table, keys)), None)
    name = owner.name if owner else layers[-1].name if layers else DEFAULT_PROFILE
    text = first["msg"].removeprefix("Value error, ")
    text = text[:1].lower() + text[1:]
    more = f"; {len(problems) - 1} more like this" if len(problems) > 1 else ""
    return UsageError(f"{label}:{_dotted('profiles', name, *keys)}: {text}{more}")


def _has(table: Any, keys: list[str]) -> bool:
    """Whether the table itself sets the value at ``keys`` (list positions count as set)."""
    for key in keys:
        if not isinstance(table, dict):
            return isinstance(table, list)
        if key not in table:
            return False
        table = table[key]
    return True
