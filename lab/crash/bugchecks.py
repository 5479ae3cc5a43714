"""What the stop codes of Windows 2000 to Server 2008 mean, as far as drivers cause them.

Source of every name and meaning: Microsoft Learn, Windows drivers, Debugger, "Bug check code
reference", the page of each code (``bug-check-0x<code>--<name>``), in this project's words.
Codes and parameters that the pages document only for later systems are left out. The one code
that is not Microsoft's is marked so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.crash.facts import MINIDUMP_FLAG, plain_code

_IRQL = "IRQL at that time"
_READ_WRITE = "what was done: 0 read, 1 write, 8 execute"
_READ_WRITE_2 = "what was done: 0 read, 1 write"
_NTSTATUS = "exception code (NTSTATUS)"
_RECORD = "address of the exception record"
_CONTEXT = "address of the context record"
_RESERVED = "reserved"
_NONE = "not used"

#: Values with a name, by what kind of value a parameter is.
_IRQLS = {
    0: "PASSIVE_LEVEL",
    1: "APC_LEVEL",
    2: "DISPATCH_LEVEL",
    0x1B: "PROFILE_LEVEL",
    0x1C: "CLOCK2_LEVEL",
    0x1D: "IPI_LEVEL",
    0x1E: "POWER_LEVEL",
    0x1F: "HIGH_LEVEL",
}
_ACCESS = {0: "read", 1: "write", 8: "execute"}
# Microsoft, [MS-ERREF] section 2.3.1 "NTSTATUS Values".
_STATUS = {
    0x80000003: "STATUS_BREAKPOINT",
    0xC0000005: "STATUS_ACCESS_VIOLATION",
    0xC0000006: "STATUS_IN_PAGE_ERROR",
    0xC000000E: "STATUS_NO_SUCH_DEVICE",
    0xC000001D: "STATUS_ILLEGAL_INSTRUCTION",
    0xC0000034: "STATUS_OBJECT_NAME_NOT_FOUND",
    0xC000009A: "STATUS_INSUFFICIENT_RESOURCES",
    0xC000009C: "STATUS_DEVICE_DATA_ERROR",
    0xC000009D: "STATUS_DEVICE_NOT_CONNECTED",
    0xC0000094: "STATUS_INTEGER_DIVIDE_BY_ZERO",
    0xC0000096: "STATUS_PRIVILEGED_INSTRUCTION",
    0xC000014F: "STATUS_UNRECOGNIZED_VOLUME",
    0xC000016A: "STATUS_DISK_OPERATION_FAILED",
    0xC0000185: "STATUS_IO_DEVICE_ERROR",
    0xC00000FD: "STATUS_STACK_OVERFLOW",
    0xC000021A: "STATUS_SYSTEM_PROCESS_TERMINATED",
    0xC0000420: "STATUS_ASSERTION_FAILURE",
}
# Intel SDM volume 3, chapter 6, table 6-1: exceptions and interrupts.
_TRAPS = {
    0x00: "divide error",
    0x01: "debug exception",
    0x02: "non-maskable interrupt",
    0x04: "overflow",
    0x05: "bounds check",
    0x06: "invalid opcode",
    0x07: "no coprocessor",
    0x08: "double fault, often a kernel stack overflow",
    0x0A: "invalid TSS",
    0x0B: "segment not present",
    0x0C: "stack fault",
    0x0D: "general protection fault",
    0x0E: "page fault",
    0x10: "floating-point error",
    0x11: "alignment check",
    0x12: "machine check",
}


@dataclass(frozen=True, slots=True)
class Variant:
    """What a code means for one value of its first parameter.

    Attributes:
        meaning: what happened.
        parameters: meanings of parameters 2 to 4.
    """

    meaning: str
    parameters: tuple[str, str, str] = (_RESERVED, _RESERVED, _RESERVED)


@dataclass(frozen=True, slots=True)
class Bugcheck:
    """One stop code.

    Attributes:
        code: without the flag of minidumps.
        name: Microsoft's constant.
        meaning: what happened, one sentence.
        parameters: meanings of the four parameters.
        code_at: numbers (1 to 4) of the parameters that hold an address of the code at fault,
            the most telling first. They may be zero, or lie in the kernel.
        variants: other meanings, by the value of parameter 1.
        values: names of values, by the number of the parameter.
    """

    code: int
    name: str
    meaning: str
    parameters: tuple[str, str, str, str] = (_NONE, _NONE, _NONE, _NONE)
    code_at: tuple[int, ...] = ()
    variants: Mapping[int, Variant] = field(default_factory=dict)
    values: Mapping[int, Mapping[int, str]] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the meaning is documented."""
        if self.code == FORCED_BY_SYSRQ:
            return "GPLPV: later xenpci drivers, on `xm sysrq DOM B`"
        page = self.name.lower().replace("_", "-")
        return f"Microsoft Learn, bug check code reference, bug-check-0x{self.code:x}--{page}"


#: Not Microsoft's: later GPLPV drivers stop with it on purpose, parameters (1, 0, 0, 0).
FORCED_BY_SYSRQ = 0x58454E

_TABLE = (
    Bugcheck(
        0x01,
        "APC_INDEX_MISMATCH",
        "A driver disabled asynchronous calls more or less often than it enabled them again.",
        (
            "address of the system call or worker routine",
            "Thread->ApcStateIndex",
            "counts of disabled special and normal APCs",
            "0 after a system call, 1 after a worker routine",
        ),
        code_at=(1,),
    ),
    Bugcheck(
        0x0A,
        "IRQL_NOT_LESS_OR_EQUAL",
        "The kernel or a driver touched paged or invalid memory at too high an IRQL.",
        ("memory that was touched", _IRQL, _READ_WRITE, "address of the code that touched it"),
        code_at=(4,),
        values={2: _IRQLS, 3: _ACCESS},
    ),
    Bugcheck(
        0x18,
        "REFERENCE_BY_POINTER",
        "The reference count of an object is wrong: released once too often, or used when gone.",
        ("type of the object", "the object", _RESERVED, _RESERVED),
    ),
    Bugcheck(
        0x19,
        "BAD_POOL_HEADER",
        "The header of a piece of pool is damaged.",
        ("kind of damage", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x2: Variant("The special pool pattern is damaged.", ("pool entry", "its size", "0")),
            0x3: Variant(
                "The free list is damaged; in a healthy one 2 to 4 are equal.",
                ("pool entry", "flink read back", "blink read back"),
            ),
            0x5: Variant(
                "Two neighbouring headers contradict each other.",
                ("one pool entry", _RESERVED, "the other pool entry"),
            ),
            0x6: Variant("The previous size is too large.", ("one entry", _RESERVED, "bad entry")),
            0x7: Variant("The size is damaged.", ("0", _RESERVED, "bad entry")),
            0x8: Variant("The size is zero.", ("0", _RESERVED, "bad entry")),
            0x9: Variant("The size is too large.", ("one entry", _RESERVED, "bad entry")),
            0xA: Variant(
                "The size is damaged.",
                ("entry that should have been found", _RESERVED, "page it should be in"),
            ),
            0x20: Variant(
                "The size is damaged.",
                ("entry that should have been found", "next pool entry", _RESERVED),
            ),
            0x21: Variant(
                "Data behind the block being freed is damaged.",
                ("address that was freed", "bytes allocated", "value found behind it"),
            ),
        },
    ),
    Bugcheck(
        0x1A,
        "MEMORY_MANAGEMENT",
        "The memory manager found its data in disorder.",
        ("kind of disorder", "depends on 1", "depends on 1", "depends on 1"),
    ),
    Bugcheck(
        0x1E,
        "KMODE_EXCEPTION_NOT_HANDLED",
        "A kernel-mode program raised an exception that nobody handled.",
        (
            _NTSTATUS,
            "address of the code that raised it",
            "first parameter of the exception",
            "second parameter of the exception",
        ),
        code_at=(2,),
        values={1: _STATUS},
    ),
    Bugcheck(
        0x23,
        "FAT_FILE_SYSTEM",
        "The FAT file system met something it cannot go on with.",
        ("source file (high 16 bits) and line", _RECORD, _CONTEXT, "address of the exception"),
        code_at=(4,),
    ),
    Bugcheck(
        0x24,
        "NTFS_FILE_SYSTEM",
        "The NTFS file system met something it cannot go on with; a disk that lies is one cause.",
        ("source file (high 16 bits) and line", _RECORD, _CONTEXT, "address of the exception"),
        code_at=(4,),
    ),
    Bugcheck(
        0x2E,
        "DATA_BUS_ERROR",
        "Memory parity error, or an access to a physical address that is not there.",
        ("virtual address", "physical address", "processor status", "faulting instruction"),
        code_at=(4,),
    ),
    Bugcheck(
        0x35,
        "NO_MORE_IRP_STACK_LOCATIONS",
        "A request was passed down further than it has stack locations.",
        ("address of the IRP", _RESERVED, _RESERVED, _RESERVED),
    ),
    Bugcheck(
        0x3F,
        "NO_MORE_SYSTEM_PTES",
        "The entries that map system memory are used up; a driver may leak them.",
        ("0 system, 1 nonpaged pool expansion", "requested", "free", "total"),
    ),
    Bugcheck(
        0x44,
        "MULTIPLE_IRP_COMPLETE_REQUESTS",
        "A driver completed a request that was complete already.",
        ("address of the IRP", _RESERVED, _RESERVED, _RESERVED),
    ),
    Bugcheck(
        0x4E,
        "PFN_LIST_CORRUPT",
        "The list of page frames is damaged: often a driver unlocked or freed pages twice.",
        ("kind of damage", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x01: Variant("A list head is damaged.", ("list head", "pages available", "0")),
            0x02: Variant(
                "A list entry is damaged.",
                ("entry being removed", "highest page number", "its reference count"),
            ),
            0x07: Variant(
                "A driver unlocked a page more often than it locked it.",
                ("page frame number", "share count", "0"),
            ),
            0x8D: Variant(
                "The list of free pages is damaged; often hardware.",
                ("page frame number", "0", "0"),
            ),
            0x8F: Variant(
                "The head of the free or zeroed pages is damaged.",
                ("new page number", "old page number", "0"),
            ),
            0x99: Variant(
                "A page table entry or page frame is damaged.",
                ("page frame number", "page state", "0"),
            ),
            0x9A: Variant(
                "A driver freed a page that is still locked for I/O.",
                ("page frame number", "page state", "its reference count"),
            ),
        },
    ),
    Bugcheck(
        0x50,
        "PAGE_FAULT_IN_NONPAGED_AREA",
        "Memory that must always be there was touched and is not there.",
        ("memory that was touched", _READ_WRITE_2, "address of the code, if known", _RESERVED),
        code_at=(3,),
        values={2: _ACCESS},
    ),
    Bugcheck(
        0x51,
        "REGISTRY_ERROR",
        "The registry is damaged or could not be read.",
        (_RESERVED, _RESERVED, "hive", _RESERVED),
    ),
    Bugcheck(0x5C, "HAL_INITIALIZATION_FAILED", "The hardware abstraction layer could not start."),
    Bugcheck(
        0x6B,
        "PROCESS1_INITIALIZATION_FAILED",
        "The first process could not start; files of the boot disk could not be read.",
        (_NTSTATUS, "where in the initialisation", _RESERVED, _RESERVED),
        values={1: _STATUS},
    ),
    Bugcheck(
        0x74,
        "BAD_SYSTEM_CONFIG_INFO",
        "The system part of the registry is damaged.",
        (_RESERVED, _RESERVED, _RESERVED, "NTSTATUS, if any"),
        values={4: _STATUS},
    ),
    Bugcheck(
        0x76,
        "PROCESS_HAS_LOCKED_PAGES",
        "A driver did not unlock pages after an I/O, or unlocked pages that are not locked.",
        ("kind", "depends on 1", "number of locked pages", "driver stacks, or 0"),
        variants={
            0x0: Variant(
                "A process that ends still has locked pages.",
                ("the process", "number of locked pages", "driver stacks, or 0"),
            ),
            0x1: Variant(
                "A driver unlocks pages that are not locked.",
                ("its MDL", "number of locked pages of the process", "driver stacks, or 0"),
            ),
        },
    ),
    Bugcheck(
        0x77,
        "KERNEL_STACK_INPAGE_ERROR",
        "A page of a kernel stack could not be read back from the page file.",
        (
            "0, 1, 2, or NTSTATUS of the read",
            "depends on 1: I/O status",
            "depends on 1: page file number",
            "depends on 1: offset in the page file",
        ),
        values={1: _STATUS},
    ),
    Bugcheck(
        0x7A,
        "KERNEL_DATA_INPAGE_ERROR",
        "A page of kernel data could not be read back from disk: the disk, or its driver.",
        (
            "lock type (1, 2, 3) or address of the page table entry",
            "NTSTATUS of the read",
            "depends on 1: process, or contents of the entry",
            "memory that could not be read in",
        ),
        values={2: _STATUS},
    ),
    Bugcheck(
        0x7B,
        "INACCESSIBLE_BOOT_DEVICE",
        "Windows lost the boot disk while it started: no driver for it, or the driver hides it.",
        (
            "name of the device (UNICODE_STRING), or its device object",
            "depends on 1; 0 for a name",
            "depends on 1; 0 for a name",
            "depends on 1; 0 for a name",
        ),
    ),
    Bugcheck(
        0x7E,
        "SYSTEM_THREAD_EXCEPTION_NOT_HANDLED",
        "A system thread raised an exception that nobody handled.",
        (_NTSTATUS, "address of the code that raised it", _RECORD, _CONTEXT),
        code_at=(2,),
        values={1: _STATUS},
    ),
    Bugcheck(
        0x7F,
        "UNEXPECTED_KERNEL_MODE_TRAP",
        "The processor raised a trap that the kernel may not have or cannot handle.",
        (
            "number of the trap",
            "for a double fault: address of the task state segment",
            _RESERVED,
            _RESERVED,
        ),
        values={1: _TRAPS},
    ),
    Bugcheck(
        0x80,
        "NMI_HARDWARE_FAILURE",
        "A non-maskable interrupt arrived: hardware, or someone outside who sent it.",
        (_RESERVED, _RESERVED, _RESERVED, _RESERVED),
    ),
    Bugcheck(
        0x8E,
        "KERNEL_MODE_EXCEPTION_NOT_HANDLED",
        "A kernel-mode program raised an exception that nobody handled.",
        (_NTSTATUS, "address of the code that raised it", "address of the trap frame", _RESERVED),
        code_at=(2,),
        values={1: _STATUS},
    ),
    Bugcheck(
        0x96,
        "INVALID_WORK_QUEUE_ITEM",
        "A work item was damaged, or was queued when it was queued already.",
        (
            "queue entry with a null link",
            "address of the queue",
            "base of the thread array",
            "worker routine, if known",
        ),
        code_at=(4,),
    ),
    Bugcheck(
        0x9C,
        "MACHINE_CHECK_EXCEPTION",
        "The processor reported a machine check.",
        (
            "low part, or bank number",
            "address of the machine check record",
            "high part of the bank's status",
            "low part of the bank's status",
        ),
    ),
    Bugcheck(
        0x9F,
        "DRIVER_POWER_STATE_FAILURE",
        "A driver mishandled a change of the power state.",
        ("kind of failure", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x1: Variant(
                "A device object is being freed with a power request still under way.",
                ("device object", _RESERVED, _RESERVED),
            ),
            0x2: Variant(
                "A system power request was completed without PoStartNextPowerIrp.",
                ("device object of the target", "device object", "driver object"),
            ),
            0x3: Variant(
                "A device object has held a power request for too long.",
                (
                    "physical device object of the stack",
                    "functional device object, or triage block",
                    "the request (IRP)",
                ),
            ),
            0x4: Variant(
                "Waiting for Plug and Play during a power change took too long.",
                ("timeout in seconds", "thread that holds the lock", "triage block"),
            ),
            0x500: Variant(
                "A system power request was completed without PoStartNextPowerIrp.",
                (_RESERVED, "device object of the target", "device object"),
            ),
        },
    ),
    Bugcheck(
        0xA0,
        "INTERNAL_POWER_ERROR",
        "The power policy manager met an error it cannot go on with.",
        ("kind of error", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x1: Variant(
                "A power request was handled wrongly.",
                (
                    "1 too many references, 2 to 4 too many pending requests, 5 sent to a "
                    "passive-level device, 6 no memory for it",
                    "the maximum allowed; for 6 the target device object",
                    "for 6: 0 system, 1 device request",
                ),
            ),
            0x2: Variant("An internal failure while a power event was handled."),
            0x3: Variant(
                "A page of the hibernation context has a wrong checksum.",
                ("expected checksum", "actual checksum", "line number"),
            ),
            0x4: Variant(
                "A page about to be written for hibernation has a wrong checksum.",
                ("expected checksum", "actual checksum", "line number"),
            ),
            0x5: Variant("An unknown shutdown code was sent."),
            0x7: Variant("An exception that nobody handled."),
            0x8: Variant(
                "A system power event failed.", ("0x100", "device object", "channel summary")
            ),
            0x9: Variant(
                "The hibernation file could not be prepared.",
                ("status", "mirroring phase", _RESERVED),
            ),
            0xA: Variant(
                "A bugcheck was asked for when waking, for debugging.",
                ("0 at once, 1 and 2 after devices had power", _RESERVED, _RESERVED),
            ),
            0xB: Variant(
                "The hibernation file is too small.",
                ("its size", "progress", "size of the remaining memory"),
            ),
            0xC: Variant(
                "The dump stack could not be set up.", ("status", "dump stack context", _RESERVED)
            ),
        },
    ),
    Bugcheck(
        0xA5,
        "ACPI_BIOS_ERROR",
        "The ACPI tables or their code break the specification.",
        ("kind of violation", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x01: Variant(
                "No interrupt for ACPI in the resources it was given.",
                ("device extension", "resource list", "0 no list, 1 no interrupt in it"),
            ),
            0x02: Variant(
                "The resources of the PCI root bus could not be understood.",
                ("ACPI extension of the bus", "what exactly", "depends on 3"),
            ),
            0x03: Variant(
                "A control method failed while devices were made from the namespace.",
                ("object being run", "result of the interpreter", "name of the method"),
            ),
            0x0D: Variant(
                "A method or object that must be there is not, such as _HID or _ADR.",
                ("ACPI extension", "name of the method", "0 base case, 1 conflict"),
            ),
            0x10001: Variant(
                "Interrupt routing failed.", ("device object", "its parent", "the _PRT object")
            ),
            0x10002: Variant(
                "A link node that the _PRT names is not there.",
                ("device object", "name of the node", "the _PRT object"),
            ),
            0x10003: Variant(
                "The _PRT has no entry for a device.",
                ("device object", "device and function number", "the _PRT object"),
            ),
            0x10006: Variant("A link node cannot be disabled.", ("the node", "0", "0")),
            0x10009: Variant("The FADT was not found.", ("0", "0", "0")),
            0x20000: Variant("The ACPI timer does not work.", ("its I/O port", "0", "0")),
        },
    ),
    Bugcheck(
        0xB8,
        "ATTEMPTED_SWITCH_FROM_DPC",
        "A deferred call waited, which it never may.",
        ("original thread", "new thread", "stack address of the original thread", _RESERVED),
    ),
    Bugcheck(
        0xBE,
        "ATTEMPTED_WRITE_TO_READONLY_MEMORY",
        "A driver wrote to read-only memory, perhaps its own code or constants.",
        ("memory that was written to", "contents of its page table entry", _RESERVED, _RESERVED),
    ),
    Bugcheck(
        0xC1,
        "SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION",
        "A driver wrote to a wrong place in special pool (Driver Verifier).",
        ("address that was freed, or IRQL", "depends on 4", "depends on 4", "kind of damage"),
        values={
            4: {
                0x20: "freed pool that was not allocated",
                0x21: "freed a bad address (2: bytes asked for, 3: bytes given)",
                0x22: "freed a bad address (2: bytes asked for, 3: bytes given)",
                0x23: "bytes nearby in the page were changed (2: where)",
                0x24: "bytes behind the end were changed (2: where)",
                0x30: "allocated at a wrong IRQL (1: IRQL, 2: pool type, 3: bytes)",
                0x31: "freed at a wrong IRQL (1: IRQL, 2: pool type, 3: address)",
                0x32: "one bit nearby in the page was changed (2: where)",
            }
        },
    ),
    Bugcheck(
        0xC2,
        "BAD_POOL_CALLER",
        "A driver made a bad request of the memory pool.",
        ("kind of request", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x00: Variant(
                "Asked for no bytes at all.", ("0", "pool type", "tag of the allocation")
            ),
            0x01: Variant("The pool header is damaged.", ("pool header", "its first part", "0")),
            0x02: Variant("The pool header is damaged.", ("pool header", "its first part", "0")),
            0x04: Variant("The pool header is damaged.", ("pool header", "its first part", "0")),
            0x06: Variant(
                "Freed memory that was free already.",
                (_RESERVED, "pool header", "its contents"),
            ),
            0x07: Variant(
                "Freed memory that was free already.",
                (_RESERVED, "contents of the pool header", "address that was freed"),
            ),
            0x08: Variant(
                "Asked for pool at too high an IRQL.", ("IRQL", "pool type", "bytes asked for")
            ),
            0x09: Variant(
                "Freed pool at too high an IRQL.", ("IRQL", "pool type", "address of the pool")
            ),
            0x0A: Variant(
                "Freed pool with a wrong tag.", ("address of the pool", "its tag", "tag given")
            ),
            0x40: Variant(
                "Freed a user-mode address.",
                ("address that was freed", "start of system memory", "0"),
            ),
            0x41: Variant(
                "Freed nonpaged memory that is not allocated.",
                ("address that was freed", "page frame", "highest page frame"),
            ),
            0x42: Variant(
                "Freed an address that is in no pool.", ("address that was freed", "0", "0")
            ),
            0x43: Variant(
                "Freed an address that is in no pool.", ("address that was freed", "0", "0")
            ),
            0x46: Variant(
                "Freed an address that is not the start of a block.",
                ("address that was freed", "0", "0"),
            ),
            0x99: Variant("Freed a bad address.", ("address that was freed", "0", "0")),
            0x9A: Variant(
                "Asked for pool that must succeed, which is no longer supported.",
                ("pool type", "bytes asked for", "tag"),
            ),
            0x9B: Variant(
                "Asked for pool with a tag of 0.",
                ("pool type", "bytes asked for", "address of the caller"),
            ),
        },
    ),
    Bugcheck(
        0xC4,
        "DRIVER_VERIFIER_DETECTED_VIOLATION",
        "Driver Verifier caught a driver breaking a rule.",
        ("the rule", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x00: Variant("Asked for no bytes at all.", ("IRQL", "pool type", "number of bytes")),
            0x01: Variant(
                "Asked for paged pool above APC_LEVEL.", ("IRQL", "pool type", "number of bytes")
            ),
            0x02: Variant(
                "Asked for nonpaged pool above DISPATCH_LEVEL.",
                ("IRQL", "pool type", "number of bytes"),
            ),
            0x10: Variant("Freed an address that was never allocated.", ("the address", "0", "0")),
            0x11: Variant(
                "Freed paged pool above APC_LEVEL.", ("IRQL", "pool type", "address of the pool")
            ),
            0x12: Variant(
                "Freed nonpaged pool above DISPATCH_LEVEL.",
                ("IRQL", "pool type", "address of the pool"),
            ),
            0x13: Variant(
                "Freed pool that was free already.", (_RESERVED, "pool header", "its contents")
            ),
            0x14: Variant(
                "Freed pool that was free already.", (_RESERVED, "pool header", "its contents")
            ),
            0x16: Variant(
                "Freed pool at a bad address, or passed bad arguments.",
                (_RESERVED, "address of the pool", "0"),
            ),
            0x30: Variant("Raised to a lower IRQL.", ("current IRQL", "requested IRQL", "0")),
            0x31: Variant("Lowered to a higher IRQL.", ("current IRQL", "requested IRQL", "0")),
            0x32: Variant(
                "Released a spin lock below DISPATCH_LEVEL.", ("current IRQL", "spin lock", "0")
            ),
            0x33: Variant(
                "Acquired a fast mutex above APC_LEVEL.", ("current IRQL", "fast mutex", "0")
            ),
            0x34: Variant(
                "Released a fast mutex at another IRQL than APC_LEVEL.",
                ("current IRQL", "fast mutex", "0"),
            ),
            0x37: Variant(
                "Acquired a resource with APCs not disabled.",
                ("current IRQL", "APC disable count", "resource"),
            ),
            0x38: Variant(
                "Released a resource with APCs not disabled.",
                ("current IRQL", "APC disable count", "resource"),
            ),
            0x3C: Variant("Referenced a bad handle.", ("the handle", "object type", "0")),
            0x3E: Variant("Left a critical region it was not in.", ("0", "0", "0")),
            0x3F: Variant(
                "Referenced an object whose count is zero.",
                ("the object", "new count; -1 when dereferencing", "0"),
            ),
            0x40: Variant(
                'Acquired a spin lock "at DPC level" below DISPATCH_LEVEL.',
                ("current IRQL", "spin lock", "0"),
            ),
            0x41: Variant(
                'Released a spin lock "from DPC level" below DISPATCH_LEVEL.',
                ("current IRQL", "spin lock", "0"),
            ),
            0x42: Variant(
                "Acquired a spin lock above DISPATCH_LEVEL.", ("current IRQL", "spin lock", "0")
            ),
            0x51: Variant(
                "Freed a block that was written behind its end.",
                ("base of the block", "address behind its end", "bytes charged"),
            ),
            0x52: Variant(
                "Freed a block that was written behind its end.",
                ("base of the block", _RESERVED, "bytes charged"),
            ),
            0x60: Variant(
                "Was unloaded without freeing its pool.",
                ("bytes of paged pool", "bytes of nonpaged pool", "allocations not freed"),
            ),
            0x61: Variant(
                "A thread of it allocated pool while it was being unloaded.",
                ("bytes of paged pool", "bytes of nonpaged pool", "allocations not freed"),
            ),
            0x62: Variant(
                "Was unloaded without freeing its pool.",
                ("name of the driver", _RESERVED, "allocations not freed"),
            ),
            0x70: Variant("Locked pages above DISPATCH_LEVEL.", ("IRQL", "MDL", "access mode")),
            0x71: Variant(
                "Locked pages of a process above DISPATCH_LEVEL.", ("IRQL", "MDL", "process")
            ),
            0x74: Variant(
                "Mapped locked pages above DISPATCH_LEVEL.", ("IRQL", "MDL", "access mode")
            ),
            0x78: Variant("Unlocked pages above DISPATCH_LEVEL.", ("IRQL", "MDL", "0")),
            0x79: Variant(
                "Unmapped locked pages above DISPATCH_LEVEL.", ("IRQL", "address", "MDL")
            ),
            0x7C: Variant("Unlocked pages that were never locked.", ("MDL", "its flags", "0")),
            0x7D: Variant("Unlocked pages of nonpaged pool.", ("MDL", "its flags", "0")),
            0x80: Variant("Set an event above DISPATCH_LEVEL.", ("IRQL", "event", "0")),
            0x81: Variant("Mapped locked pages without a way to fail.", ("MDL", "its flags", "0")),
            0x82: Variant("Mapped locked pages without a way to fail.", ("MDL", "its flags", "0")),
        },
    ),
    Bugcheck(
        0xC5,
        "DRIVER_CORRUPTED_EXPOOL",
        "Damaged pool was met at too high an IRQL; some driver damaged it earlier.",
        ("memory that was touched", _IRQL, _READ_WRITE_2, "address of the code that touched it"),
        code_at=(4,),
        values={2: _IRQLS, 3: _ACCESS},
    ),
    Bugcheck(
        0xC6,
        "DRIVER_CAUGHT_MODIFYING_FREED_POOL",
        "A driver wrote to pool that it had freed.",
        ("memory that was touched", _READ_WRITE_2, "0 kernel mode, 1 user mode", "4"),
        values={2: _ACCESS},
    ),
    Bugcheck(
        0xC7,
        "TIMER_OR_DPC_INVALID",
        "A timer or deferred call was found in memory where none may be.",
        ("kind", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x0: Variant("A timer is in memory being freed.", ("the timer", "start", "end")),
            0x1: Variant(
                "A deferred call is in memory being freed.", ("its object", "start", "end")
            ),
            0x2: Variant(
                "The routine of a deferred call is in memory being freed.",
                ("the routine", "start", "end"),
            ),
            0x3: Variant(
                "A deferred call has a wrong processor number.",
                ("its object", "processor number", "number of processors"),
            ),
            0x4: Variant(
                "A deferred call changed the thread's APC disable count.",
                ("the routine", "count before", "count after"),
            ),
            0x5: Variant(
                "A timer's deferred call changed the thread's APC disable count.",
                ("the routine", "count before", "count after"),
            ),
        },
    ),
    Bugcheck(
        0xC8,
        "IRQL_UNEXPECTED_VALUE",
        "The IRQL is not what it must be; a driver raised it and did not lower it again.",
        (
            "current IRQL << 16 | expected IRQL << 8 | a number",
            "APC->KernelRoutine, or 0",
            "APC, or 0",
            "APC->NormalRoutine, or 0",
        ),
    ),
    Bugcheck(
        0xC9,
        "DRIVER_VERIFIER_IOMANAGER_VIOLATION",
        "Driver Verifier caught a driver misusing the I/O manager.",
        ("the rule", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x01: Variant("Freed something that is no IRP.", ("the IRP", "0", "0")),
            0x02: Variant("Freed an IRP that a thread still holds.", ("the IRP", "0", "0")),
            0x03: Variant("Sent something that is no IRP.", ("the IRP", "0", "0")),
            0x04: Variant("Sent an IRP to a bad device object.", ("device object", "0", "0")),
            0x05: Variant(
                "A dispatch routine changed the IRQL.",
                ("device object", "IRQL before", "IRQL after"),
            ),
            0x06: Variant("Completed an IRP with a status of pending.", ("status", "the IRP", "0")),
            0x07: Variant(
                "Completed an IRP with its cancel routine set.",
                ("cancel routine", "the IRP", "0"),
            ),
            0x0A: Variant("Initialised a timer a second time.", ("device object", "0", "0")),
            0x0C: Variant(
                "An I/O status block lies on a stack that is gone.", ("the block", "0", "0")
            ),
            0x0D: Variant("An event lies on a stack that is gone.", ("the event", "0", "0")),
            0x0E: Variant("Completed an IRP above DISPATCH_LEVEL.", ("IRQL", "the IRP", "0")),
            0x0F: Variant(
                "Sent a create request with a closed file object.",
                ("device object", "the IRP", "file object"),
            ),
            0x10: Variant(
                "Called IoCallDriver above DISPATCH_LEVEL.", ("IRQL", _RESERVED, _RESERVED)
            ),
        },
    ),
    Bugcheck(
        0xCA,
        "PNP_DETECTED_FATAL_ERROR",
        "The Plug and Play manager met a driver that breaks its rules.",
        ("kind of error", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x1: Variant(
                "A bus driver reported two devices with the same identity.",
                ("newly reported device object", "the older one", _RESERVED),
            ),
            0x2: Variant(
                "Something was used as a physical device object that is none.",
                ("the object that was given", "driver object", _RESERVED),
            ),
            0x3: Variant(
                "A bus driver returned an ID that is not valid.",
                (
                    "physical device object",
                    "the ID",
                    "1 device, 2 instance, 3 hardware, 4 compatible IDs",
                ),
            ),
            0x4: Variant(
                "A bus driver reported a device object that it had deleted.",
                ("physical device object", _RESERVED, _RESERVED),
            ),
            0x5: Variant(
                "A device object was freed while it is still in the device tree.",
                ("physical device object", _RESERVED, _RESERVED),
            ),
            0x8: Variant(
                "A bus driver reported a null pointer as a device.",
                ("physical device object", "number of devices reported", "index of the null"),
            ),
            0x9: Variant(
                "An interrupt was disconnected as another kind than it was connected.",
                ("kind that was passed", _RESERVED, _RESERVED),
            ),
            0xA: Variant(
                "A notification callback changed the IRQL or the APC count.",
                ("driver object", "IRQL after the callback", "APC disable count after it"),
            ),
            0xB: Variant(
                "A device was reported as a removal relation after it was deleted.",
                ("physical device object", "removal relations", _RESERVED),
            ),
        },
    ),
    Bugcheck(
        0xCB,
        "DRIVER_LEFT_LOCKED_PAGES_IN_PROCESS",
        "A driver did not unlock pages before its I/O was complete.",
        (
            "caller that locked the pages, or 0",
            "caller of that caller, or 0",
            "MDL with the locked pages",
            "number of locked pages",
        ),
        code_at=(1, 2),
    ),
    Bugcheck(
        0xCC,
        "PAGE_FAULT_IN_FREED_SPECIAL_POOL",
        "Memory was touched after it had been freed.",
        ("memory that was touched", _READ_WRITE_2, "address of the code, if known", _RESERVED),
        code_at=(3,),
        values={2: _ACCESS},
    ),
    Bugcheck(
        0xCD,
        "PAGE_FAULT_BEYOND_END_OF_ALLOCATION",
        "Memory was touched behind the end of its block.",
        ("memory that was touched", _READ_WRITE_2, "address of the code, if known", _RESERVED),
        code_at=(3,),
        values={2: _ACCESS},
    ),
    Bugcheck(
        0xCE,
        "DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS",
        "A driver was unloaded, and something still called it: timer, deferred call, thread.",
        ("memory that was touched", _READ_WRITE, "address of the code, if known", _RESERVED),
        # What was executed there is the driver that is gone.
        code_at=(1, 3),
        values={2: _ACCESS},
    ),
    Bugcheck(
        0xD0,
        "DRIVER_CORRUPTED_MMPOOL",
        "Damaged pool was met at too high an IRQL; some driver damaged it earlier.",
        ("memory that was touched", _IRQL, _READ_WRITE_2, "address of the code that touched it"),
        code_at=(4,),
        values={2: _IRQLS, 3: _ACCESS},
    ),
    Bugcheck(
        0xD1,
        "DRIVER_IRQL_NOT_LESS_OR_EQUAL",
        "A driver touched paged or invalid memory at too high an IRQL.",
        ("memory that was touched", _IRQL, _READ_WRITE, "address of the code that touched it"),
        code_at=(4,),
        values={2: _IRQLS, 3: _ACCESS},
    ),
    Bugcheck(
        0xD3,
        "DRIVER_PORTION_MUST_BE_NONPAGED",
        "A driver marked code or data as pageable that is used at raised IRQL.",
        ("memory that was touched", _IRQL, _READ_WRITE_2, "address of the code that touched it"),
        code_at=(4, 1),
        values={2: _IRQLS, 3: _ACCESS},
    ),
    Bugcheck(
        0xD4,
        "SYSTEM_SCAN_AT_RAISED_IRQL_CAUGHT_IMPROPER_DRIVER_UNLOAD",
        "A driver was unloaded, and something of it was still in use at raised IRQL.",
        ("memory that was touched", _IRQL, _READ_WRITE_2, "address of the code that touched it"),
        code_at=(1, 4),
        values={2: _IRQLS, 3: _ACCESS},
    ),
    Bugcheck(
        0xD5,
        "DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL",
        "A driver touched memory that it had freed (Driver Verifier).",
        ("memory that was touched", _READ_WRITE_2, "address of the code, if known", _RESERVED),
        code_at=(3,),
        values={2: _ACCESS},
    ),
    Bugcheck(
        0xD6,
        "DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION",
        "A driver touched memory behind the end of its block (Driver Verifier).",
        ("memory that was touched", _READ_WRITE_2, "address of the code, if known", _RESERVED),
        code_at=(3,),
        values={2: _ACCESS},
    ),
    Bugcheck(
        0xD7,
        "DRIVER_UNMAPPING_INVALID_VIEW",
        "A driver unmapped a view that is not mapped there.",
        ("address to be unmapped", "1 being unmapped, 2 being committed", "0", "0"),
    ),
    Bugcheck(
        0xD8,
        "DRIVER_USED_EXCESSIVE_PTES",
        "The entries that map system memory are used up, most of them by one driver.",
        (
            "name of the driver (Unicode), or 0",
            "entries that this driver uses",
            "free entries",
            "total entries",
        ),
    ),
    Bugcheck(
        0xD9,
        "LOCKED_PAGES_TRACKER_CORRUPTION",
        "The list of locked pages is damaged.",
        ("kind of damage", "depends on 1", "depends on 1", "depends on 1"),
    ),
    Bugcheck(
        0xDA,
        "SYSTEM_PTE_MISUSE",
        "A driver misused the entries that map system memory.",
        ("kind of misuse", "depends on 1", "depends on 1", "depends on 1"),
    ),
    Bugcheck(
        0xDE,
        "POOL_CORRUPTION_IN_FILE_AREA",
        "A driver damaged pool that holds pages on their way to disk.",
    ),
    Bugcheck(
        0xE2,
        "MANUALLY_INITIATED_CRASH",
        "A person stopped the system: keyboard or kernel debugger.",
    ),
    Bugcheck(
        0xE3,
        "RESOURCE_NOT_OWNED",
        "A thread released a resource that it did not own.",
        ("resource", "thread", "owner table, if any", _RESERVED),
    ),
    Bugcheck(
        0xE4,
        "WORKER_INVALID",
        "Memory that may not hold a work item holds one, or an active one was queued.",
        ("kind", "work item", "depends on 1", "depends on 1"),
        variants={
            0x0: Variant("An active work item was freed.", ("work item", "start", "end")),
            0x1: Variant("An active work item was queued.", ("work item", "queue number", "0")),
            0x2: Variant("A queued I/O work item was freed.", ("work item", "worker routine", "0")),
            0x3: Variant(
                "An I/O work item was set up for a bad object.", ("work item", "object", "0")
            ),
        },
    ),
    Bugcheck(
        0xE6,
        "DRIVER_VERIFIER_DMA_VIOLATION",
        "Driver Verifier caught a driver misusing DMA.",
        ("the rule", "depends on 1", "depends on 1", "depends on 1"),
    ),
    Bugcheck(
        0xEA,
        "THREAD_STUCK_IN_DEVICE_DRIVER",
        "A thread of a driver runs in circles, usually waiting for its hardware.",
        (
            "thread that is stuck",
            "deferred watchdog object",
            "name of the driver (UNICODE_STRING)",
            "how often it was met",
        ),
    ),
    Bugcheck(
        0xED,
        "UNMOUNTABLE_BOOT_VOLUME",
        "The boot volume could not be mounted.",
        ("device object of the volume", "NTSTATUS", _RESERVED, _RESERVED),
        values={2: _STATUS},
    ),
    Bugcheck(
        0xF4,
        "CRITICAL_OBJECT_TERMINATION",
        "A process that the system needs ended, often since the disk under it went away.",
        (
            "3 process, 6 thread",
            "the object",
            "name of the process's image file",
            "text that explains",
        ),
        values={1: {3: "process", 6: "thread"}},
    ),
    Bugcheck(
        0xF7,
        "DRIVER_OVERRAN_STACK_BUFFER",
        "A driver wrote over the end of a buffer on its stack.",
        ("cookie found", "cookie expected", "complement of the expected cookie", "0"),
    ),
    Bugcheck(
        0xFC,
        "ATTEMPTED_EXECUTE_OF_NOEXECUTE_MEMORY",
        "A driver jumped to memory that may not be executed.",
        ("address that was jumped to", "its page table entry", _RESERVED, _RESERVED),
    ),
    Bugcheck(
        0xFE,
        "BUGCODE_USB_DRIVER",
        "A USB driver met an error it cannot go on with.",
        ("kind of error", "depends on 1", "depends on 1", "depends on 1"),
        variants={
            0x1: Variant("An internal error of the USB stack."),
            0x2: Variant(
                "A URB was submitted that is still pending.",
                ("the pending IRP", "the new IRP", "the URB"),
            ),
            0x3: Variant("The USB miniport driver stopped the system; often hardware."),
            0x4: Variant(
                "An IRP was submitted that is still pending.", ("the IRP", "the URB", _RESERVED)
            ),
            0x5: Variant(
                "The hardware holds a bad physical address.",
                ("device extension", "vendor and product of the controller", "endpoint data"),
            ),
            0x6: Variant(
                "An internal object is damaged.", ("the object", "expected signature", _RESERVED)
            ),
        },
    ),
    Bugcheck(
        0x10D,
        "WDF_VIOLATION",
        "The driver framework (KMDF) caught an error in a driver that uses it.",
        ("kind of error", "depends on 1", "depends on 1", _RESERVED),
        variants={
            0x1: Variant(
                "A power operation of the driver took too long.",
                ("WDF_POWER_ROUTINE_TIMED_OUT_DATA", _RESERVED, _RESERVED),
            ),
            0x2: Variant("A lock was acquired that is held already."),
            0x3: Variant(
                "A request was completed while its buffers are still referenced.",
                ("WDFREQUEST", "number of references", _RESERVED),
            ),
            0x4: Variant(
                "A null pointer was passed where none may be.",
                (_RESERVED, "address of the caller", _RESERVED),
            ),
            0x5: Variant(
                "A handle of the wrong type was passed.", ("the handle", _RESERVED, _RESERVED)
            ),
            0x6: Variant(
                "A request was handled wrongly.", ("kind of error", "depends on 2", _RESERVED)
            ),
            0x7: Variant(
                "A handle was dereferenced away instead of deleted.",
                ("the handle", _RESERVED, _RESERVED),
            ),
            0x8: Variant(
                "A DMA transaction was used in a wrong state.",
                ("the transaction", _RESERVED, _RESERVED),
            ),
            0xA: Variant(
                "A queue was used wrongly.", ("WDF_QUEUE_FATAL_ERROR_DATA", _RESERVED, _RESERVED)
            ),
            0xB: Variant(
                "A handle's lock or parent was used wrongly.", ("depends", "depends", _RESERVED)
            ),
            0xC: Variant(
                "A Plug and Play request arrived while another was being handled.",
                ("WDFDEVICE", "the new IRP", _RESERVED),
            ),
            0xD: Variant(
                "A power request arrived that the power policy owner did not ask for.",
                ("WDFDEVICE", "the IRP", _RESERVED),
            ),
            0xE: Variant(
                "A callback returned at another IRQL than it was called at.",
                ("IRQL before", "IRQL after", _RESERVED),
            ),
            0xF: Variant(
                "A callback left without leaving its critical region.",
                ("address of the callback", _RESERVED, _RESERVED),
            ),
        },
    ),
    Bugcheck(
        FORCED_BY_SYSRQ,
        "forced by xm sysrq",
        "Somebody asked the driver for a crash from dom0 (xm sysrq DOM B).",
        ("1", "0", "0", "0"),
    ),
    Bugcheck(
        0xC0000218,
        "STATUS_CANNOT_LOAD_REGISTRY_FILE",
        "A file of the registry could not be loaded.",
        ("name of the file", "0", "NTSTATUS", "0"),
    ),
    Bugcheck(
        0xC000021A,
        "STATUS_SYSTEM_PROCESS_TERMINATED",
        "A user-mode part that the system cannot do without ended.",
        ("text that names it", "its NTSTATUS", _RESERVED, _RESERVED),
        values={2: _STATUS},
    ),
    Bugcheck(
        0xC0000221,
        "STATUS_IMAGE_CHECKSUM_MISMATCH",
        "A driver's or library's file is damaged.",
        ("name of the file", _RESERVED, _RESERVED, _RESERVED),
    ),
    Bugcheck(
        0xDEADDEAD,
        "MANUALLY_INITIATED_CRASH1",
        "A person stopped the system: keyboard or kernel debugger.",
    ),
)

#: By code, without the flag of minidumps.
BUGCHECKS: Mapping[int, Bugcheck] = {one.code: one for one in _TABLE}


def lookup(code: int) -> Bugcheck | None:
    """What is known of a code, with or without the flag of minidumps.

    Args:
        code: 32 bits, as shown.
    """
    # 0xDEADDEAD has the flag's bit by nature.
    return BUGCHECKS.get(code) or BUGCHECKS.get(plain_code(code))


def name(code: int) -> str | None:
    """Microsoft's constant for a code, with or without the flag of minidumps."""
    found = lookup(code)
    return found.name if found else None


def code_addresses(code: int, parameters: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Parameters that may hold the address of the code at fault.

    Args:
        code: 32 bits, as shown.
        parameters: of the bugcheck, up to 4.

    Returns:
        Pairs of the parameter's number (1 to 4) and its value, the most telling first; zeros
        are left out.
    """
    found = lookup(code)
    if found is None:
        return ()
    given = ((at, parameters[at - 1]) for at in found.code_at if at <= len(parameters))
    return tuple((at, value) for at, value in given if value)


def explain(code: int, parameters: Sequence[int] = ()) -> list[str]:
    """A bugcheck in words, a line each.

    Args:
        code: 32 bits, as shown.
        parameters: up to 4; missing ones are not explained.
    """
    found = lookup(code)
    if found is None:
        shown = f"0x{code:08X}: not in this project's table of stop codes"
        return [shown, *(f"  {at}: 0x{value:08x}" for at, value in enumerate(parameters[:4], 1))]
    flagged = code != found.code and bool(code & MINIDUMP_FLAG)
    lines = [
        f"0x{found.code:08X} {found.name}"
        + (f" (shown as 0x{code:08X}: minidumps add a flag)" if flagged else ""),
        found.meaning,
    ]
    meanings = found.parameters
    variant = found.variants.get(parameters[0]) if parameters else None
    if variant:
        lines.append(variant.meaning)
        meanings = (meanings[0], *variant.parameters)
    for at, (value, meaning) in enumerate(zip(parameters, meanings, strict=False), 1):
        named = found.values.get(at, {}).get(value)
        lines.append(f"  {at}: 0x{value:08x} {meaning}" + (f" = {named}" if named else ""))
    lines.append(f"source: {found.source}")
    return lines
