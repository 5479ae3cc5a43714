"""The site over HTTP, for this machine alone.

It can be read without: the pages work from files. What a server adds is one address to keep open,
and headers that a page cannot give itself.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab.core.errors import UsageError
from lab.results.record import RECORD_NAME, REPORT_NAME
from lab.site.build import MARKER

LOOPBACK = "127.0.0.1"

_HOST = re.compile(r"(?:localhost|127\.0\.0\.1)(?::\d{1,5})?", re.IGNORECASE)
# Logs of guests are text whatever their names end in: nothing of a guest's is a page or a script.
_TEXT = frozenset([".txt", ".log", ".json", ".yaml", ".yml", ".xml", ".cfg", ".toml", ".py"])
_RUN_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class SiteServer(ThreadingHTTPServer):
    """Serves a site, and the runs beside it if it lies among the results.

    Args:
        site: its folder.
        results: the results folder.
        port: 0 for any that is free.

    Raises:
        UsageError: there is no site, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, site: Path, results: Path, port: int) -> None:
        self.site = site.resolve()
        try:
            marker = json.loads((self.site / MARKER).read_bytes())
            self.policy = f"{marker['csp']}; frame-ancestors 'none'"
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(f"{site}: no site", hint="pvlab report site writes one") from None
        among = self.site.parent == results.resolve()
        self.root = self.site.parent if among else self.site
        self.prefix = f"/{self.site.name}/" if among else "/"
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"port {port}: {error}", hint="--port names another") from None

    @property
    def url(self) -> str:
        """Where the first page is."""
        return f"http://{LOOPBACK}:{self.server_port}{self.prefix}"


class _Handler(SimpleHTTPRequestHandler):
    server: SiteServer

    def __init__(self, request: Any, address: Any, server: SiteServer) -> None:
        super().__init__(request, address, server, directory=str(server.root))

    def do_GET(self) -> None:
        """Answer, if it is asked for by this machine's name for itself."""
        if self._may():
            super().do_GET()

    def do_HEAD(self) -> None:
        """Likewise."""
        if self._may():
            super().do_HEAD()

    def _may(self) -> bool:
        # Another site's name may be made to lead to this machine, and its pages would read ours.
        if not _HOST.fullmatch(self.headers.get("Host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return False
        if self.path == "/" and self.server.prefix != "/":
            self.send_response(HTTPStatus.FOUND)
            self.send_header("Location", self.server.prefix)
            self.end_headers()
            return False
        if self._shown() is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return False
        return True

    def _shown(self) -> Path | None:
        """The file that is asked for, if it is the site's, or a run's."""
        asked = Path(self.translate_path(self.path))
        try:
            found = asked.resolve()
        except (OSError, RuntimeError, ValueError):
            return None
        if found.is_relative_to(self.server.site):
            return found
        root = self.server.root
        if found == root or not found.is_relative_to(root):
            return None
        run = root / found.relative_to(root).parts[0]
        return found if (run / RECORD_NAME).is_file() else None

    def _of_site(self) -> bool:
        found = self._shown()
        return found is None or found.is_relative_to(self.server.site)

    def guess_type(self, path: Any) -> str:
        name = Path(path)
        if name.is_relative_to(self.server.site):
            return "text/html; charset=utf-8" if name.suffix == ".html" else "application/json"
        if name.name == REPORT_NAME:
            return "text/html; charset=utf-8"
        if name.suffix == ".png":
            return "image/png"
        return "text/plain; charset=utf-8" if name.suffix in _TEXT else "application/octet-stream"

    def end_headers(self) -> None:
        policy = self.server.policy if self._of_site() else _RUN_POLICY
        self.send_header("Content-Security-Policy", policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: who reads the pages is nobody's business."""
