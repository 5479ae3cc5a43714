"""How fast a machine is."""

from __future__ import annotations

from typing import cast

import pytest
from place_fakes import FakeDom0

from lab.core.deadline import Deadline
from lab.place import pace
from lab.xen.dom0 import Dom0


def test_what_is_timed_is_what_dom0_says() -> None:
    dom0 = FakeDom0(seconds=2.5)
    assert pace.measure(cast(Dom0, dom0), Deadline(10)) == 2.5


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_faster_machine_changes_nothing(share: float) -> None:
    for accelerator, seconds in pace.REFERENCE_SECONDS.items():
        assert pace.pace(share * seconds, accelerator) == 1.0


def test_a_slower_machine_is_given_time() -> None:
    assert pace.pace(3 * pace.REFERENCE_SECONDS["tcg-hvm"], "tcg-hvm") == 3.0


def test_nothing_is_known_of_kvm() -> None:
    assert pace.pace(100.0, "kvm") == 1.0
