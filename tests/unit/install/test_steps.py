"""The lines in which a guest reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.install.firstboot import FIRST_STEPS
from lab.install.steps import SETUP_STEPS, Event, Report, line, parse

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)
DETAILS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80)


@given(NAMES, st.sampled_from(Event), DETAILS, st.text(max_size=40))
def test_what_is_written_is_read(name: str, event: Event, detail: str, noise: str) -> None:
    report = Report(name, event, detail)
    assert parse(line(report)) == report
    # Firmware ends no line before the guest begins one.
    if "@pvlab" not in noise and "\n" not in noise and "\r" not in noise:
        assert parse(noise + line(report) + "\r") == report


@given(st.text(max_size=200))
def test_noise_is_no_report(text: str) -> None:
    found = parse(text)
    assert found is None or "@pvlab 1 " in text


@pytest.mark.parametrize(
    "text",
    [
        "@pvlab 2 winrm ok",
        "@pvlab 1 winrm o",
        "@pvlab 1 WINRM ok",
        "@pvlab 1 winrm okay",
        "@pvlab 1  winrm ok",
        "@pvlab 1 winrm",
        "echo pvlab 1 winrm ok",
    ],
)
def test_nearly_a_report_is_none(text: str) -> None:
    assert parse(text) is None


def test_details_are_bounded_and_clean() -> None:
    found = parse("@pvlab 1 a fail \x1b[31m" + "x" * 1000)
    assert found is not None
    assert "\x1b" not in found.detail
    assert len(found.detail) == 400


def test_steps_are_named_once_and_restarts_are_among_them() -> None:
    steps = (*SETUP_STEPS, *FIRST_STEPS)
    assert len({step.name for step in steps}) == len(steps)
    assert sum(step.reboots for step in steps) == 4
    assert all(parse(line(Report(step.name, Event.OK))) for step in steps)
