"""A program that looks like QEMU from outside: command line, monitor, serial socket, exit.

Started as ``python fake_qemu.py ORDERS QEMU-OPTIONS...``; ORDERS is JSON:

    die      last words; it ends with status 1 before the monitor greets
    mute     the monitor never greets
    late     how often the port forwards are not there yet
    refuse   {command: words} the monitor refuses
    silent   [command] the monitor never answers
    fatal    {command: [exit status, words]} it ends of
    crash    [command] it ends of by SIGSEGV
    statuses what query-migrate says in turn; the last one stays
    loading  how often query-status says inmigrate
    status   what query-status says in any case
    stubborn ignores quit
    events   {command: [event]} that come before the answer
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys

# What QEMU 7.2 prints for "info usernet".
USERNET = """\
Hub -1 (net0):\r
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r
  TCP[ESTABLISHED]   21       127.0.0.1 20022       10.0.2.15    22     0     0\r
%s\
  UDP[236 sec]       15       10.0.2.15    68        10.0.2.2    67     0     0\r
"""
FORWARD = "  TCP[HOST_FORWARD]  %d       127.0.0.1 %d       10.0.2.15 %5d     0     0\r\n"


class FakeQemu:
    def __init__(self, orders, words):
        self.orders = orders
        self.words = words
        self.status = "inmigrate" if "-incoming" in words else "running"
        self.looks = 0
        self.polls = 0
        chardev = next(word for word in words if word.startswith("socket,id=monitor"))
        self.monitor = socket.socket(fileno=int(re.search(r"fd=(\d+)", chardev)[1]))

    def ports(self):
        netdev = next(word for word in self.words if word.startswith("user,"))
        return [int(port) for port in re.findall(r"hostfwd=tcp:127\.0\.0\.1:0-:(\d+)", netdev)]

    def send(self, message):
        self.monitor.sendall(json.dumps(message).encode() + b"\r\n")

    def serve(self):
        if self.orders.get("mute"):
            signal.pause()
        version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "fake"}
        self.send({"QMP": {"version": version, "capabilities": ["oob"]}})
        # QMP has no line ends; a message is whole when it parses.
        decoder = json.JSONDecoder()
        text = ""
        while data := self.monitor.recv(65536):
            text += data.decode()
            while text := text.lstrip():
                try:
                    call, end = decoder.raw_decode(text)
                except ValueError:
                    break
                with open("calls.jsonl", "a") as log:
                    log.write(text[:end] + "\n")
                text = text[end:]
                self.answer(call["execute"], call.get("arguments", {}), call.get("id"))
        # QEMU runs on when its monitor is closed.
        signal.pause()

    def answer(self, command, arguments, call_id):
        if command in self.orders.get("silent", []):
            return
        if command in self.orders.get("crash", []):
            os.kill(os.getpid(), signal.SIGSEGV)
        if command in self.orders.get("fatal", {}):
            status, words = self.orders["fatal"][command]
            self.end(status, words)
        if command in self.orders.get("refuse", {}):
            error = {"class": "GenericError", "desc": self.orders["refuse"][command]}
            self.send({"error": error, "id": call_id})
            return
        for event in self.orders.get("events", {}).get(command, []):
            self.send({**event, "timestamp": {"seconds": 1, "microseconds": 0}})
        value = getattr(self, command.replace("-", "_"), lambda: {})(**arguments_of(arguments))
        self.send({"return": value, "id": call_id})
        if command == "quit" and not self.orders.get("stubborn"):
            self.end(0, "")

    def end(self, status, words):
        if words:
            print(words, file=sys.stderr, flush=True)
        os._exit(status)

    # -- monitor commands ---------------------------------------------------------------

    def human_monitor_command(self, command_line):
        assert command_line == "info usernet", command_line
        self.looks += 1
        ports = [] if self.looks <= self.orders.get("late", 0) else self.ports()
        return USERNET % "".join(FORWARD % (13 + i, 20000 + p, p) for i, p in enumerate(ports))

    def stop(self):
        self.status = "paused"
        return {}

    def cont(self):
        self.status = "running"
        return {}

    def migrate(self, uri):
        subprocess.run(["sh", "-c", uri.removeprefix("exec:")], input=b"fake state\n", check=True)
        return {}

    def migrate_incoming(self, uri):
        command = ["sh", "-c", uri.removeprefix("exec:")]
        state = subprocess.run(command, capture_output=True, check=False).stdout
        if state != b"fake state\n":
            self.end(1, "qemu: load of migration failed: Invalid argument")
        return {}

    def query_migrate(self):
        statuses = self.orders.get("statuses", [{"status": "completed"}])
        self.polls += 1
        return statuses[min(self.polls, len(statuses)) - 1]

    def query_status(self):
        self.polls += 1
        if self.status == "inmigrate" and self.polls > self.orders.get("loading", 1):
            self.status = "paused"
        status = self.orders.get("status", self.status)
        return {"status": status, "running": status == "running"}


def arguments_of(arguments):
    known = {"command-line": "command_line", "uri": "uri"}
    return {known[name]: value for name, value in arguments.items() if name in known}


def main():
    orders = json.loads(sys.argv[1])
    serial = socket.socket(socket.AF_UNIX)
    serial.bind("serial.sock")
    serial.listen()
    with open("serial.log", "w") as log:
        log.write("(XEN) Xen version fake\r\n")
    with open("argv.json", "w") as file:
        json.dump(sys.argv[2:], file)
    with open("environ.json", "w") as file:
        json.dump(dict(os.environ), file)
    if "die" in orders:
        print(orders["die"], file=sys.stderr, flush=True)
        return 1
    FakeQemu(orders, sys.argv[2:]).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
