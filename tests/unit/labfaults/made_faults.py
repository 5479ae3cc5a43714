"""Faults for a suite of fakes, and the plugin that makes them."""

from __future__ import annotations

from lab.labfaults import injector
from lab.labfaults.catalogue import LabFault
from lab.labfaults.injector import pytest_addoption, pytest_fixture_setup

__all__ = ["FAULTS", "pytest_addoption", "pytest_configure", "pytest_fixture_setup"]

FAULTS = (
    LabFault("fails", "t", "data", "test_it.py::test_fails", "^copy ", dom0="kill"),
    LabFault("passes", "t", "data", "test_it.py::test_passes", "^copy ", dom0="true"),
    LabFault("never", "t", "data", "test_it.py::test_fails", "^move ", dom0="kill"),
    LabFault("small", "t", "data", "test_it.py::test_small", "^copy ", dom0="kill", scratch_mib=8),
    LabFault("hvm", "t", "data", "test_it.py::test_fails", "^copy ", dom0="kill", hvm_only=True),
)


def pytest_configure() -> None:
    injector.FAULTS = FAULTS
