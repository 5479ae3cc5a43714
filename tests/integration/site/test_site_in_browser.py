"""The results site as somebody meets it in the morning: clicks, keys, and what must not happen."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from lab.site.madeup import NOTICE, PANIC, SCRIPT

PAGES = (
    "index.html",
    "matrix.html",
    "tests.html",
    "runs.html",
    "buckets.html",
    "gates.html",
    "mutants.html",
    "performance.html",
    "search.html",
    "bucket/*.html",
    "gate/*.html",
    "night/*.html",
    "run/*.html",
    "test/*.html",
)
DBGVIEW_LINE = "virtdemo: vbd/5632: completion after the queue was freed"


def first(site: Path, pattern: str) -> str:
    return sorted(site.glob(pattern))[-1].as_uri()


def failure_of_tonight(page: Page, site: Path) -> None:
    page.goto((site / "index.html").as_uri())
    page.locator("section:has(h2#regression) a.go").first.click()
    # Loaded, not only begun: its script takes keys from its end on.
    page.wait_for_url("**/failure/**")


def test_three_clicks_to_the_exact_line(page: Page, site_folder: Path) -> None:
    page.goto((site_folder / "index.html").as_uri())
    expect(page.get_by_role("heading", level=1)).to_contain_text("Tonight")
    expect(page.locator(".lead")).to_contain_text("regressions")

    # One: the regression. Two: the line on its timeline, which leads to the line in its log.
    page.locator("section:has(h2#regression) a.go").first.click()
    expect(page.locator("main")).to_contain_text(PANIC)
    page.locator("table.timeline").get_by_role("link", name=DBGVIEW_LINE).click()

    line = page.locator("table.log tr:target")
    expect(line).to_contain_text(DBGVIEW_LINE)
    expect(line).to_be_in_viewport()
    assert "dbgview" in page.url


def test_the_line_that_tells_is_one_click_from_the_failure(page: Page, site_folder: Path) -> None:
    failure_of_tonight(page, site_folder)
    page.locator(".telling a").first.click()
    line = page.locator("table.log tr:target")
    expect(line).to_contain_text(PANIC)
    expect(line).to_be_in_viewport()


def test_the_timeline_is_in_order_and_shows_every_source(page: Page, site_folder: Path) -> None:
    failure_of_tonight(page, site_folder)
    rows = page.locator("table.timeline tbody tr")
    times = [float(text.lstrip("\u2265 ")) for text in rows.locator("td.number").all_inner_texts()]
    assert times == sorted(times)
    sources = set(rows.locator("td:nth-child(2)").all_inner_texts())
    assert sources == {"operation", "vbd", "DbgView", "guest serial", "Xen and dom0"}
    # The panic was printed while the disk was attached, and after DbgView's last line.
    words = rows.locator("td:nth-child(3)").all_inner_texts()
    attach = next(n for n, text in enumerate(words) if "vbd.attach phy:" in text)
    last_print = next(n for n, text in enumerate(words) if DBGVIEW_LINE in text)
    panic = next(n for n, text in enumerate(words) if text.strip() == PANIC)
    assert attach < last_print < panic


def test_script_in_a_dbgview_line_stays_text(page: Page, site_folder: Path) -> None:
    failure_of_tonight(page, site_folder)
    expect(page.locator("table.timeline")).to_contain_text(SCRIPT)
    injected = "main script, main img:not([src^='data:image/png']), main [onerror]"
    assert page.locator(injected).count() == 0
    page.locator("table.timeline a", has_text="alert(").first.click()
    expect(page.locator("tr:target")).to_contain_text(SCRIPT)
    assert page.locator("main script, main img, [onerror]").count() == 0


def test_the_policy_stops_what_would_get_past_the_escaping(
    browser: Any, site_folder: Path, tmp_path: Path
) -> None:
    # A page as it would be if the escaping failed; the policy must still hold.
    page_file = sorted(site_folder.glob("failure/*.html"))[-1]
    hostile = page_file.read_text().replace(
        "</main>", "<script>document.title = 'owned'</script><img src=x onerror="
        "\"document.title = 'owned'\"></main>"
    )  # fmt: skip
    (tmp_path / "page.html").write_text(hostile)
    context = browser.new_context()
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda said: refused.append(said.text))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_load_state("load")
    assert page.title() != "owned"
    assert any("Content Security Policy" in text for text in refused)
    context.close()


def test_keys_alone_lead_to_the_failure(page: Page, site_folder: Path) -> None:
    page.goto((site_folder / "index.html").as_uri())
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    wanted = page.locator("section:has(h2#regression) a.go").first
    for _ in range(12):
        page.keyboard.press("Tab")
        if wanted.evaluate("node => node === document.activeElement"):
            break
    expect(wanted).to_be_focused()
    outline = wanted.evaluate("node => getComputedStyle(node).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_contain_text(PANIC)


def test_slash_leads_to_the_search_which_finds(page: Page, site_folder: Path) -> None:
    failure_of_tonight(page, site_folder)
    page.keyboard.press("/")
    field = page.get_by_role("searchbox")
    expect(field).to_be_focused()
    page.keyboard.type("failed 2026-11-24 no such thing")
    expect(page.locator("#told")).to_have_text("0 found")
    field.fill("failed 2026-11-24")
    found = page.locator("#found li")
    expect(found.first).to_contain_text("failure")
    found.first.get_by_role("link").click()
    expect(page.locator("main")).to_contain_text("Timeline")


def test_search_is_kept_in_the_address_as_text(page: Page, site_folder: Path) -> None:
    words = "<img src=x onerror=alert(1)>"
    page.goto((site_folder / "search.html").as_uri())
    page.get_by_role("searchbox").fill(words)
    expect(page.locator("#told")).to_have_text("0 found")
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value(words)
    assert page.locator("main img").count() == 0


def test_quiet_tests_and_sources_can_be_hidden(page: Page, site_folder: Path) -> None:
    page.goto((site_folder / "matrix.html").as_uri())
    quiet = page.locator("tr.quiet")
    expect(quiet.first).to_be_visible()
    page.get_by_label("only tests with something else than passes").check()
    expect(quiet.first).to_be_hidden()
    failure_of_tonight(page, site_folder)
    page.get_by_label("guest serial").uncheck()
    expect(page.locator("tr.src-guest").first).to_be_hidden()
    expect(page.locator("tr.src-dbgview").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(page: Page, site_folder: Path, scheme: Any) -> None:
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    page.emulate_media(color_scheme=scheme)
    addresses = [first(site_folder, pattern) for pattern in PAGES]
    failure_of_tonight(page, site_folder)
    addresses.append(page.url)
    page.locator(".telling a").first.click()
    addresses.append(page.url)
    looked, found = 0, []
    for address in addresses:
        page.goto(address)
        # evaluate() is not under the page's policy, so that the page is looked at as it is.
        page.evaluate(axe)
        results = page.evaluate("() => axe.run()")
        looked += len(results["passes"])
        found += [
            (address.rpartition("/site/")[2], one["id"], one["nodes"][0]["html"][:200])
            for one in results["violations"]
            if one["impact"] in ("serious", "critical")
        ]
    assert looked > 10 * len(addresses)
    assert found == []


def test_axe_sees_what_is_wrong(page: Page, tmp_path: Path) -> None:
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    (tmp_path / "page.html").write_text("<title>x</title><img src='data:image/png;base64,'>")
    page.goto((tmp_path / "page.html").as_uri())
    page.evaluate(axe)
    results = page.evaluate("() => axe.run()")
    assert "image-alt" in {one["id"] for one in results["violations"]}


def test_made_up_data_say_so(page: Page, site_folder: Path) -> None:
    page.goto((site_folder / "index.html").as_uri())
    expect(page.get_by_role("contentinfo")).to_contain_text(NOTICE)


def test_printed_pages_have_everything_and_no_navigation(page: Page, site_folder: Path) -> None:
    failure_of_tonight(page, site_folder)
    page.emulate_media(media="print")
    expect(page.get_by_role("navigation", name="Site")).to_be_hidden()
    expect(page.locator("table.timeline")).to_be_visible()
    printed = page.pdf()
    assert printed.startswith(b"%PDF-")


def test_without_script_everything_is_there(browser: Any, site_folder: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    failure_of_tonight(page, site_folder)
    expect(page.locator("table.timeline")).to_contain_text(DBGVIEW_LINE)
    expect(page.locator(".filters")).to_be_hidden()
    context.close()


@pytest.mark.parametrize("name", ["index.html", "matrix.html", "search.html", "tests.html"])
def test_how_long_pages_take_is_told(
    page: Page, big_pages: Path, name: str, request: pytest.FixtureRequest, capsys: Any
) -> None:
    page.goto((big_pages / name).as_uri(), wait_until="load")
    taken = page.evaluate("() => performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert taken > 0
    request.node.user_properties.append((f"pvlab.page.{name}, ms", f"{taken:.0f}"))
    with capsys.disabled():
        print(f"\n{name} of 100 nights with 300 tests: loaded after {taken:.0f} ms")
