"""The pages: where things are, and that nothing a guest says can act on them."""

from __future__ import annotations

import dataclasses
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders import KEY, evidence, result, run, site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab.core.errors import UsageError
from lab.evidence.manifest import PieceName
from lab.site import charts, names
from lab.site.build import MARKER, write
from lab.site.madeup import NOTICE, SCRIPT, make
from lab.site.model import Bucket, Finding, Gate, Key, Mark, Mutant, Mutants, Night, Site
from lab.site.pages import Page, Pages

ACTING = re.compile(r"\s*(?:javascript|vbscript|file|https?):", re.IGNORECASE)
VOID = {"meta", "br", "img", "input", "wbr"}
SVG_ALLOWED = {"svg", "g", "path", "line", "text", "rect"}
WRITTEN = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)


class Parsed(HTMLParser):
    """A parsed page; refuses tags that do not nest."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: set[str] = set()
        self._open: list[str] = []
        self._words: list[str] = []
        self.feed(page.html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append((tag, given))
        if given.get("id"):
            assert given["id"] not in self.ids
            self.ids.add(str(given["id"]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self._words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self._words).split())

    @property
    def links(self) -> list[str]:
        return [str(attrs["href"]) for tag, attrs in self.elements if tag == "a"]


def check_harmless(page: Page) -> Parsed:
    """Nothing but the site's own elements, and no attribute that acts."""
    parsed = Parsed(page)
    tags = [tag for tag, _ in parsed.elements]
    data = [attrs for tag, attrs in parsed.elements if tag == "script" and "type" in attrs]
    assert all(attrs == {"type": "application/json", "id": "index"} for attrs in data)
    assert tags.count("script") - len(data) == 1
    assert tags.count("style") == 1
    assert not {"iframe", "object", "embed", "form", "base", "link", "foreignobject"} & set(tags)
    for tag, attrs in parsed.elements:
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        for name in ("href", "src"):
            assert not re.match(
                r"(?i)\s*(?:javascript|vbscript|file|https?):", attrs.get(name) or ""
            )
        if tag == "img":
            assert str(attrs["src"]).startswith("data:image/png;base64,")
    return parsed


def pages(shown: Site, out: Path = Path("/nowhere/site")) -> list[Page]:
    return list(Pages(shown, out, WRITTEN).all())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make(tmp_path_factory.mktemp("made-up"), nights=3, tests=28, evidence_nights=1)


@pytest.fixture(scope="module")
def small_pages(small: Site) -> dict[str, Page]:
    return {page.path: page for page in pages(small)}


def test_every_link_leads_to_a_page_and_an_anchor(small_pages: dict[str, Page]) -> None:
    parsed = {path: Parsed(page) for path, page in small_pages.items()}
    for path, page in parsed.items():
        folder = Path(path).parent
        for link in page.links:
            target, _, anchor = link.partition("#")
            found = (Path("/") / folder / target).resolve().relative_to("/") if target else path
            assert str(found) in parsed, (path, link)
            assert not anchor or anchor in parsed[str(found)].ids, (path, link)


def test_no_page_is_written_twice(small: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_svg", lambda spec: "")
    paths = [page.path.lower() for page in pages(small)]
    assert len(paths) == len(set(paths))


def test_everything_the_guest_says_is_text(small_pages: dict[str, Page]) -> None:
    shown = 0
    for page in small_pages.values():
        shown += SCRIPT in check_harmless(page).text
    # In the timeline and in DbgView's own log, of each regression.
    assert shown >= 2


def test_made_up_data_say_so_on_every_page(small_pages: dict[str, Page]) -> None:
    assert all(NOTICE in Parsed(page).text for page in small_pages.values())


def test_three_clicks_from_tonight_to_the_line(small_pages: dict[str, Page]) -> None:
    tonight = Parsed(small_pages[names.TONIGHT])
    (first, *_) = [
        attrs["href"]
        for tag, attrs in tonight.elements
        if tag == "a" and attrs.get("class") == "go"
    ]
    failure = small_pages[str(first)]
    lines = [link for link in Parsed(failure).links if "#L" in link and "dbgview" in link]
    assert lines
    target, _, anchor = lines[0].partition("#")
    log = small_pages[str((Path("/failure") / target).resolve().relative_to("/"))]
    assert anchor in Parsed(log).ids


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1, max_size=60))
def test_no_text_can_act(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "_svg", lambda spec: "")
    hostile_pages(text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        SCRIPT,
        "</script><script>alert(1)</script>",
        "</style><img src=x onerror=alert(1)>",
        '" autofocus onfocus="alert(1)',
        "{{ 7 * 7 }}{% raw %}",
        "../../../etc/passwd",
        "<!--",
        "]]>&lt;script&gt;",
        "javascript:alert(1)",
    ],
)
def test_hostile_text_stays_text(text: str, tmp_path: Path) -> None:
    texts = [parsed.text for parsed in hostile_pages(text, tmp_path)]
    assert any(" ".join(text.split()) in one for one in texts)


def hostile_pages(text: str, tmp_path: Path) -> list[Parsed]:
    """Every page of a site in which everything that comes from outside is this text."""
    printed = "".join(c for c in text if c not in "\r\n\ud800") or "x"
    try:
        data = f"00000001\t0.10000000\t{printed}\t\r\n".encode()
    except UnicodeEncodeError:
        data = b"x"
    folder = evidence(tmp_path / "evidence", {PieceName.DBGVIEW: data, "odd piece.log": data})
    key = Key(text, text)
    one = result(Mark.FAILED, key, run=text, area=text, message=text, details=text, phase=text,
                 evidence=folder, bucket=text)  # fmt: skip
    made = run(text, [one], profile=text, guest=text, accelerator=text, host=text, status=text,
               reasons=(text, text), command=text, versions={text: text})  # fmt: skip
    now = made.started
    shown = Site(
        nights=(Night(text, (made,)),),
        buckets=(Bucket(text, text, text, 1, now, now, {text: 1}),),
        gates=(Gate(text, now, text, text, text, 1, (text,), (Finding(text, text, text, text),),
                    {text: text}, text, (text,)),),
        mutants=Mutants(text, text, text, (Mutant(text, text, text, text, text, 1.0, text, text),)),
        notice=text,
    )  # fmt: skip
    made_pages = pages(shown)
    for page in made_pages:
        assert re.fullmatch(r"(?:[a-z]+/)?[A-Za-z0-9_][A-Za-z0-9._-]*\.html", page.path)
    return [check_harmless(page) for page in made_pages]


def test_the_policy_allows_the_site_s_own_script_and_style_alone(small_pages: Any) -> None:
    for page in small_pages.values():
        (policy,) = [
            attrs["content"]
            for tag, attrs in Parsed(page).elements
            if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
        ]
        assert policy is not None
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy


def test_search_index_holds_tests_runs_failures_and_buckets(small: Site, small_pages: Any) -> None:
    html = small_pages[names.SEARCH].html
    found = re.search(r'<script type="application/json" id="index">(.*?)</script>', html, re.S)
    assert found is not None
    entries = json.loads(found[1])
    assert {entry[0] for entry in entries} == {"test", "failure", "run", "bucket", "gate"}
    assert all(entry[3] in small_pages for entry in entries)
    assert len([entry for entry in entries if entry[0] == "test"]) == 28


def test_evidence_is_linked_where_the_site_lies_among_the_results(tmp_path: Path) -> None:
    folder = evidence(tmp_path / "run-0/tests/a", {PieceName.DBGVIEW: "x\r\n"})
    one = result(Mark.FAILED, evidence=folder)
    shown = Site(nights=(Night("1", (run("run-0", [one]),)),), results_folder=tmp_path)
    by_path = {page.path: page for page in pages(shown, tmp_path / "site")}
    page = by_path[str(names.failure_page(one))]
    assert "./../../run-0/tests/a" in Parsed(page).links
    elsewhere = {page.path: page for page in pages(shown)}[page.path]
    assert not [link for link in Parsed(elsewhere).links if "run-0/tests" in link]


def test_missing_evidence_is_said(tmp_path: Path) -> None:
    one = result(Mark.FAILED, evidence=tmp_path / "gone")
    shown = Site(nights=(Night("1", (run("run-0", [one]),)),))
    page = next(page for page in pages(shown) if page.path == names.failure_page(one))
    assert "the evidence is no longer there" in Parsed(page).text


def test_an_empty_site_says_so(tmp_path: Path) -> None:
    assert write(Site(nights=()), tmp_path / "site", written=WRITTEN) > 5
    assert "No run yet" in (tmp_path / "site/index.html").read_text()


def test_a_site_is_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "site"
    write(site(Mark.PASSED, Mark.FAILED), out)
    old = set(out.rglob("*.html"))
    write(site(Mark.PASSED), out)
    new = set(out.rglob("*.html"))
    assert new < old
    assert (out / MARKER).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_is_no_site_is_not_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/precious").write_text("x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is no site"):
        write(site(Mark.PASSED), tmp_path / name)
    assert (tmp_path / "folder/precious").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_charts_are_plain_shapes() -> None:
    history = [
        (Night(f"2026-11-{n:02d}", ()), result(mark, seconds=2.0 + n))
        for n, mark in enumerate(Mark, 1)
    ]
    drawn = charts.durations(history, expected=5.0)
    parsed = Parsed(Page("x", str(drawn)))
    assert {tag for tag, _ in parsed.elements} <= SVG_ALLOWED
    assert not [attrs for _, attrs in parsed.elements if "style" in attrs]
    for mark in Mark:
        assert charts.COLOURS[mark] in drawn


def test_a_chart_s_colours_are_those_of_the_style_sheet() -> None:
    from lab.results.page import own_text

    style = own_text("lab.site", "site.css")
    for colour in (*charts.COLOURS.values(), charts.INK, charts.LINE, charts.ACCENT):
        assert f'"{colour}"' in style


@pytest.mark.parametrize("text", ["\0", "\x02", "\ud800", "\uffff", "<b>", "\\", "x" * 500])
def test_a_chart_takes_any_text(text: str) -> None:
    night = Night(text, ())
    drawn = charts.durations([(night, result()), (night, result(seconds=9.0))], None)
    assert {tag for tag, _ in Parsed(Page("x", str(drawn))).elements} <= SVG_ALLOWED


def test_without_the_extra_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    with pytest.raises(UsageError, match="charts need vl-convert-python"):
        charts.durations([(Night("1", ()), result())], None)


def test_matrix_is_split_into_parts_of_nights() -> None:
    shown = site(*[Mark.PASSED] * 65)
    parts = [page for page in pages(shown) if page.path.startswith("matrix")]
    assert [page.path for page in parts] == ["matrix.html", "matrix-2.html", "matrix-3.html"]
    cells = [sum(tag == "td" for tag, _ in Parsed(page).elements) for page in parts]
    assert cells == [30, 30, 5]


def test_a_long_log_is_split_and_its_lines_are_found(tmp_path: Path) -> None:
    count = names.PART_LINES + 10
    dbgview = "".join(f"{n:08d}\t0.{n:08d}\tline {n}\t\r\n" for n in range(1, count + 1))
    folder = evidence(tmp_path, {PieceName.DBGVIEW: dbgview})
    one = result(Mark.FAILED, evidence=folder, message=f"it said: line {count} and no more words")
    shown = Site(nights=(Night("1", (run("run-0", [one]),)),))
    logs = [page for page in pages(shown) if page.path.startswith("log/")]
    assert [Parsed(page).ids & {"L1", f"L{count}"} for page in logs] == [{"L1"}, {f"L{count}"}]


def test_names_lead_nowhere_else() -> None:
    for hostile in ("..", "a/b", ".hidden", "x" * 300, "a\0b", "C:evil"):
        assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,100}", names.file_name(hostile))
    assert names.file_name("20261122T170432Z-ad4038-good") == "20261122T170432Z-ad4038-good"


def test_a_result_s_page_does_not_depend_on_other_fields() -> None:
    one = result(Mark.FAILED, KEY)
    changed = dataclasses.replace(one, message="other", seconds=9.0)
    assert names.failure_page(one) == names.failure_page(changed)
