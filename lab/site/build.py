"""Writing the site: a whole new one beside the old, which it then replaces."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from lab import __version__
from lab.core.errors import UsageError
from lab.site.model import Site
from lab.site.pages import Pages

MARKER = "site.json"
"""A folder with it is a site that may be replaced."""

_EACH = 100


def write(
    site: Site,
    out: Path,
    *,
    written: datetime | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> int:
    """Write a site.

    It is written under another name; a kill at any moment leaves the old site, or none and the
    new one, but no half of one.

    Args:
        site: what it shows.
        out: its folder; replaced when it is a site already.
        written: said at the foot of every page.
        progress: told what is done, in words.

    Returns:
        How many pages it has.

    Raises:
        UsageError: the folder is something else, or cannot be written; the extra ``site`` is
            not installed.
    """
    out = out.resolve()
    if out.exists() and not (out / MARKER).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out}: is no site: not replaced", hint="name another folder with --out")
    fresh = out.with_name(f".{out.name}.{secrets.token_hex(4)}.new")
    try:
        fresh.mkdir(parents=True)
        pages = Pages(site, out, written)
        count = 0
        for page in pages.all():
            target = fresh / page.path
            target.parent.mkdir(exist_ok=True)
            target.write_text(page.html, encoding="utf-8", errors="backslashreplace")
            count += 1
            if count % _EACH == 0:
                progress(f"{count} pages")
        marker = {"schema_version": 1, "pvlab": __version__, "pages": count, "csp": pages.policy}
        (fresh / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        _swap(fresh, out)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return count


def _swap(fresh: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.{secrets.token_hex(4)}.old")
    if out.exists():
        os.replace(out, old)
    os.replace(fresh, out)
    shutil.rmtree(old, ignore_errors=True)
