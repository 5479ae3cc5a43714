"""What all of the lab's HTML pages share: escaping that cannot be forgotten, and their policy."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lab.results import text

TEMPLATES = "templates"


@cache
def environment(package: str) -> Environment:
    """Templates of a package, in its folder ``templates``.

    Everything that a template prints is escaped, and control characters in it are shown.

    Args:
        package: ``lab.results``.
    """
    made = Environment(
        loader=PackageLoader(package, TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"size": text.size, "duration": text.duration, "link": link}
    return made


@cache
def own_text(package: str, name: str) -> str:
    """A file of a package's templates, to be printed as it is: a style sheet, a script."""
    return resources.files(package).joinpath(TEMPLATES, name).read_text("utf-8")


def verbatim(content: str) -> Markup:
    """Text of our own files for a template, not escaped."""
    return Markup(content)  # noqa: S704 - our own file


def source_hash(content: str) -> str:
    """What a content security policy calls an inline element of this text.

    Source: Content Security Policy Level 3, 2.3.1 (hash-source).
    """
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"sha256-{digest}"


def link(path: str) -> str:
    """A relative URL; ``./`` keeps a name with a colon from being read as a scheme."""
    return "./" + quote(path)


def _shown(value: object) -> object:
    """Every text that the template prints goes through here, so that none can be forgotten."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return text.visible(str(value)) if is_text else value
