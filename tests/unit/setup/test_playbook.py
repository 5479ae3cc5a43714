from __future__ import annotations

from collections.abc import Callable


def test_the_playbook_is_well_formed(check_playbook: Callable[[str], None]) -> None:
    check_playbook("lab-host.yml")
