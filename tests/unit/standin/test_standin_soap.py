"""Envelopes, durations and identifiers."""

from __future__ import annotations

import uuid

import pytest
from standin import soap


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT20S", 20), ("PT1M30.5S", 90.5), ("P1DT1H", 90000), ("PT", 0), ("x", 7), ("PT5", 7),
     ("", 7), ("PT5X", 7)],
)  # fmt: skip
def test_duration(text, seconds):
    assert soap.duration(text, 7) == seconds


def test_new_id_is_a_version_4_uuid():
    made = soap.new_id()
    assert uuid.UUID(made).version == 4
    assert made == made.upper()


@pytest.mark.parametrize("data", [b"", b"<a/>", b"<a>", b"not xml"])
def test_bad_envelopes(data):
    with pytest.raises(soap.BadEnvelopeError):
        soap.parse(data)


def test_escape():
    assert soap.escape('<a b="&">') == "&lt;a b=&quot;&amp;&quot;&gt;"
