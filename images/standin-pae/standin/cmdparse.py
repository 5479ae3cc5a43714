"""The syntax of cmd.exe: a command line becomes a tree.

Follows "Command shell overview" of the Server 2003 command-line reference and the
observable order of phases: variables first, then quotes, ``^`` and operators. From weakest
to strongest: ``&``, ``||``, ``&&``, ``|``. ``for``, labels and delayed expansion are left
out: the lab sends single lines.
"""

DELIMITERS = " \t,;="
_OPERATORS = "&|()<>"


class CmdSyntaxError(Exception):
    """The line cannot be parsed; the text is what cmd.exe prints."""


def unexpected(token):
    """The error for a token in the wrong place."""
    return CmdSyntaxError(f"{token} was unexpected at this time.")


def incorrect():
    """The error for a construct that is incomplete."""
    return CmdSyntaxError("The syntax of the command is incorrect.")


class Redirection:
    """One of ``n<file``, ``n>file``, ``n>>file``, ``n>&m``.

    Attributes:
        handle: 0, 1, 2 or another digit.
        kind: ``"<"``, ``">"``, ``">>"`` or ``"&"``.
        target: file name with its quotes removed, or the other handle's digit.
    """

    __slots__ = ("handle", "kind", "target")

    def __init__(self, handle, kind, target):
        self.handle = handle
        self.kind = kind
        self.target = target


class Simple:
    """A command: its text without redirections, quotes kept."""

    __slots__ = ("redirections", "text")

    def __init__(self, text, redirections):
        self.text = text
        self.redirections = redirections


class Group:
    """Commands in parentheses."""

    __slots__ = ("body", "redirections")

    def __init__(self, body, redirections):
        self.body = body
        self.redirections = redirections


class Binary:
    """Two commands and the operator between them."""

    __slots__ = ("left", "operator", "right")

    def __init__(self, operator, left, right):
        self.operator = operator
        self.left = left
        self.right = right


class If:
    """``if``: ``test`` is a tuple such as ``("exist", name)``."""

    __slots__ = ("negated", "no", "test", "yes")

    def __init__(self, negated, test, yes, no):
        self.negated = negated
        self.test = test
        self.yes = yes
        self.no = no


def unquote(text):
    """A file name without its double quotes."""
    return text.replace('"', "")


def expand(line, variable):
    """Replace ``%NAME%``, ``%NAME:~start,length%`` and ``%NAME:old=new%``.

    As on the command line (not in a batch file), a name that is not set stays as it is.

    Args:
        line: the command line.
        variable: function giving a variable's value or ``None``.
    """
    if "%" not in line:
        return line
    out = []
    index = 0
    while True:
        start = line.find("%", index)
        if start < 0:
            break
        end = line.find("%", start + 1)
        if end < 0:
            break
        name, colon, edit = line[start + 1 : end].partition(":")
        value = variable(name) if name else None
        if value is not None and colon:
            value = _edit(value, edit)
        if value is None:
            # Only the first % is passed by: the second may open a real variable.
            out.append(line[index:end])
            index = end
        else:
            out.append(line[index:start] + value)
            index = end + 1
    out.append(line[index:])
    return "".join(out)


def _edit(value, edit):
    """Apply ``~start,length`` or ``old=new``; ``None`` if ``edit`` is neither."""
    if edit.startswith("~"):
        first, comma, second = edit[1:].partition(",")
        try:
            start = int(first or "0")
            length = int(second) if comma else None
        except ValueError:
            return None
        if start < 0:
            start = max(0, len(value) + start)
        if length is None:
            return value[start:]
        return value[start:length] if length < 0 else value[start : start + length]
    old, equals, new = edit.partition("=")
    if not equals or not old:
        return None
    out = []
    low, needle = value.lower(), old.lower()
    index = 0
    while (found := low.find(needle, index)) >= 0:
        out.append(value[index:found] + new)
        index = found + len(old)
    out.append(value[index:])
    return "".join(out)


def parse(line):
    """The tree of a command line, ``None`` for an empty one.

    Raises:
        CmdSyntaxError: with cmd.exe's text.
    """
    parser = _Parser(line)
    node = parser.sequence(0)
    parser.blanks()
    if parser.index < len(line):
        raise unexpected(line[parser.index])
    return node


class _Parser:
    def __init__(self, line):
        self.line = line
        self.index = 0

    def peek(self, text):
        return self.line.startswith(text, self.index)

    def blanks(self, characters=" \t\r\n"):
        line = self.line
        while self.index < len(line) and line[self.index] in characters:
            self.index += 1

    def sequence(self, depth):
        """``a & b``; a trailing ``&`` is fine."""
        self.blanks()
        if self.index >= len(self.line):
            return None
        node = self.alternative(depth)
        while self.peek("&"):
            self.index += 1
            self.blanks()
            if self.index >= len(self.line) or (depth and self.peek(")")):
                break
            node = Binary("&", node, self.alternative(depth))
        return node

    def alternative(self, depth):
        """``a || b``."""
        node = self.conjunction(depth)
        while self.peek("||"):
            self.index += 2
            node = Binary("||", node, self.conjunction(depth))
        return node

    def conjunction(self, depth):
        """``a && b``."""
        node = self.pipeline(depth)
        while self.peek("&&"):
            self.index += 2
            node = Binary("&&", node, self.pipeline(depth))
        return node

    def pipeline(self, depth):
        """``a | b``."""
        node = self.command(depth)
        while self.peek("|") and not self.peek("||"):
            self.index += 1
            node = Binary("|", node, self.command(depth))
        return node

    def command(self, depth):
        """One command: a group, an ``if`` or a simple one."""
        self.blanks(DELIMITERS + "\r\n@")
        if self.index >= len(self.line):
            raise incorrect()
        if self.peek("("):
            return self.group(depth)
        for operator in ("&&", "||", "&", "|", ")"):
            if self.peek(operator):
                raise unexpected(operator)
        word = self.keyword()
        if word == "if":
            self.index += 2
            return self.condition(depth)
        if word == "rem":
            # A comment takes the rest of the line, operators included.
            self.index = len(self.line)
            return Simple("rem", [])
        return self.simple(depth)

    def keyword(self):
        """The lower-case word at this place, without moving."""
        end = self.index
        while end < len(self.line) and self.line[end].isalpha():
            end += 1
        if end < len(self.line) and self.line[end] not in DELIMITERS + "/(\r\n" + _OPERATORS:
            return ""
        return self.line[self.index : end].lower()

    def group(self, depth):
        self.index += 1
        body = self.sequence(depth + 1)
        self.blanks()
        if not self.peek(")"):
            raise incorrect()
        if body is None:
            raise unexpected(")")
        self.index += 1
        redirections = []
        while True:
            self.blanks(DELIMITERS + "\r\n")
            handle = None
            at = self.index
            if at + 1 < len(self.line) and self.line[at].isdigit() and self.line[at + 1] in "<>":
                handle = int(self.line[at])
                self.index += 1
            if not self.peek("<") and not self.peek(">"):
                return Group(body, redirections)
            redirections.append(self.redirection(handle))

    def simple(self, depth):
        line = self.line
        text = []
        redirections = []
        quoted = False
        while self.index < len(line):
            char = line[self.index]
            if char in "\r\n":
                break
            if char == '"':
                quoted = not quoted
            elif not quoted:
                if char == "^":
                    self.index += 1
                    if self.index < len(line):
                        text.append(line[self.index])
                        self.index += 1
                    continue
                if char in "<>":
                    redirections.append(self.redirection(self.handle(text)))
                    continue
                if char in "&|" or (char == ")" and depth):
                    break
            text.append(char)
            self.index += 1
        return Simple("".join(text), redirections)

    def handle(self, text):
        """Take a handle's digit that stands right before ``<`` or ``>`` off ``text``."""
        before = self.line[self.index - 1] if self.index else ""
        if not text or not before.isdigit() or text[-1] != before:
            return None
        # "echo a2>x" prints a2; "echo a 2>x" redirects handle 2; "^2>" is no handle.
        if len(text) > 1 and text[-2] not in DELIMITERS + "\"'":
            return None
        if self.index > 1 and self.line[self.index - 2] == "^":
            return None
        return int(text.pop())

    def redirection(self, handle):
        line = self.line
        kind = line[self.index]
        self.index += 1
        if kind == ">" and self.peek(">"):
            kind = ">>"
            self.index += 1
        if handle is None:
            handle = 0 if kind == "<" else 1
        if self.peek("&"):
            digit = line[self.index + 1 : self.index + 2]
            if not digit.isdigit():
                raise unexpected("&")
            self.index += 2
            return Redirection(handle, "&", int(digit))
        self.blanks(DELIMITERS)
        target = self.word(DELIMITERS + "\r\n" + _OPERATORS)
        if not target:
            raise incorrect()
        return Redirection(handle, kind, unquote(target))

    def word(self, stop):
        """Characters up to one of ``stop`` outside quotes; ``^`` escapes."""
        line = self.line
        out = []
        quoted = False
        while self.index < len(line):
            char = line[self.index]
            if char == '"':
                quoted = not quoted
            elif not quoted:
                if char == "^" and self.index + 1 < len(line):
                    self.index += 1
                    char = line[self.index]
                elif char in stop:
                    break
            out.append(char)
            self.index += 1
        return "".join(out)

    def condition(self, depth):
        """What follows ``if``."""
        ignore_case = negated = False
        while True:
            self.blanks()
            start = self.index
            word = self.word(" \t=\r\n" + _OPERATORS)
            low = word.lower()
            if low == "/i":
                ignore_case = True
            elif low == "not":
                negated = not negated
            else:
                break
        if low in ("exist", "defined", "errorlevel") and not self.line[self.index :].lstrip(
            " \t"
        ).startswith("=="):
            self.blanks(" \t=")
            operand = self.word(" \t\r\n,;=" + _OPERATORS)
            if not operand:
                raise incorrect()
            test = (low, unquote(operand))
        else:
            self.index = start
            test = self.comparison(ignore_case)
        yes = self.pipeline_or_group(depth)
        no = None
        at = self.index
        self.blanks()
        if isinstance(yes, Group) and self.keyword() == "else":
            self.index += 4
            no = self.pipeline_or_group(depth)
        else:
            self.index = at
        return If(negated, test, yes, no)

    def pipeline_or_group(self, depth):
        """The body of an ``if``: it reaches to the end of the line, ``&`` included."""
        self.blanks(DELIMITERS + "\r\n")
        if self.peek("("):
            return self.group(depth)
        if self.index >= len(self.line):
            raise incorrect()
        return self.sequence(depth)

    def comparison(self, ignore_case):
        left = self.word(" \t=\r\n" + _OPERATORS)
        self.blanks()
        if self.peek("=="):
            self.index += 2
            operator = "=="
        else:
            operator = self.word(" \t\r\n" + _OPERATORS).lower()
            if operator not in ("equ", "neq", "lss", "leq", "gtr", "geq"):
                raise unexpected(operator or left) if operator or left else incorrect()
        self.blanks()
        right = self.word(" \t\r\n,;=" + _OPERATORS)
        if not left or not right:
            raise incorrect()
        return ("compare", operator, left, right, ignore_case)
