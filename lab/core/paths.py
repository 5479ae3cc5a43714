"""Where the lab keeps things on the machine it runs on."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def repo_root() -> Path:
    """The checkout: the folder that holds ``lab/``, ``images/`` and ``playbooks/``."""
    return Path(__file__).resolve().parents[2]


def cache_dir() -> Path:
    """Images, emulator trees and templates.

    ``PVLAB_CACHE``, else ``$XDG_CACHE_HOME/pvlab``, else ``~/.cache/pvlab`` (XDG Base
    Directory Specification 0.8, section 3).
    """
    if own := os.environ.get("PVLAB_CACHE"):
        return Path(own).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "pvlab"


def runtime_dir() -> Path:
    """Sockets and per-process scratch: ``PVLAB_RUNTIME``, else ``$XDG_RUNTIME_DIR/pvlab``,
    else a folder of this user's under the system's temporary directory."""
    if own := os.environ.get("PVLAB_RUNTIME"):
        return Path(own).expanduser().resolve()
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "pvlab"
    return Path(tempfile.gettempdir()) / f"pvlab-{os.getuid()}"


def results_dir() -> Path:
    """Where runs write: ``PVLAB_RESULTS``, else ``results/`` in the current directory."""
    return Path(os.environ.get("PVLAB_RESULTS", "results")).resolve()
