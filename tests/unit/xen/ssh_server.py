"""An SSH server in this process, for what needs a real connection."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko


class Server(paramiko.ServerInterface):
    """Lets one key in, runs commands here, forwards direct-tcpip."""

    def __init__(self, owner: SshServer) -> None:
        self.owner = owner

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        if self.owner.lost_logins:
            self.owner.lost_logins -= 1
            self.owner.transports[-1].close()
        known = username == "root" and key.asbytes() == self.owner.user_key.asbytes()
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        self.owner.channels += 1
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.owner.spawn(self.owner.execute, channel, command.decode())
        return True

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        try:
            target = socket.create_connection(destination, timeout=5)
        except OSError:
            return paramiko.OPEN_FAILED_CONNECT_FAILED
        self.owner.targets.append(target)
        return paramiko.OPEN_SUCCEEDED


class Files(paramiko.SFTPServerInterface):
    """The local file system."""

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(os.stat(path))
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)

    def open(
        self, path: str, flags: int, attr: paramiko.SFTPAttributes
    ) -> paramiko.SFTPHandle | int:
        try:
            mode = "wb" if flags & os.O_WRONLY else "rb"
            file = Path(path).open(mode)  # noqa: SIM115 - the handle closes it
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or 0)
        handle = paramiko.SFTPHandle(flags)
        handle.readfile = handle.writefile = file  # type: ignore[attr-defined]
        handle.stat = lambda: self.stat(path)  # type: ignore[method-assign]
        return handle


class SshServer:
    """Listens on the loopback until closed."""

    def __init__(self, folder: Path) -> None:
        self.host_key = paramiko.RSAKey.generate(2048)
        self.key_file = folder / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key_file)], check=True
        )
        self.user_key = paramiko.Ed25519Key.from_private_key_file(str(self.key_file))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.channels = 0
        self.handshakes = 0
        # How many of the next logins end with the connection cut.
        self.lost_logins = 0
        self.targets: list[socket.socket] = []
        self.transports: list[paramiko.Transport] = []
        # paramiko holds channels weakly: one that nobody keeps is closed.
        self.kept: list[paramiko.Channel] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.threads: list[threading.Thread] = []
        self.spawn(self.accept)

    def spawn(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        self.threads.append(thread)
        thread.start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.handshakes += 1
            transport = paramiko.Transport(client)
            transport.add_server_key(self.host_key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
            self.transports.append(transport)
            with contextlib.suppress(paramiko.SSHException, EOFError):
                transport.start_server(server=Server(self))
                self.spawn(self.serve, transport)

    def serve(self, transport: paramiko.Transport) -> None:
        while transport.is_active():
            channel = transport.accept(0.2)
            if channel is None:
                continue
            self.kept.append(channel)
            if self.targets:
                target = self.targets.pop()
                self.spawn(self.copy_out, target, channel)
                self.spawn(self.copy_in, target, channel)

    def copy_out(self, target: socket.socket, channel: paramiko.Channel) -> None:
        with target, contextlib.suppress(OSError):
            while data := target.recv(4096):
                channel.sendall(data)
        channel.close()

    def copy_in(self, target: socket.socket, channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError):
            while data := channel.recv(4096):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def execute(self, channel: paramiko.Channel, command: str) -> None:
        if command == "drop":
            channel.get_transport().close()
            return
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process)
        assert process.stdin
        assert process.stdout
        assert process.stderr

        def feed() -> None:
            with contextlib.suppress(OSError, ValueError):
                while data := channel.recv(32768):
                    process.stdin.write(data)
            with contextlib.suppress(OSError):
                process.stdin.close()

        def drain() -> None:
            with contextlib.suppress(OSError):
                while data := process.stderr.read1(32768):
                    channel.sendall_stderr(data)

        feeder = threading.Thread(target=feed, daemon=True)
        drainer = threading.Thread(target=drain, daemon=True)
        feeder.start()
        drainer.start()
        with contextlib.suppress(OSError):
            while data := process.stdout.read1(32768):
                channel.sendall(data)
        process.kill()
        drainer.join()
        status = process.wait()
        with contextlib.suppress(OSError, EOFError):
            channel.send_exit_status(status if status >= 0 else 128 - status)
        channel.close()
        feeder.join()
        process.stdout.close()
        process.stderr.close()

    def close(self) -> None:
        # shutdown wakes the accept; close alone does not.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for transport in self.transports:
            transport.close()
        for process in self.processes:
            process.kill()
        for thread in self.threads:
            thread.join(10)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[SshServer]:
    server = SshServer(folder)
    try:
        yield server
    finally:
        server.close()
