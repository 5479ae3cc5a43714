"""From stack words to frames, and from frames to the driver to look at. No symbols needed."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lab.crash.bugchecks import code_addresses
from lab.crash.draft import module_name
from lab.crash.facts import Frame, Module

MAX_FRAMES = 64
MAX_STACK = 64 << 10
"""Most bytes of a stack that are looked at: kernel stacks have 12 KiB, 60 KiB for GUI threads."""

#: The kernel under the names of its four builds and the one in its own export table, and the
#: hardware abstraction layer: what fails there was usually asked for by a driver.
KERNEL = frozenset(
    ["nt", "hal.dll", "hal"]
    + [f"{name}.exe" for name in ("ntoskrnl", "ntkrnlpa", "ntkrnlmp", "ntkrpamp")]
)

#: Libraries in which other drivers' mistakes come to light.
LIBRARIES = frozenset(
    ["wdf01000", "wdfldr.sys", "wdfldr", "scsiport", "storport", "classpnp", "ndis", "verifier.dll"]
)


class ModuleMap:
    """Which module an address lies in.

    Args:
        modules: loaded and unloaded ones; a loaded one wins where they overlap.
    """

    def __init__(self, modules: Iterable[Module]) -> None:
        every = sorted(modules, key=lambda one: one.start)
        self._loaded = [one for one in every if not one.unloaded and one.end > one.start]
        self._unloaded = [one for one in every if one.unloaded and one.end > one.start]
        self._starts = [one.start for one in self._loaded]

    def find(self, address: int, *, unloaded: bool = False) -> Module | None:
        """The module that holds an address, or None.

        Args:
            address: virtual.
            unloaded: whether to look among those that are gone, too.
        """
        at = bisect_right(self._starts, address) - 1
        if at >= 0 and self._loaded[at].holds(address):
            return self._loaded[at]
        if unloaded:
            return next((one for one in self._unloaded if one.holds(address)), None)
        return None

    def frame(self, address: int, *, unloaded: bool = False) -> Frame:
        """An address as a frame: module and offset where it lies in one."""
        module = self.find(address, unloaded=unloaded)
        if module is None:
            return Frame(address=address)
        return Frame(module_name(module.name), None, address - module.start, address)


@dataclass(frozen=True, slots=True)
class Walk:
    """What a stack says.

    Attributes:
        frames: innermost first; the first is where the processor was.
        linked: how many of them frame pointers vouch for, the first included.
    """

    frames: tuple[Frame, ...]
    linked: int

    def note(self) -> str | None:
        """How far the frames can be trusted, in words; None if fully."""
        rest = len(self.frames) - self.linked
        if not rest:
            return None
        return (
            f"{rest} of {len(self.frames)} frames are stack words that lie in modules: "
            "some may be left over from earlier calls"
        )


def walk(
    registers: Mapping[str, int],
    stack: bytes,
    base: int,
    modules: ModuleMap,
    code_before: Callable[[int], bytes] | None = None,
) -> Walk:
    """Frames of a stack.

    First the chain of frame pointers, as long as it holds; kernels and drivers of Windows XP
    SP2 and later are built with them, and trap frames continue the chain. Behind its end,
    every word that lies in a module.

    Args:
        registers: ``eip``, ``esp`` and ``ebp``; may be empty.
        stack: contents, at most ``MAX_STACK`` are looked at.
        base: address of its first byte.
        modules: that code may lie in.
        code_before: returns up to 7 bytes of code before an address, fewer or none if
            unknown; words that no call instruction precedes are then left out.
    """
    stack = stack[:MAX_STACK]
    frames: list[Frame] = []
    if eip := registers.get("eip"):
        frames.append(modules.frame(eip, unloaded=True))

    def word(address: int) -> int | None:
        at = address - base
        if not 0 <= at <= len(stack) - 4:
            return None
        value: int = struct.unpack_from("<I", stack, at)[0]
        return value

    # Words below the stack pointer belong to calls that have returned.
    behind = max(base, registers.get("esp", base) & ~3)
    pointer = registers.get("ebp", 0)
    while pointer % 4 == 0 and pointer >= behind and len(frames) < MAX_FRAMES:
        returns = word(pointer + 4)
        if returns is None or modules.find(returns) is None:
            break
        frames.append(modules.frame(returns))
        behind = pointer + 8
        # A chain that does not lead up the stack is none.
        pointer = word(pointer) or 0
    linked = len(frames)
    for (value,) in struct.iter_unpack("<I", _aligned(stack, behind - base)):
        if len(frames) >= MAX_FRAMES:
            break
        if modules.find(value) and (code_before is None or _after_call(code_before(value))):
            frames.append(modules.frame(value))
    return Walk(tuple(frames), linked)


def _aligned(stack: bytes, start: int) -> bytes:
    rest = stack[max(start, 0) :]
    return rest[: len(rest) & ~3]


def _after_call(code: bytes) -> bool:
    """Whether code ends with a call instruction, or is unknown.

    Source: Intel SDM volume 2A, CALL: E8 rel32 and FF /2, and table 2-2 for the lengths.
    """
    if not code:
        return True
    if code[-5:-4] == b"\xe8":
        return True
    for length in range(2, 8):
        if code[-length : len(code) - length + 1] != b"\xff" or len(code) < length:
            continue
        form = code[-length + 1]
        if (form >> 3) & 7 != 2:
            continue
        mode, base = form >> 6, form & 7
        extra = 0 if mode == 3 else (base == 4) + (0, 1, 4)[mode] + 4 * (mode == 0 and base == 5)
        if length == 2 + extra:
            return True
    return False


@dataclass(frozen=True, slots=True)
class Blame:
    """The driver to look at first.

    Attributes:
        module: as facts name it.
        why: in words, for a note.
    """

    module: str
    why: str


def blame(
    code: int | None,
    parameters: Sequence[int],
    modules: ModuleMap,
    frames: Sequence[Frame],
) -> Blame | None:
    """The driver that an account points at, or None.

    The code address among the parameters counts most, unless it lies in the kernel: then the
    innermost driver on the stack, libraries of drivers last.

    Args:
        code: of the bugcheck.
        parameters: of the bugcheck.
        modules: loaded and unloaded ones.
        frames: innermost first.
    """
    found: list[tuple[int, Blame]] = []
    for number, address in code_addresses(code, parameters) if code is not None else ():
        holder = modules.find(address, unloaded=True)
        if holder is not None:
            name = module_name(holder.name)
            gone = ", which was unloaded" if holder.unloaded else ""
            why = f"parameter {number} lies in {name}+0x{address - holder.start:x}{gone}"
            found.append((_distance(name), Blame(name, why)))
    for frame in frames:
        if frame.module is not None:
            why = f"the innermost driver on the stack is {frame.text()}"
            found.append((_distance(frame.module), Blame(frame.module, why)))
    # Stable: among equals the parameters, then the innermost.
    return min(found, key=lambda one: one[0])[1] if found else None


def _distance(module: str) -> int:
    if module in KERNEL:
        return 2
    return 1 if module in LIBRARIES else 0
