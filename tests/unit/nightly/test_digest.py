from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from lab.core.errors import Blame, ExitCode
from lab.nightly.digest import (
    NAMED,
    Night,
    NotRun,
    Seen,
    Subject,
    Trouble,
    as_html,
    as_text,
    digest,
    latest,
)
from lab.results.record import Outcome

TONIGHT = datetime(2026, 1, 2, 22, 0, tzinfo=UTC)
NIGHT = Night(
    name="20260102T220000Z-abcdef",
    began=TONIGHT,
    seconds=27_000.0,
    guests=("stand-in: 32-bit PAE HVM guest with a Linux kernel",),
    items=4,
    done=3,
    troubles=(
        Trouble("standin/trunk/soak", "dom0 is gone", 3, settled=False),
        Trouble("standin/trunk/attach", "", 2, settled=True),
    ),
    not_run=(NotRun("standin/release/soak", 7200.0, "no time was left"),),
)


def seen(
    test: str,
    outcome: str = "passed",
    blame: str | None = None,
    message: str = "",
    *,
    days: int = 0,
    driver: str = "trunk",
) -> Seen:
    when = TONIGHT - timedelta(days=days)
    return Seen(
        Subject("standin", driver, "standard", f"tests/drivers/test_a.py::{test}"),
        Outcome(outcome),
        Blame(blame) if blame else None,
        message,
        f"{when:%Y%m%dT%H%M%SZ}-000000-00001-0-abcdef",
        when,
    )


FAILED = ("failed", "driver", "the guest crashed")


def test_what_is_new_leads() -> None:
    tonight = [
        seen("breaks", *FAILED),
        seen("mended"),
        seen("stays", *FAILED),
        seen("who", "failed", None, "no idea"),
        seen("lab", "error", "lab", "dom0 is gone"),
        seen("good"),
    ]
    before = [
        seen("breaks", days=1),
        seen("mended", *FAILED, days=2),
        seen("stays", *FAILED, days=1),
        seen("who", days=1),
        seen("lab", days=1),
        seen("good", days=1),
    ]
    told = digest(NIGHT, tonight, latest(before))
    assert told.headline == (
        "1 new failure, 1 fixed, 1 undecided, 1 still failing, 1 item lost to the lab; "
        "6 tests in 3 of 4 items"
    )
    assert told.exit_code is ExitCode.DRIVER_FAILED
    text = as_text(told)
    assert text.startswith(told.headline)
    order = ["New failures", "Fixed", "Nobody can say", "The lab", "Still failing", "Not run"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "test_a.py::breaks (trunk on standin, standard)" in text
    assert "passed on 2026-01-01; 20260102T220000Z" in text
    assert "standin/trunk/soak: no result after 3 attempts: dom0 is gone" in text
    assert "standin/trunk/attach: done after 2 attempts" in text
    assert "guest: stand-in: 32-bit PAE HVM guest" in text
    assert "\n\n\n" not in text


def test_a_test_that_fails_the_first_time_it_says_something_is_news() -> None:
    told = digest(NIGHT, [seen("first", *FAILED)], {})
    assert len(told.failing) == 1
    assert "never ran before" in as_text(told)


def test_a_night_in_which_nobody_could_say_does_not_hide_what_was_before_it() -> None:
    before = [seen("x", *FAILED, days=3), seen("x", "error", "lab", days=1)]
    assert digest(NIGHT, [seen("x")], latest(before)).fixed
    assert not digest(NIGHT, [seen("x", *FAILED)], latest(before)).failing


def test_other_drivers_are_not_compared() -> None:
    before = [seen("x", *FAILED, days=1, driver="release")]
    assert digest(NIGHT, [seen("x", *FAILED)], latest(before)).failing


@pytest.mark.parametrize(
    ("tonight", "code"),
    [
        ([seen("a")], ExitCode.PASS),
        ([], ExitCode.LAB_BROKEN),
        ([seen("a", "skipped")], ExitCode.LAB_BROKEN),
        ([seen("a"), seen("b", "error", "lab")], ExitCode.LAB_BROKEN),
        ([seen("a"), seen("b", "failed", "undecided")], ExitCode.LAB_BROKEN),
        ([seen("a"), seen("b", "xpassed", "undecided")], ExitCode.LAB_BROKEN),
        ([seen("a"), seen("b", "xfailed")], ExitCode.PASS),
        ([seen("a", *FAILED), seen("b", "error", "lab")], ExitCode.DRIVER_FAILED),
    ],
)
def test_exit_codes(tonight: list[Seen], code: ExitCode) -> None:
    quiet = Night(NIGHT.name, TONIGHT, 1.0, (), 1, 1)
    assert digest(quiet, tonight, {}).exit_code is code


def test_an_item_without_result_is_no_pass() -> None:
    assert digest(NIGHT, [seen("a")], {}).exit_code is ExitCode.LAB_BROKEN


def test_a_quiet_night() -> None:
    told = digest(Night(NIGHT.name, TONIGHT, 1.0, (), 2, 2), [seen("a")], {})
    assert not told.news
    assert told.headline == "nothing new; 1 test in 2 of 2 items"
    assert as_text(told).count("\n") == 3


def test_what_guests_print_stays_text() -> None:
    evil = "<script>alert(1)</script>\x1b[2J\u202e"
    told = digest(NIGHT, [seen("x", "failed", "driver", evil)], {})
    page = as_html(told, base="../../")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page + as_text(told)
    assert "\u202e" not in page + as_text(told)
    assert re.search(r"default-src 'none'; style-src 'sha256-[\w+/=]+'", page)


def test_links_lead_to_the_runs() -> None:
    told = digest(NIGHT, [seen("x", *FAILED)], {})
    run = seen("x").run
    assert f'href="../../{run}/report.html"' in as_html(told, base="../../")
    assert "href" not in as_html(told)


def test_a_bad_night_is_told_in_short() -> None:
    told = digest(NIGHT, [seen(f"t{n:03d}", *FAILED) for n in range(NAMED + 7)], {})
    assert f"{NAMED + 7} new failures" in told.headline
    assert "and 7 more" in as_text(told)
    assert "and 7 more" in as_html(told)
