"""Files to and from the guest, over the command channel alone.

WinRM moves no files, so their content travels as base64 text through ``certutil``, the one
decoder that every Windows from Server 2003 on carries. Every transfer is checked by SHA-1
(``certutil -hashfile`` where the guest has it, else by reading back).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path

from lab.core.command import CommandResult
from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.core.journal import noun
from lab.guest.channel import Channel
from lab.guest.errors import GuestFileMissing
from lab.guest.names import WORK_DIR, checked_path, parent

_PEM = re.compile(r"-----BEGIN [A-Z ]+-----(.*?)-----END [A-Z ]+-----", re.DOTALL)
# Older certutils print the digest as pairs separated by spaces.
_SHA1 = re.compile(r"^\s*((?:[0-9a-fA-F]{2} ?){20})\s*$", re.MULTILINE)
# certutil cannot map an empty file: ERROR_FILE_INVALID (Microsoft, "System Error Codes").
_EMPTY_FILE = "0x800703ee"
_NOT_THERE = ("0x80070002", "0x80070003", "cannot find the file", "cannot find the path")


@noun
class Files:
    """The guest's file system.

    Args:
        channel: the guest's command line.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._folders: set[str] = set()
        self._hashes = True

    def put(self, local: Path, remote: str, deadline: Deadline) -> str:
        """Copy a file into the guest, replacing what is there; its folder is created.

        Args:
            local: file on this machine.
            remote: absolute guest path.
            deadline: when to give up.

        Returns:
            The content's SHA-1, lower-case hexadecimal.

        Raises:
            UsageError: the local file cannot be read, or the guest path is not a safe one.
            LabBroken: the guest could not write it, or holds other content afterwards.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        checked_path(remote)
        try:
            data = local.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read {local}: {error.strerror}") from error
        return self.put_bytes(data, remote, deadline)

    def put_bytes(self, data: bytes, remote: str, deadline: Deadline) -> str:
        """Like ``put``, from memory."""
        checked_path(remote)
        if not data:
            return self._put_empty(remote, deadline)
        scratch = self._scratch()
        # findstr copies standard input line by line; its lines end at 8191 characters, so
        # the base64 text is broken into short ones.
        line = (
            f'{self._make_folder(remote)}findstr "^" > {scratch} && '
            f'certutil -decode -f {scratch} "{remote}" && del {scratch}'
        )
        if self._hashes:
            line += f' && certutil -hashfile "{remote}" SHA1'
        text = base64.encodebytes(data).replace(b"\n", b"\r\n")
        result = self._channel.run(line, deadline, stdin=text)
        expected = _sha1(data)
        found = _SHA1.search(result.stdout) if self._hashes else None
        if found is None:
            # No digest: either writing failed, or this certutil cannot hash. Reading the
            # file back tells which.
            try:
                actual = _sha1(self._read_back(remote, deadline)[0])
            except GuestFileMissing as error:
                raise LabBroken(
                    f"{result.where}: could not write {remote}: {_reason(result)}"
                ) from error
            self._hashes = False
        else:
            actual = _digest(found)
        if actual != expected:
            raise LabBroken(
                f"{result.where}: {remote} arrived damaged: SHA-1 {actual}, sent {expected}"
            )
        self._folders.add(parent(remote).lower())
        return expected

    def put_many(self, files: Mapping[str, Path], deadline: Deadline) -> None:
        """Copy several files: guest path to local file. Raises like ``put``."""
        for remote, local in files.items():
            self.put(local, remote, deadline)

    def get(self, remote: str, local: Path, deadline: Deadline) -> str:
        """Copy a file out of the guest; the local one is replaced only when all is well.

        Not for a file that is being written to: use ``read_text`` there.

        Returns:
            The content's SHA-1, lower-case hexadecimal.

        Raises:
            GuestFileMissing: the guest has no such file.
            UsageError: the local file cannot be written, or the guest path is not safe.
            LabBroken: what arrived is not what the guest holds.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        data = self.get_bytes(remote, deadline)
        part = local.with_name(local.name + ".part")
        try:
            part.write_bytes(data)
            part.replace(local)
        except OSError as error:
            raise UsageError(f"cannot write {local}: {error.strerror}") from error
        return _sha1(data)

    def get_bytes(self, remote: str, deadline: Deadline) -> bytes:
        """Like ``get``, into memory."""
        data, guest_hash = self._read_back(checked_path(remote), deadline)
        if guest_hash is None and data:
            again, _ = self._read_back(remote, deadline)
            guest_hash = _sha1(again)
        if guest_hash is not None and guest_hash != _sha1(data):
            raise LabBroken(
                f"{self._channel.name}: {remote} came out damaged: SHA-1 {_sha1(data)}, "
                f"the guest has {guest_hash}"
            )
        return data

    def read_text(self, remote: str, deadline: Deadline) -> str:
        """The text of a file, which may be growing, as ``type`` shows it (code page 437).

        Raises:
            GuestFileMissing: the guest has no such file.
            LabBroken: it cannot be read.
            GuestSilent, DeadlineExpired: as ``Channel.run``.
        """
        result = self._channel.run(f'type "{checked_path(remote)}"', deadline)
        if not result.ok:
            raise _read_failure(remote, result)
        return result.stdout

    def remove(self, remote: str, deadline: Deadline) -> None:
        """Delete a file, if it is there. Raises like ``Channel.run``."""
        self._channel.run(f'del /f /q "{checked_path(remote)}" 2>nul', deadline)

    def _put_empty(self, remote: str, deadline: Deadline) -> str:
        """certutil handles no empty files, and an empty one needs no encoding."""
        result = self._channel.run(
            f'{self._make_folder(remote)}copy /y nul "{remote}" >nul && type "{remote}"', deadline
        )
        if not result.ok or result.stdout:
            raise LabBroken(f"{result.where}: could not write {remote}: {_reason(result)}")
        self._folders.add(parent(remote).lower())
        return _sha1(b"")

    def _read_back(self, remote: str, deadline: Deadline) -> tuple[bytes, str | None]:
        """Content and the guest's own digest of it, where it can compute one."""
        scratch = self._scratch()
        line = f'certutil -encode -f "{remote}" {scratch} && type {scratch} && del {scratch}'
        if self._hashes:
            line += f' && certutil -hashfile "{remote}" SHA1'
        result = self._channel.run(line, deadline)
        pem = _PEM.search(result.stdout)
        if pem is None:
            if _EMPTY_FILE in (result.stdout + result.stderr).lower():
                return b"", None
            raise _read_failure(remote, result)
        try:
            data = base64.b64decode("".join(pem[1].split()), validate=True)
        except binascii.Error as error:
            raise LabBroken(
                f"{result.where}: {remote} came out damaged: the text is not base64"
            ) from error
        found = _SHA1.search(result.stdout, pem.end())
        return data, _digest(found) if found else None

    def _make_folder(self, remote: str) -> str:
        """The start of a command line that creates the folders needed and not yet known."""
        wanted = [
            folder
            for folder in dict.fromkeys((WORK_DIR, parent(remote)))
            if folder.lower() not in self._folders and not folder.endswith(":")
        ]
        # md complains about a folder that exists; a real failure shows in what follows.
        return "".join(f'md "{folder}" 2>nul & ' for folder in wanted)

    def _scratch(self) -> str:
        return rf"{WORK_DIR}\transfer-{next(self._numbers)}.b64"


def _sha1(data: bytes) -> str:
    # The strongest digest that every certutil with -hashfile knows; it guards against
    # accidents, not attackers.
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


def _digest(match: re.Match[str]) -> str:
    return match[1].replace(" ", "").lower()


def _reason(result: CommandResult) -> str:
    """The line of a failed command that says why."""
    lines = [line.strip() for line in (result.stderr + result.stdout).splitlines() if line.strip()]
    telling = [line for line in lines if "failed" in line.lower() or "denied" in line.lower()]
    return (telling or lines or [f"exit code {result.exit_code}"])[0]


def _read_failure(remote: str, result: CommandResult) -> LabBroken:
    said = (result.stdout + result.stderr).lower()
    if any(sign in said for sign in _NOT_THERE):
        return GuestFileMissing(f"{result.where}: no such file: {remote}")
    return LabBroken(f"{result.where}: could not read {remote}: {_reason(result)}")
