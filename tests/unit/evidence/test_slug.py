"""Folder names for tests."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lab.evidence.slug import slug


@pytest.mark.parametrize(
    ("test_id", "readable"),
    [
        ("tests/a/test_x.py::test_attach", "test_attach"),
        ("tests/a/test_x.py::TestVbd::test_attach[hdc-1]", "test_attach-hdc-1"),
        ("test_x.py::test_p[a::b/../c]", "test_p-a-b-..-c"),
        ("test_x.py::test_\N{SNOWMAN}", "test_"),
        ("", "test"),
        ("..", "test"),
        ("x::" + "n" * 300, "n" * 72),
    ],
)
def test_readable_part(test_id: str, readable: str) -> None:
    assert re.fullmatch(re.escape(readable) + "-[0-9a-f]{8}", slug(test_id))


@given(st.text())
def test_safe_as_a_folder_name(test_id: str) -> None:
    name = slug(test_id)
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name)
    assert len(name) <= 81
    assert name == slug(test_id)


@given(st.text(), st.text())
def test_different_tests_differ_even_without_case(one: str, other: str) -> None:
    assume(one != other)
    assert slug(one).lower() != slug(other).lower()
