"""The index that the search page looks through."""

from __future__ import annotations

from collections.abc import Iterator

from lab.results.text import visible
from lab.site import names
from lab.site.model import Site

Entry = tuple[str, str, str, str]
"""What it is, its name, what is said of it, and its page."""


def index(site: Site) -> list[Entry]:
    """Every test, run, failure, bucket and gate: the newest failures first."""
    return [
        (kind, visible(title), visible(about), page) for kind, title, about, page in _entries(site)
    ]


def _entries(site: Site) -> Iterator[Entry]:
    for key in site.keys:
        yield "test", key.test, key.place, names.test_page(key)
    newest_first = sorted(site.runs.values(), key=lambda run: (run.started, run.id), reverse=True)
    for run in newest_first:
        for one in run.results:
            if (page := names.failure_page(one)) is not None:
                when = site.night_of.get(run.id, run.id)
                about = f"{when} {one.mark.value} {one.key.place}: {one.message}"
                yield "failure", one.key.test, about, page
    for bucket in site.buckets:
        about = f"{bucket.kind}: {bucket.title}"
        yield "bucket", bucket.key, about, names.bucket_page(bucket.key)
    for gate in site.gates:
        about = f"{gate.status} {gate.when:%Y-%m-%d} {gate.driver}"
        yield "gate", gate.id, about, names.gate_page(gate.id)
    for run in newest_first:
        driver = run.driver.words if run.driver else "no driver"
        about = " ".join((site.night_of.get(run.id, ""), run.status, driver)).strip()
        yield "run", run.id, about, names.run_page(run.id)
