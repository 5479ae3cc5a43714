"""The pytest plugin of pvlab: what the entry point ``pytest11`` loads.

PYTEST_DONT_REWRITE: nothing in here asserts, and pytest would complain of not having rewritten it
where it was loaded already, as in a session in a session.
"""

from __future__ import annotations

from lab.plugin.fixtures import (
    bar,
    block_device,
    dbgview,
    driver_package,
    evidence,
    figure,
    guest,
    installed_driver,
    intensity,
    jitter,
    lab,
    place,
    pvlab_run,
    replay,
    xen_host,
)
from lab.plugin.hooks import (
    pytest_addhooks,
    pytest_addoption,
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_configure_node,
    pytest_keyboard_interrupt,
    pytest_pvlab_prepare,
    pytest_report_collectionfinish,
    pytest_runtest_call,
    pytest_runtest_makereport,
    pytest_runtest_setup,
    pytest_sessionfinish,
    pytest_terminal_summary,
    pytest_testnodedown,
    pytest_xdist_node_collection_finished,
)

__all__ = [
    "bar",
    "block_device",
    "dbgview",
    "driver_package",
    "evidence",
    "figure",
    "guest",
    "installed_driver",
    "intensity",
    "jitter",
    "lab",
    "place",
    "pvlab_run",
    "pytest_addhooks",
    "pytest_addoption",
    "pytest_collection_finish",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_keyboard_interrupt",
    "pytest_pvlab_prepare",
    "pytest_report_collectionfinish",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_setup",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "pytest_testnodedown",
    "pytest_xdist_node_collection_finished",
    "replay",
    "xen_host",
]
