"""The interpreter of cmd.exe's command lines: what a WinRM command runs in.

``standin.cmdparse`` gives the tree, ``standin.builtins`` the built-in commands,
``standin.tools`` the programs. Texts and exit codes are those of cmd.exe 5.2.3790.
"""

import threading
import time
import traceback
from contextlib import suppress

from standin import builtins, tools
from standin.cmdparse import (
    Binary,
    CmdSyntaxError,
    Group,
    If,
    Simple,
    expand,
    parse,
    unquote,
)
from standin.console import Context, FileInput, FileOutput, Null, Queue, TerminatedError, encode
from standin.errors import win32_text
from standin.paths import is_device

#: errorlevel of a program that was not found; the exit code of ``cmd /c`` is 1 then.
NOT_FOUND = 9009

#: Bytes between two commands of a pipe before the left one waits.
PIPE_LIMIT = 1 << 20


class ExitShellError(Exception):
    """``exit``: leave the interpreter.

    Args:
        code: its exit code.
    """

    def __init__(self, code):
        super().__init__(code)
        self.code = code


#: What batch files' names end in.
BATCH = (".cmd", ".bat")


class Session:
    """What one cmd.exe keeps between commands.

    Attributes:
        cwd: upper-case drive letters to their current folders; ``""`` holds the current drive.
        env: variables by upper-case name: (name as set, value).
        errorlevel: exit code of the last program.
        echo: what ``echo on|off`` set.
        code_page: of its console; programs here print in 437 all the same.
    """

    def __init__(self, env, cwd="C:\\"):
        self.cwd = {"": cwd[0].upper(), cwd[0].upper(): cwd}
        self.env = {name.upper(): (name, value) for name, value in env.items()}
        self.errorlevel = 0
        self.echo = True
        self.code_page = 437

    def copy(self):
        """A child's session: it starts with the same state."""
        other = Session({})
        other.cwd = dict(self.cwd)
        other.env = dict(self.env)
        other.errorlevel = self.errorlevel
        other.echo = self.echo
        other.code_page = self.code_page
        return other

    @property
    def folder(self):
        """The current folder as a Windows path."""
        drive = self.cwd[""]
        return self.cwd.get(drive, drive + ":\\")

    def variable(self, name):
        """A variable's value, dynamic ones included, or ``None``."""
        upper = name.upper()
        if upper in self.env:
            return self.env[upper][1]
        if upper == "CD":
            return self.folder
        if upper == "ERRORLEVEL":
            return str(self.errorlevel)
        if upper == "DATE":
            return time.strftime("%a %m/%d/%Y")
        if upper == "TIME":
            now = time.time()
            return time.strftime("%H:%M:%S", time.localtime(now)) + f".{int(now * 100) % 100:02d}"
        if upper == "RANDOM":
            import random

            return str(random.randrange(32768))
        return None


class Interpreter:
    """Runs command lines of one session.

    Args:
        system: the ``standin.system.System``.
        session: the state to use and change.
        process: entry of the process table that all commands belong to.
        stdin, stdout, stderr: byte streams.
    """

    def __init__(self, system, session, process, stdin, stdout, stderr):
        self.system = system
        self.session = session
        self.process = process
        self.streams = {0: stdin, 1: stdout, 2: stderr}

    def run(self, line):
        """Run one line as ``cmd /c`` does.

        Returns:
            The exit code.

        Raises:
            TerminatedError: the process was ended from outside.
        """
        try:
            node = parse(expand(line, self.session.variable))
        except CmdSyntaxError as error:
            self.streams[2].write(encode(f"{error}\n"))
            self.session.errorlevel = 1
            return 1
        if node is None:
            return 0
        try:
            code = self._node(node, self.streams)
        except ExitShellError as leave:
            return leave.code
        return 1 if code == NOT_FOUND else code

    def _node(self, node, streams):
        if self.process.ended:
            raise TerminatedError
        if isinstance(node, Simple):
            return self._simple(node, streams)
        if isinstance(node, Group):
            with _Redirected(self, node.redirections, streams) as inner:
                return 1 if inner is None else self._node(node.body, inner)
        if isinstance(node, If):
            if self._test(node.test) != node.negated:
                return self._node(node.yes, streams)
            return 0 if node.no is None else self._node(node.no, streams)
        return self._binary(node, streams)

    def _binary(self, node, streams):
        # The left spine is as deep as the line has operators: walk it without recursion.
        spine = []
        left = node
        while isinstance(left, Binary) and left.operator != "|":
            spine.append(left)
            left = left.left
        code = self._pipe(left, streams) if isinstance(left, Binary) else self._node(left, streams)
        for part in reversed(spine):
            wanted = {"&": True, "&&": code == 0, "||": code != 0}[part.operator]
            if wanted:
                code = self._node(part.right, streams)
        return code

    def _pipe(self, node, streams):
        """Run both sides at once, each in a child session as cmd.exe does."""
        pipe = Queue(PIPE_LIMIT)
        self.process.on_end(pipe.abort)
        left = Interpreter(self.system, self.session.copy(), self.process, *streams.values())
        right = Interpreter(self.system, self.session.copy(), self.process, *streams.values())

        def feed():
            try:
                left._node(node.left, {**streams, 1: pipe})
            except (ExitShellError, TerminatedError):
                pass
            finally:
                pipe.close()

        writer = threading.Thread(target=feed, daemon=True)
        writer.start()
        try:
            code = right._node(node.right, {**streams, 0: pipe})
        except ExitShellError as leave:
            code = leave.code
        finally:
            # The reader may leave early: let the writer run into a pipe that swallows.
            pipe.abort() if not pipe.ended else None
            writer.join()
            self.process.forget(pipe.abort)
        self.session.errorlevel = right.session.errorlevel
        return code

    def _test(self, test):
        kind = test[0]
        if kind == "exist":
            return builtins.exists(self, test[1])
        if kind == "defined":
            return self.session.variable(test[1]) is not None
        if kind == "errorlevel":
            try:
                return self.session.errorlevel >= int(test[1])
            except ValueError:
                return False
        _, operator, left, right, ignore_case = test
        if ignore_case:
            left, right = left.lower(), right.lower()
        if operator == "==":
            return left == right
        with suppress(ValueError):
            left, right = int(left, 0), int(right, 0)
        return {
            "equ": left == right,
            "neq": left != right,
            "lss": left < right,
            "leq": left <= right,
            "gtr": left > right,
            "geq": left >= right,
        }[operator]

    def _simple(self, node, streams):
        with _Redirected(self, node.redirections, streams) as inner:
            if inner is None:
                self.session.errorlevel = 1
                return 1
            return self._command(node.text, inner)

    def _command(self, text, streams):
        text = text.lstrip(" \t,;=")
        if not text.strip():
            return 0
        name, rest = split_name(text)
        if len(name) == 2 and name[1] == ":" and not rest.strip():
            return builtins.change_drive(self, name[0].upper(), streams)
        builtin, line = builtins.find(name, rest)
        if builtin is not None:
            ctx = Context(self.system, self.session, self.process, name, line, *_standard(streams))
            return self._guard(ctx, lambda: builtin(self, ctx))
        return self.program(unquote(name), rest, streams)

    def program(self, name, line, streams):
        """Run a program by name.

        Args:
            name: as typed, without quotes; may have a path.
            line: the raw argument text.
            streams: handles 0 to 2.

        Returns:
            Its exit code; ``NOT_FOUND`` if there is none.
        """
        run = self.find_program(name)
        batch = self._batch_file(name) if run is None else None
        if batch is not None:
            return self._batch(batch, streams)
        if run is None:
            streams[2].write(
                encode(
                    f"'{name}' is not recognized as an internal or external command,\n"
                    "operable program or batch file.\n"
                )
            )
            self.session.errorlevel = NOT_FOUND
            return NOT_FOUND
        base = name.replace("/", "\\").rsplit("\\", 1)[-1].lower().rsplit(".", 1)[0]
        process = self.system.processes.start(tools.image_name(base))
        end = process.end
        self.process.on_end(end)
        stdin = streams[0]
        if isinstance(stdin, Queue):
            process.on_end(stdin.abort)
        ctx = Context(self.system, self.session, process, base, line, *_standard(streams))
        try:
            code = self._guard(ctx, lambda: run(ctx))
        except TerminatedError:
            if self.process.ended:
                raise
            code = process.exit_code  # only this program was ended, by taskkill
        finally:
            self.process.forget(end)
            process.exited()
        self.session.errorlevel = code
        return code

    def _batch_file(self, name):
        """The Windows path of the batch file that ``name`` means, or ``None``."""
        has_end = name.lower().endswith(BATCH)
        for end in ("",) if has_end else BATCH:
            if builtins.exists(self, name + end):
                return name + end
        return None

    def _batch(self, path, streams):
        """Run a batch file: its lines one after the other, without echo, labels or ``%1``."""
        if self.system.quirks.skips_batch_files(self.session.code_page):
            self.session.errorlevel = 0
            return 0
        real = self.system.files.real(path, self.session.cwd)
        with open(real, encoding="cp437", newline="") as file:
            lines = file.read().splitlines()
        code = 0
        for line in lines:
            line = line.strip().lstrip("@")
            if not line or line.startswith("::") or line.lower().split()[0] == "rem":
                continue
            try:
                node = parse(expand(line, self.session.variable))
                code = 0 if node is None else self._node(node, streams)
            except CmdSyntaxError as error:
                streams[2].write(encode(f"{error}\n"))
                return 1
            except ExitShellError as leave:
                return leave.code
        return code

    def find_program(self, name):
        """The ``run`` of the tool that ``name`` means, or ``None``."""
        folder, _, base = name.replace("/", "\\").rpartition("\\")
        elsewhere = folder and folder.lower() not in ("c:\\windows\\system32", "c:\\windows")
        if elsewhere and not any(builtins.exists(self, name + end) for end in ("", ".exe")):
            return None
        return tools.find(base)

    def _guard(self, ctx, action):
        """Turn errors of the system and of the stand-in itself into a failed command."""
        try:
            return action()
        except OSError as error:
            ctx.err(win32_text(error) + "\n")
            code = 1
        except (ExitShellError, TerminatedError):
            raise
        except Exception as error:  # a bug must not take the server down
            traceback.print_exc()
            ctx.err(f"{ctx.name}: internal error of the stand-in: {error!r}\n")
            code = 255
        self.session.errorlevel = code
        return code


def split_name(text):
    """Split a command's text into its name and the raw rest."""
    quoted = False
    for index, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif not quoted and (char in " \t,;=" or (char == "/" and index)):
            return text[:index], text[index:]
    return text, ""


def _standard(streams):
    return streams[0], streams[1], streams[2]


class _Redirected:
    """The streams with redirections applied, closed again at the end; ``None`` on failure."""

    def __init__(self, interpreter, redirections, streams):
        self._interpreter = interpreter
        self._redirections = redirections
        self._streams = streams
        self._opened = []

    def __enter__(self):
        streams = dict(self._streams)
        session = self._interpreter.session
        files = self._interpreter.system.files
        for item in self._redirections:
            if item.kind == "&":
                if item.target not in streams:
                    return self._fail("The handle could not be duplicated.")
                streams[item.handle] = streams[item.target]
                continue
            try:
                if is_device(item.target):
                    stream = Null()
                elif item.kind == "<":
                    stream = FileInput(files.real(item.target, session.cwd))
                else:
                    path = files.real(item.target, session.cwd)
                    stream = FileOutput(path, item.kind == ">>")
            except OSError as error:
                return self._fail(_redirection_text(error, item.kind))
            self._opened.append(stream)
            streams[item.handle] = stream
        return streams

    def _fail(self, text):
        self._streams[2].write(encode(text + "\n"))
        return None

    def __exit__(self, *_exc):
        for stream in self._opened:
            stream.close()


def _redirection_text(error, kind):
    """A missing folder is a missing path when writing, a missing file when reading."""
    import errno

    if error.errno == errno.ENOENT and kind != "<":
        return "The system cannot find the path specified."
    return win32_text(error)
