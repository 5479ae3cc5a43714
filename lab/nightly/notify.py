"""Telling people: mail through SMTP, and a webhook as Slack's.

A night is not lost because nobody could be told: what goes wrong is returned in words.
"""

from __future__ import annotations

import os
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import requests

from lab.nightly.matrix import Mail, Webhook

SECONDS = 30.0
"""How long a server may take to answer."""

SLACK_LIMIT = 39_000
"""Slack cuts messages off after 40 000 characters (its reference of chat.postMessage, "Truncating
content")."""


_MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def send_mail(mail: Mail, subject: str, text: str, html: str) -> str:
    """Mail the digest, as text with HTML beside it.

    Returns:
        What went wrong, in one line; empty when the server took it.
    """
    message = EmailMessage()
    message["Subject"] = " ".join(subject.split())
    message["From"] = mail.sender
    message["To"] = ", ".join(mail.to)
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = make_msgid(domain=mail.sender.rpartition("@")[2].rstrip("> ") or None)
    # Nobody is to answer "out of office" to a machine (RFC 3834, 5.).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    password = os.environ.get(mail.password_env, "")
    if mail.user and not password:
        return f"no mail: {mail.password_env}, the password of {mail.user}, is not set"
    try:
        with _connect(mail) as server:
            if mail.user:
                server.login(mail.user, password)
            refused = server.send_message(message)
    except (OSError, smtplib.SMTPException) as error:
        return f"no mail: {mail.host}:{mail.port}: {_words(error)}"
    return f"no mail to {', '.join(sorted(refused))}: refused" if refused else ""


def post(webhook: Webhook, text: str) -> str:
    """Post the digest.

    Returns:
        What went wrong, in one line that does not hold the URL; empty when it was taken.
    """
    url = os.environ.get(webhook.url_env, "")
    if not url:
        return f"no webhook: {webhook.url_env} is not set"
    try:
        answer = requests.post(
            url, json={"text": slack_text(text)}, timeout=SECONDS, allow_redirects=False
        )
    except requests.RequestException as error:
        # Its text has the URL, which is a secret.
        return f"no webhook: {type(error).__name__}"
    if not answer.ok or answer.is_redirect:
        said = " ".join(answer.text[:200].split())
        return f"no webhook: it answered {answer.status_code} {said}".rstrip()
    return ""


def slack_text(text: str) -> str:
    """Text in which Slack sees no mark-up ("Formatting text for app surfaces", Escaping), no
    longer than it shows."""
    escaped = ""
    for character in text:
        escaped += _MARKUP.get(character, character)
        if len(escaped) > SLACK_LIMIT:
            return f"{escaped}\n..."
    return escaped


def _connect(mail: Mail) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if mail.security == "tls":
        return smtplib.SMTP_SSL(mail.host, mail.port, timeout=SECONDS, context=context)
    server = smtplib.SMTP(mail.host, mail.port, timeout=SECONDS)
    if mail.security == "starttls":
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
    return server


def _words(error: Exception) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        text = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        return " ".join(f"{error.smtp_code} {text}".split())
    return " ".join(str(error).split())[:200] or type(error).__name__
