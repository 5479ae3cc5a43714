"""The syntax of command lines."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from standin.cmdparse import Binary, CmdSyntaxError, Group, If, Simple, expand, parse
from standin.console import split_arguments

VARIABLES = {"A": "alpha", "EMPTY": "", "P": "C:\\a;C:\\b"}


def show(node) -> object:
    """A tree as nested tuples."""
    if isinstance(node, Simple):
        redirections = [(item.handle, item.kind, item.target) for item in node.redirections]
        return (node.text, redirections) if redirections else node.text
    if isinstance(node, Group):
        return ("()", show(node.body))
    if isinstance(node, Binary):
        return (node.operator, show(node.left), show(node.right))
    if isinstance(node, If):
        return ("if", node.negated, node.test, show(node.yes), node.no and show(node.no))
    return node


@pytest.mark.parametrize(
    ("line", "tree"),
    [
        ("", None),
        ("   ", None),
        ("dir", "dir"),
        ("@echo hi", "echo hi"),
        ("a & b", ("&", "a ", "b")),
        ("a &", "a "),
        ("a && b || c", ("||", ("&&", "a ", "b "), "c")),
        ("a & b && c | d", ("&", "a ", ("&&", "b ", ("|", "c ", "d")))),
        ('echo "a & b"', 'echo "a & b"'),
        ("echo a^&b", "echo a&b"),
        ("echo ^^", "echo ^"),
        ("echo hi>x", ("echo hi", [(1, ">", "x")])),
        ("echo hi >> x y", ("echo hi  y", [(1, ">>", "x")])),
        ("echo a2>x", ("echo a2", [(1, ">", "x")])),
        ("echo a 2>x", ("echo a ", [(2, ">", "x")])),
        ("a >nul 2>&1", ("a  ", [(1, ">", "nul"), (2, "&", 1)])),
        ('a > "C:\\x y.txt"', ("a ", [(1, ">", "C:\\x y.txt")])),
        ("a < in", ("a ", [(0, "<", "in")])),
        ("(a & b)", ("()", ("&", "a ", "b"))),
        ("echo a) b", "echo a) b"),
        ("rem a & b > c", "rem"),
        ("if exist x echo y", ("if", False, ("exist", "x"), "echo y", None)),
        ('if not exist "a b" (c) else d', ("if", True, ("exist", "a b"), ("()", "c"), "d")),
        (
            "if a==b c & d",
            ("if", False, ("compare", "==", "a", "b", False), ("&", "c ", "d"), None),
        ),
        ("if /i A EQU a b", ("if", False, ("compare", "equ", "A", "a", True), "b", None)),
        ("if errorlevel 1 b", ("if", False, ("errorlevel", "1"), "b", None)),
        ("ifconfig", "ifconfig"),
    ],
)
def test_trees(line, tree):
    assert show(parse(line)) == tree


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("& a", "& was unexpected at this time."),
        ("a && && b", "&& was unexpected at this time."),
        ("a |", "The syntax of the command is incorrect."),
        ("a >", "The syntax of the command is incorrect."),
        ("(a", "The syntax of the command is incorrect."),
        (") a", ") was unexpected at this time."),
        ("()", ") was unexpected at this time."),
        ("if", "The syntax of the command is incorrect."),
        ("if exist", "The syntax of the command is incorrect."),
        ("if a b c", "b was unexpected at this time."),
        ("a 2>&x", "& was unexpected at this time."),
    ],
)
def test_syntax_errors(line, text):
    with pytest.raises(CmdSyntaxError) as caught:
        parse(line)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("%A%", "alpha"),
        ("%a%%A%", "alphaalpha"),
        ("x%NO%y", "x%NO%y"),
        ("%NO%A%", "%NOalpha"),
        ("100% of %A%", "100% of alpha"),
        ("%A", "%A"),
        ("%%", "%%"),
        ("%A:~1,3%", "lph"),
        ("%A:~-2%", "ha"),
        ("%A:~0,-2%", "alp"),
        ("%A:AL=x%", "xpha"),
        ("%P:;= %", "C:\\a C:\\b"),
        ("%EMPTY%", ""),
        ("%A:oops%", "%A:oops%"),
    ],
)
def test_expand(text, result):
    assert expand(text, lambda name: VARIABLES.get(name.upper())) == result


LINES = st.text(st.sampled_from('ab1 "&|<>()^%=;,/\\\t:if'), max_size=24)


@settings(max_examples=300, deadline=None)
@given(LINES)
def test_any_line_parses_or_is_refused(line):
    with suppress(CmdSyntaxError):
        parse(expand(line, VARIABLES.get))


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="cp437", exclude_characters='"\r\n'), min_size=1, max_size=20))
def test_quoted_text_is_taken_as_it_is(text):
    assert show(parse(f'echo "{text}"')) == f'echo "{text}"'


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(codec="cp437", exclude_characters='"\\'), max_size=8)))
def test_quoted_arguments_come_back(words):
    assert split_arguments(" ".join(f'"{word}"' for word in words)) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r'a\b "c d" e', ["a\\b", "c d", "e"]),
        (r'"a\\" b', ["a\\", "b"]),
        (r"\"x\"", ['"x"']),
        ('"" a', ["", "a"]),
        (r'/c:"x y"', ["/c:x y"]),
    ],
)
def test_split_arguments(line, words):
    assert split_arguments(line) == words
