"""The server: the site and runs alone, to this machine alone, with headers that keep text text."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.core.errors import UsageError
from lab.site.build import write
from lab.site.model import Site
from lab.site.serve import LOOPBACK, SiteServer

SECRET = "nobody may read this"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    results = tmp_path / "results"
    write(Site(nights=()), results / "site")
    for name in ("run-1", "other"):
        (results / name / "tests").mkdir(parents=True)
    (results / "run-1/run.json").write_text("{}")
    (results / "run-1/report.html").write_text("<p>report")
    (results / "run-1/tests/dbgview.log").write_text("<script>alert(1)</script>")
    (results / "run-1/tests/evil.html").write_text("<script>alert(1)</script>")
    (results / "other/run.html").write_text(SECRET)
    (results / "results.db").write_text(SECRET)
    (tmp_path / "outside.txt").write_text(SECRET)
    (results / "run-1/tests/link.txt").symlink_to(tmp_path / "outside.txt")
    return results


@pytest.fixture
def server(results: Path) -> Iterator[SiteServer]:
    with SiteServer(results / "site", results, 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def get(
    server: SiteServer, path: str, host: str | None = None, method: str = "GET"
) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or f"{LOOPBACK}:{server.server_port}")
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_the_site_is_served_with_its_own_policy(server: SiteServer) -> None:
    status, body, headers = get(server, "/site/index.html")
    assert status == 200
    assert "No run yet" in body
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_address_alone_leads_to_the_first_page(server: SiteServer) -> None:
    status, _, headers = get(server, "/")
    assert (status, headers["Location"]) == (302, "/site/")
    assert get(server, "/site/")[0] == 200


def test_a_run_s_files_cannot_act(server: SiteServer) -> None:
    for name in ("dbgview.log", "evil.html"):
        status, body, headers = get(server, f"/run-1/tests/{name}")
        assert status == 200
        assert "alert" in body
        assert headers["Content-Type"] in ("text/plain; charset=utf-8", "application/octet-stream")
        assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert get(server, "/run-1/report.html")[2]["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    "path",
    [
        "/results.db",
        "/other/run.html",
        "/../outside.txt",
        "/site/../../outside.txt",
        "/run-1/%2e%2e/%2e%2e/outside.txt",
        "/run-1/..%2f..%2foutside.txt",
        "/run-1/tests/link.txt",
        "//etc/passwd",
        "/run-1/tests/%00",
        "/nothing",
    ],
)
def test_nothing_else_is_served(server: SiteServer, path: str) -> None:
    status, body, _ = get(server, path)
    assert status in (400, 404)
    assert SECRET not in body


def test_the_results_folder_is_not_listed(server: SiteServer) -> None:
    assert get(server, "/./")[0] in (302, 404)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_other_names_are_refused(server: SiteServer, host: str) -> None:
    assert get(server, "/site/index.html", host or " ")[0] == 421


def test_nothing_can_be_sent(server: SiteServer) -> None:
    assert get(server, "/site/index.html", method="POST")[0] == 501
    assert get(server, "/site/index.html", method="HEAD")[0] == 200


def test_only_loopback_is_listened_on(server: SiteServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_site_elsewhere_is_served_alone(results: Path, tmp_path: Path) -> None:
    write(Site(nights=()), tmp_path / "elsewhere")
    with SiteServer(tmp_path / "elsewhere", results, 0) as made:
        assert made.root == tmp_path / "elsewhere"
        assert made.url.endswith(f":{made.server_port}/")


def test_a_folder_without_a_site_and_a_taken_port_are_refused(
    results: Path, server: SiteServer
) -> None:
    with pytest.raises(UsageError, match="no site"):
        SiteServer(results / "other", results, 0)
    with pytest.raises(UsageError, match="in use"):
        SiteServer(results / "site", results, server.server_port)
