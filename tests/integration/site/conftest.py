"""A real browser on real pages: Debian's Chromium, steered by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from lab.site.build import write
from lab.site.madeup import make
from lab.site.pages import Pages

CHROMIUM = "/usr/bin/chromium"
# Chromium's sandbox does not work for root, and needs namespaces that containers may lack; the
# pages are the tests' own. The other switches keep it from calling anybody.
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SOON_MS = 180_000.0
"""For one step of a browser on a busy machine."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, with a profile of its own that goes with it.

    Module scope: while Playwright runs, this thread counts as one with a running event loop, and
    nothing else in it can run one.
    """
    if shutil.which(CHROMIUM) is None:
        missing = f"{CHROMIUM} is not installed: pvlab setup --tests"
        # In the project's own checks a browser that is not there is no reason to go without.
        if "TOX_ENV_NAME" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(
            executable_path=CHROMIUM, args=list(SWITCHES), timeout=SOON_MS
        )
        yield made
        made.close()


@pytest.fixture(scope="session")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of some made-up nights."""
    folder = tmp_path_factory.mktemp("made-up")
    write(make(folder / "results", nights=8, tests=42), folder / "site")
    return folder / "site"


@pytest.fixture(scope="session")
def big_pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages that grow with the nights, of 100 nights with 300 tests each."""
    folder = tmp_path_factory.mktemp("big")
    pages = Pages(make(folder / "results", nights=100, tests=300, evidence_nights=0), folder)
    for one in (pages.night(pages.site.nights[-1]), *pages.matrix(), pages.tests(), pages.search()):
        (folder / one.path).write_text(one.html, encoding="utf-8")
    return folder


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page; it fails the test if anything on it complains, or asks the network."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(SOON_MS)
    expect.set_options(timeout=SOON_MS)
    made = context.new_page()
    troubles: list[str] = []
    made.on("pageerror", lambda error: troubles.append(f"script: {error}"))
    made.on(
        "console",
        lambda said: troubles.append(f"console: {said.text}") if said.type == "error" else None,
    )
    made.on(
        "request",
        lambda asked: (
            troubles.append(f"asked for {asked.url}")
            if not asked.url.startswith(("file:", "data:"))
            else None
        ),
    )

    def dialog(one: object) -> None:
        troubles.append("a dialog opened")
        one.dismiss()  # type: ignore[attr-defined]

    made.on("dialog", dialog)
    yield made
    context.close()
    assert troubles == []
