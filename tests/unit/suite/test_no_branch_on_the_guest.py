"""The suite does not know which guest it runs on: no branch of it asks.

What differs between guests is in their profiles and descriptions, as capabilities. Looked for in
the syntax: a name of what a guest is, in any expression that something depends on, and a text
that names one there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from lab.core.paths import repo_root

#: The code of the driver suite, and what it stands on down to the guest.
FOLDERS = (
    "tests/drivers", "lab/suite", "lab/scenario", "lab/plugin", "lab/evidence", "lab/gate",
    "lab/guest", "lab/place", "lab/xen",
)  # fmt: skip

#: Who a guest, a driver or an image is, rather than what it can do.
IDENTITY = {"guest_kind", "guest_label", "guest_image", "host_image"}
NAMED = re.compile(r"stand-?in|windows|server 2003|linux|gplpv", re.IGNORECASE)
#: Paths, registry keys and commands of a Windows guest hold the word and ask nothing.
INSIDE_PATHS = re.compile(r"[\\%]|windir", re.IGNORECASE)


def deciding(tree: ast.AST) -> Iterator[ast.expr]:
    """The expressions that something depends on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.While | ast.Assert):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Compare | ast.BoolOp):
            yield node
        elif isinstance(node, ast.Match):
            yield node.subject
            for case in node.cases:
                yield from (one.value for one in ast.walk(case.pattern)
                            if isinstance(one, ast.MatchValue))  # fmt: skip
                if case.guard is not None:
                    yield case.guard
        elif isinstance(node, ast.Subscript):
            # A table looked up by who a guest is branches all the same.
            yield node.slice
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and node.args
        ):
            yield node.args[0]


def branches(source: str) -> list[tuple[int, str]]:
    """Lines that branch on who the guest is, with what they ask for."""
    found = set()
    for expression in deciding(ast.parse(source)):
        for node in ast.walk(expression):
            if isinstance(node, ast.Attribute) and node.attr in IDENTITY:
                found.add((node.lineno, node.attr))
            elif isinstance(node, ast.Name) and node.id in IDENTITY:
                found.add((node.lineno, node.id))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value
                if text in IDENTITY or (NAMED.search(text) and not INSIDE_PATHS.search(text)):
                    found.add((node.lineno, repr(text[:60])))
    return sorted(found)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_branch_on_who_the_guest_is(folder: str) -> None:
    files = sorted((repo_root() / folder).rglob("*.py"))
    assert files
    found = [
        f"{file.relative_to(repo_root())}:{line}: {what}"
        for file in files
        for line, what in branches(file.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "if place.profile.guest_kind == 'standin':\n    pass",
        "x = 1 if guest_kind else 2",
        "y = [a for a in b if a.guest_kind != kind]",
        "table = {'windows': 1}\nz = table[profile.guest_kind]",
        "z = table.get(profile.guest_kind)",
        "if 'Windows' in guest.ver():\n    pass",
        "assert profile.guest_label.startswith('stand-in')",
        "while label == 'Linux':\n    pass",
        "match kind:\n    case 'standin':\n        pass",
        "match profile.guest_kind:\n    case _:\n        pass",
        "flag = getattr(profile, 'guest_kind') == other",
        "done = name and profile.host_image",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert branches(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Runs on the stand-in and on Windows."""',
        "claim('runs on Windows Server 2003', SOURCE)",
        "assert not problem, f'{label}: the stand-in differs'",
        "if place.drive_c_in_memory:\n    pass",
        "if path == r'C:\\\\WINDOWS\\\\system32':\n    pass",
        "report(label=profile.guest_label)",
    ],
)
def test_what_is_no_branch_is_left_alone(source: str) -> None:
    assert branches(source) == []
