"""pytest's own JUnit file, in the run's folder unless the user named another place.

The plugin learns that a run takes place after collection only, when pytest has long decided
whether to write that file; so pytest's JUnit plugin is started here, as pytest would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest


def start_junit(config: pytest.Config, path: Path) -> None:
    """Make pytest write its JUnit file, if it does not already."""
    junit = config.pluginmanager.get_plugin("junitxml")
    if junit is None or config.option.xmlpath or hasattr(config, "workerinput"):
        return
    config.option.xmlpath = str(path)
    junit.pytest_configure(config)
    config.stash[junit.xml_key].pytest_sessionstart()


def add_properties(config: pytest.Config, properties: Mapping[str, str]) -> None:
    """Describe the run in the JUnit file; call before pytest writes it."""
    junit = config.pluginmanager.get_plugin("junitxml")
    xml = config.stash.get(junit.xml_key, None) if junit is not None else None
    if xml is not None:
        for name, value in properties.items():
            xml.add_global_property(name, value)
