from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from lab.nightly.matrix import Mail, Webhook
from lab.nightly.notify import post, send_mail


class Mailbox:
    """What an SMTP server was given."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.refuse = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.refuse:
            return self.refuse
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


class OnAnyPort(Controller):
    """A server at a port that the kernel picks, which its own first client has to know."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


def login(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"lab", b"s3cret")
    return AuthResult(success=good, handled=False)


@pytest.fixture
def smtp(mailbox: Mailbox) -> Iterator[int]:
    """Port of an SMTP server on loopback that asks who is there."""
    controller = OnAnyPort(
        mailbox,
        hostname="127.0.0.1",
        port=0,
        authenticator=login,
        auth_require_tls=False,
        auth_exclude_mechanism=["LOGIN"],
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def mail(port: int, **fields: Any) -> Mail:
    said = {
        "host": "127.0.0.1",
        "port": port,
        "security": "none",
        "from": "pvlab@example.org",
        "to": ["a@example.org", "b@example.org"],
    }
    return Mail.model_validate(said | fields)


def test_a_mail_has_both_forms(smtp: int, mailbox: Mailbox) -> None:
    assert send_mail(mail(smtp), "pvlab: 1 new failure", "text \u2717\n", "<b>page</b>\n") == ""
    [message] = mailbox.messages
    assert message["Subject"] == "pvlab: 1 new failure"
    assert message["To"] == "a@example.org, b@example.org"
    assert message["Message-ID"].endswith("@example.org>")
    forms = {part.get_content_type(): part.get_content() for part in message.iter_parts()}
    assert forms["text/plain"].strip() == "text \u2717"
    assert forms["text/html"].strip() == "<b>page</b>"


def test_the_password_comes_from_the_environment(
    smtp: int, mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = mail(smtp, user="lab", password_env="OURS")
    monkeypatch.delenv("OURS", raising=False)
    assert send_mail(account, "s", "t", "h") == "no mail: OURS, the password of lab, is not set"
    monkeypatch.setenv("OURS", "wrong")
    trouble = send_mail(account, "s", "t", "h")
    assert trouble.startswith(f"no mail: 127.0.0.1:{smtp}: 535")
    assert "wrong" not in trouble
    assert not mailbox.messages
    monkeypatch.setenv("OURS", "s3cret")
    assert send_mail(account, "s", "t", "h") == ""
    assert len(mailbox.messages) == 1


def test_a_server_that_refuses_is_told_of(smtp: int, mailbox: Mailbox) -> None:
    mailbox.refuse = "552 mailbox full"
    assert send_mail(mail(smtp), "s", "t", "h") == f"no mail: 127.0.0.1:{smtp}: 552 mailbox full"


def test_a_server_without_encryption_gets_no_mail_that_asks_for_it(
    smtp: int, mailbox: Mailbox
) -> None:
    trouble = send_mail(mail(smtp, security="starttls"), "s", "t", "h")
    assert "STARTTLS" in trouble
    assert not mailbox.messages


def test_no_server(mailbox: Mailbox) -> None:
    assert send_mail(mail(unused_port()), "s", "t", "h").startswith("no mail: 127.0.0.1:")


def unused_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Hook:
    """A webhook.

    Attributes:
        url: of it.
        got: what was posted.
        status: what it answers.
    """

    url: str = ""
    got: list[Any] = field(default_factory=list)
    status: int = 200


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(made.status)
            if made.status == 302:
                self.send_header("Location", made.url)
            self.end_headers()
            self.wfile.write(b"invalid_token" if made.status >= 400 else b"ok")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}/services/T0/B0/secret"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


def test_a_webhook_gets_what_slack_takes(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVLAB_WEBHOOK", hook.url)
    assert post(Webhook(), "a <b> & c\n") == ""
    assert hook.got == [("application/json", {"text": "a &lt;b&gt; &amp; c\n"})]


def test_a_long_digest_is_cut(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PVLAB_WEBHOOK", hook.url)
    assert post(Webhook(), "&" * 50_000) == ""
    assert len(hook.got[0][1]["text"]) <= 40_000
    assert hook.got[0][1]["text"].endswith("&amp;\n...")


@pytest.mark.parametrize("status", [403, 500, 302])
def test_a_webhook_that_refuses_is_told_of_without_its_url(
    hook: Hook, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", hook.url)
    hook.status = status
    trouble = post(Webhook(url_env="OURS"), "text")
    assert trouble.startswith(f"no webhook: it answered {status}")
    assert "secret" not in trouble
    assert len(hook.got) == 1


def test_no_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PVLAB_WEBHOOK", raising=False)
    assert post(Webhook(), "text") == "no webhook: PVLAB_WEBHOOK is not set"
    monkeypatch.setenv("PVLAB_WEBHOOK", f"http://127.0.0.1:{unused_port()}/secret")
    assert post(Webhook(), "text") == "no webhook: ConnectionError"
    monkeypatch.setenv("PVLAB_WEBHOOK", "hooks.example.org/secret")
    assert post(Webhook(), "text") == "no webhook: MissingSchema"
