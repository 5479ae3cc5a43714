"""A loopback port forwarded through dom0's SSH connection."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

import paramiko

_CHUNK = 32768
# Opening a forwarded connection is one round trip to dom0 plus its own TCP connect.
_OPEN_SECONDS = 30.0


class Forward:
    """Listens on 127.0.0.1 and carries each connection over a direct-tcpip channel.

    A connection that dom0 cannot make is closed at once, as a refused one would be.

    Args:
        transport: the live SSH connection.
        host: target as dom0 sees it.
        port: its TCP port.
    """

    def __init__(self, transport: paramiko.Transport, host: str, port: int) -> None:
        self._transport = transport
        self._target = (host, port)
        # One end is closed to end every `select` of every thread here.
        self._stop, self._stopper = socket.socketpair()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._carriers: list[threading.Thread] = []
        self._acceptor = threading.Thread(
            target=self._accept, name=f"forward-{self.port}", daemon=True
        )
        self._acceptor.start()

    def close(self) -> None:
        """Stop listening, cut what is open and wait for the threads."""
        self._stopper.close()
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            carriers = list(self._carriers)
        for carrier in carriers:
            carrier.join()
        self._stop.close()

    def _accept(self) -> None:
        while True:
            ready, _, _ = select.select([self._listener, self._stop], [], [])
            if self._stop in ready:
                return
            try:
                client, address = self._listener.accept()
            except OSError:
                # The client gave up between select and accept.
                continue
            carrier = threading.Thread(
                target=self._carry, args=(client, address), name=f"forward-{address[1]}"
            )
            carrier.daemon = True
            with self._lock:
                self._carriers = [one for one in self._carriers if one.is_alive()] + [carrier]
            carrier.start()

    def _carry(self, client: socket.socket, address: tuple[str, int]) -> None:
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                channel = self._transport.open_channel(
                    "direct-tcpip", self._target, address, timeout=_OPEN_SECONDS
                )
            except (paramiko.SSHException, EOFError, OSError):
                return
            try:
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                    self._pump(client, channel)
            finally:
                channel.close()

    def _pump(self, client: socket.socket, channel: paramiko.Channel) -> None:
        sources: list[socket.socket | paramiko.Channel] = [client, channel, self._stop]
        while client in sources or channel in sources:
            ready, _, _ = select.select(sources, [], [])
            if self._stop in ready:
                return
            if client in ready:
                data = client.recv(_CHUNK)
                if data:
                    channel.sendall(data)
                else:
                    sources.remove(client)
                    channel.shutdown_write()
            if channel in ready:
                data = channel.recv(_CHUNK)
                if data:
                    client.sendall(data)
                else:
                    sources.remove(channel)
                    client.shutdown(socket.SHUT_WR)
