"""Stop codes in words."""

from __future__ import annotations

import pytest

from lab.crash.bugchecks import BUGCHECKS, FORCED_BY_SYSRQ, code_addresses, explain, lookup, name

# The codes that the drivers' history and the era's guides name.
NEEDED = (
    *(0x0A, 0x1E, 0x24, 0x35, 0x44, 0x4E, 0x50, 0x6B, 0x7A, 0x7B, 0x7E, 0x7F, 0x8E, 0x9F, 0xA0),
    *(0xA5, 0xBE, 0xC1, 0xC2, 0xC4, 0xC5, 0xCA, 0xCB, 0xCE, 0xD1, 0xD3, 0xD5, 0xD6, 0xD7, 0xD8),
    *(0xE2, 0xEA, 0xF4, 0xFE, 0x10D, FORCED_BY_SYSRQ),
)


@pytest.mark.parametrize("code", NEEDED, ids=hex)
def test_known_codes_have_name_meaning_and_source(code: int) -> None:
    found = BUGCHECKS[code]
    assert found.name
    assert found.meaning.endswith(".")
    assert len(found.parameters) == 4
    assert found.source


def test_codes_are_listed_once() -> None:
    assert all(code == one.code for code, one in BUGCHECKS.items())
    assert len({one.name for one in BUGCHECKS.values()}) == len(BUGCHECKS)
    for one in BUGCHECKS.values():
        assert set(one.code_at) <= {1, 2, 3, 4}
        assert set(one.values) <= {1, 2, 3, 4}


def test_flag_of_minidumps_changes_nothing() -> None:
    assert name(0x100000D1) == name(0xD1) == "DRIVER_IRQL_NOT_LESS_OR_EQUAL"
    assert name(0x1000007F) == "UNEXPECTED_KERNEL_MODE_TRAP"


def test_a_code_with_that_bit_of_its_own() -> None:
    assert name(0xDEADDEAD) == "MANUALLY_INITIATED_CRASH1"


def test_unknown_code() -> None:
    assert lookup(0x777) is None
    assert name(0x777) is None
    assert code_addresses(0x777, (1, 2, 3, 4)) == ()
    assert explain(0x777, (1,)) == [
        "0x00000777: not in this project's table of stop codes",
        "  1: 0x00000001",
    ]


def test_where_the_code_at_fault_is() -> None:
    assert code_addresses(0xD1, (0, 2, 1, 0xBA940DC2)) == ((4, 0xBA940DC2),)
    assert code_addresses(0x1000008E, (0xC0000005, 0xF7651234, 0, 0)) == ((2, 0xF7651234),)
    # Zeros say nothing; missing parameters are no error.
    assert code_addresses(0xCB, (0, 0xF7651234, 1, 2)) == ((2, 0xF7651234),)
    assert code_addresses(0xD1, (0, 2)) == ()


def test_explanation_of_a_minidump() -> None:
    assert explain(0x100000D1, (0, 2, 1, 0xBA940DC2)) == [
        "0x000000D1 DRIVER_IRQL_NOT_LESS_OR_EQUAL (shown as 0x100000D1: minidumps add a flag)",
        "A driver touched paged or invalid memory at too high an IRQL.",
        "  1: 0x00000000 memory that was touched",
        "  2: 0x00000002 IRQL at that time = DISPATCH_LEVEL",
        "  3: 0x00000001 what was done: 0 read, 1 write, 8 execute = write",
        "  4: 0xba940dc2 address of the code that touched it",
        "source: Microsoft Learn, bug check code reference, "
        "bug-check-0xd1--driver-irql-not-less-or-equal",
    ]


def test_explanation_depends_on_the_first_parameter() -> None:
    lines = explain(0x9F, (3, 0x1, 0x2, 0x3))
    assert "A device object has held a power request for too long." in lines
    assert "  4: 0x00000003 the request (IRP)" in lines


def test_explanation_with_too_many_parameters() -> None:
    assert len(explain(0xE2, range(100))) == 2 + 4 + 1
