from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from wsman import FakeCmd, Responder, WsmanServer

from lab.core.deadline import Deadline
from lab.guest.channel import Channel

PASSWORD = "secret"


@pytest.fixture
def deadline() -> Deadline:
    return Deadline(30)


@pytest.fixture
def serve() -> Iterator[Callable[[Responder], WsmanServer]]:
    servers: list[WsmanServer] = []

    def start(respond: Responder) -> WsmanServer:
        servers.append(WsmanServer(respond))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def connect() -> Iterator[Callable[..., Channel]]:
    channels: list[Channel] = []

    def make(server: WsmanServer, password: str = PASSWORD, **options: float) -> Channel:
        channel = Channel(
            "127.0.0.1", server.port, "Administrator", password, name="virtdemo", **options
        )
        channels.append(channel)
        return channel

    yield make
    for channel in channels:
        channel.close(Deadline(2))


@pytest.fixture
def cmd() -> FakeCmd:
    return FakeCmd()


@pytest.fixture
def server(serve: Callable[[Responder], WsmanServer], cmd: FakeCmd) -> WsmanServer:
    return serve(cmd)


@pytest.fixture
def channel(server: WsmanServer, connect: Callable[..., Channel]) -> Channel:
    return connect(server)
