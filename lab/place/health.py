"""Whether the lab's own parts under a test work, asked after a failure and with evidence.

What is asked has no say of the guest in it: a guest can crash, hang and fill its disks without
one of these answers changing. So an answer that is not in order blames the lab, whatever the
test saw.
"""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab.core.deadline import Deadline
from lab.core.errors import DeadlineExpired
from lab.qemu.machine import Machine
from lab.xen.dom0 import Dom0

# How long QEMU's monitor, which is served beside the processor, may take to say how it is, in s.
_MONITOR_SECONDS = 20.0
# How long the guest's HTTP server may take for an answer of one line, in s. On an emulated host
# it takes one second.
_ANSWER_SECONDS = 15.0
_REQUEST = b"GET / HTTP/1.0\r\n\r\n"

# Xen 4.17, xen/common/shutdown.c (hwdom_shutdown) and common/domain.c: the end of dom0; 3.x has
# `Domain 0`. xen/drivers/char/console.c: panic(). The last is dom0's kernel.
_FATAL = re.compile(
    r"(?:Hardware Dom0|\bDomain 0) (?:crashed|halted|shutdown|hung)|Panic on CPU \d+|"
    r"Kernel panic - not syncing"
)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the lab's own parts work; the driver has no say in it.

    Attributes:
        ok: they do.
        cause: one line saying what is broken; empty when ``ok``.
    """

    ok: bool
    cause: str = ""


def of_machine(machine: Machine) -> str:
    """What is wrong with the QEMU process and the host in it, in one line; empty if nothing."""
    if dead := machine.why_dead():
        return dead
    return machine.why_stopped(Deadline(_MONITOR_SECONDS)) or of_console(machine.serial_log)


def of_console(log: Path) -> str:
    """What the console of Xen and dom0 says of their end; empty while they run."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    said = next((line.strip() for line in lines if _FATAL.search(line)), "")
    return f"dom0 or Xen ended: {said}" if said else ""


def of_dom0(
    dom0: Dom0,
    *,
    domain: str,
    listing: str,
    disks: Sequence[str],
    guest_type: Literal["hvm", "pv"],
    ended_on_purpose: bool,
    deadline: Deadline,
) -> str:
    """What is wrong in dom0, in one line; empty if nothing.

    Args:
        dom0: the connection.
        domain: name of the guest's domain.
        listing: the toolstack's command that lists this domain.
        disks: device nodes that dom0 has to have.
        guest_type: of the guest; an HVM one needs a device model.
        ended_on_purpose: the test ended the domain; what became of it is not looked at.
        deadline: when to give up.

    Raises:
        DeadlineExpired: dom0 does not answer; carries what it was asked last.
        LabBroken: the connection is lost.
    """
    words = {
        "@DISKS@": shlex.join(disks),
        "@NAME@": shlex.quote(domain),
        "@LISTING@": listing,
        "@HVM@": "1" if guest_type == "hvm" else "",
        "@LOOK@": "" if ended_on_purpose else "1",
        "@NEWLINE@": '"$newline"',
    }
    script = _SCRIPT
    for word, value in words.items():
        script = script.replace(word, value)
    # Over standard input: on the command line, the script would find itself among the processes.
    result = dom0.run("sh -s", deadline, stdin=script.encode())
    for line in result.lines:
        if line.startswith("broken: "):
            return line.removeprefix("broken: ").strip()
    if "fine" not in result.lines:
        said = (result.stderr.strip().splitlines() or ["no message"])[-1]
        return f"dom0 could not be looked at: {said}"
    return ""


def of_way(dom0: Dom0, port: int, guest: tuple[str, int], deadline: Deadline) -> str:
    """What is wrong with the way to the guest's WinRM, in one line; empty if nothing is known.

    The same question is asked from here and from dom0. Only a guest that answers dom0 and not
    us proves that the way is cut; one that answers neither may be dead.

    Args:
        dom0: the connection.
        port: on the loopback of this machine, that leads to the guest.
        guest: the guest's address and port as dom0 sees them.
        deadline: when to give up.
    """
    if _answers_here(port, deadline):
        return ""
    host, its_port = guest
    script = (
        f"exec 3<>/dev/tcp/{host}/{its_port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && "
        f'read -r -t {_ANSWER_SECONDS:.0f} -n 4 word <&3; echo "$word"'
    )
    try:
        # Connecting to a host that is not there takes longer than we wait.
        said = dom0.run(f"bash -c {shlex.quote(script)}", deadline.at_most(2 * _ANSWER_SECONDS))
    except DeadlineExpired:
        return ""
    if said.stdout.strip() != "HTTP":
        return ""
    return (
        f"the guest answers dom0 and not the lab: the way from port {port} through QEMU and dom0 "
        f"to {host}:{its_port} is cut"
    )


def _answers_here(port: int, deadline: Deadline) -> bool:
    patience = max(1.0, min(_ANSWER_SECONDS, deadline.remaining))
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
            sock.sendall(_REQUEST)
            return bool(sock.recv(1))
    except OSError:
        return False


# Each question comes before those that would hang without what it asks for: with xenstored dead,
# a toolstack waits for ever. Every `asking` is what a deadline that expires shows. Processes are
# dear in an emulated dom0, so the shell does what it can by itself.
# The words of xl's log: tools/xl/xl_vmcontrol.c, create_domain and handle_domain_death (4.17).
_SCRIPT = r"""
PATH=/usr/sbin:/usr/bin:/sbin:/bin
name=@NAME@
newline='
'
broken() { echo "broken: $*"; exit 0; }

echo "asking: its root filesystem"
probe=/var/log/pvlab-probe
# Not the shell's own echo, which calls every trouble an I/O error.
said=$( { /bin/echo probe > $probe; } 2>&1 ) ||
  broken "dom0 cannot write to its root filesystem: ${said##*: }"
rm -f $probe
for disk in @DISKS@; do
  [ -b "$disk" ] || broken "dom0 has lost its disk $disk"
done

echo "asking: its processes"
table=$(ps -ww -e -o stat= -o comm= -o args=)
store= xl= xend= models=
while read -r state program line; do
  case $state in Z*|T*) continue ;; esac
  case $program in
    *xenstored) store=1 ;;
    *qemu*) models="$models $line " ;;
    xl) case $line in *' create '*|*' restore '*|*' migrate-receive'*) xl=1 ;; esac ;;
    *) case "$line " in */xend' '*) xend=1 ;; esac ;;
  esac
done <<END
$table
END
[ -n "$store" ] || broken "xenstored does not run in dom0"
[ -n "@LOOK@" ] || { echo fine; exit; }

echo "asking: its toolstack"
if row=$(@LISTING@ 2>&1); then
  # The last line: name, id, memory, processors, state, time.
  set -f
  set -- ${row##*@NEWLINE@}
  shift $(($# - 6)); id=$2 state=$5
  set +f
else
  case $row in
    *'invalid domain'*|*'does not exist'*|*'o such process'*) id= state=gone ;;
    *) broken "the toolstack in dom0 failed: ${row##*@NEWLINE@}" ;;
  esac
fi

# Who restarts the domain: a process of xl for each domain, or xend for all.
log=/var/log/xen/xl-$name.log
if [ -e "$log" ]; then keeper=$xl who="xl's process for $name"; else keeper=$xend who=xend; fi
if [ -z "$keeper" ]; then
  last=$(tail -n 1 "$log" 2>/dev/null)
  # xl ends by itself when there is nothing to restart: the guest was saved, stopped, or is kept.
  case $state:$last in
    *:*'been destroyed'*) broken "the guest's domain was destroyed from dom0 ($last)" ;;
    gone:*'Exiting now'*|???s*:*'Exiting now'*) ;;
    gone:*) broken "the guest's domain is gone and $who does not run in dom0: ${last:-no word}" ;;
    *) broken "$who does not run in dom0: nobody restarts the guest" ;;
  esac
fi
# A domain that is being made is paused, and has no device model yet.
case $state in gone|??p*|???s*|????c*|?????d*) echo fine; exit ;; esac

if [ -n "@HVM@" ]; then
  case $models in
    *" -xen-domid $id "*|*" -d $id "*) ;;
    *) broken "the guest's device model (qemu-dm) does not run in dom0" ;;
  esac
fi

echo "asking: the guest's network"
for port in /sys/class/net/vif$id.* /sys/class/net/tap$id.*; do
  [ -e "$port/flags" ] || continue
  read -r flags < "$port/flags"
  [ $((flags & 1)) = 1 ] || broken "the guest's network ${port##*/} in dom0 is down"
  [ -e "$port/brport/bridge" ] || broken "the guest's network ${port##*/} in dom0 is in no bridge"
  read -r flags < "$port/brport/bridge/flags"
  [ $((flags & 1)) = 1 ] || broken "the bridge of the guest's network ${port##*/} in dom0 is down"
done
echo fine
"""
