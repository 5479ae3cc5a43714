"""The end of a night: the digest is written, told, and the night is closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lab.core.atomic import atomic_write
from lab.core.errors import LabBroken
from lab.nightly.digest import Digest, as_html, as_text
from lab.nightly.history import digest_of
from lab.nightly.notify import post, send_mail
from lab.nightly.prepare import mail_of, webhook_of
from lab.nightly.work import LOGS
from lab.results.store import Store, close_plan, get_plan

TEXT_NAME = "digest.txt"
HTML_NAME = "digest.html"


def end_night(
    store: Store,
    plan: str,
    results: Path,
    *,
    not_run: Mapping[str, str],
    say: Callable[[str], None],
    told: bool = True,
) -> Digest:
    """End a night.

    It is told before it is closed: killed in between, it is told twice rather than never.

    Args:
        store: with the night, of which nothing runs any more.
        plan: its name.
        results: the results folder.
        not_run: why items are still pending, by key.
        say: told in lines what happens.
        told: whether to mail and post the digest.

    Raises:
        UsageError: there is no such night, or an item of it is running.
        LabBroken: the digest cannot be written, or the store cannot be used.
    """
    digest = digest_of(store, plan, not_run=not_run)
    folder = results / LOGS / plan
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / TEXT_NAME, as_text(digest).encode("utf-8", "backslashreplace"))
        # From the night's folder to the runs', which are two levels up.
        page = as_html(digest, base="../../")
        atomic_write(folder / HTML_NAME, page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise LabBroken(f"{folder}: cannot be written: {error.strerror}") from None
    if told:
        for trouble in tell(store, plan, digest):
            say(trouble)
    close_plan(store, plan)
    return digest


def tell(store: Store, plan: str, digest: Digest) -> list[str]:
    """Mail and post a digest, where the night says to.

    Returns:
        What went wrong, in lines.
    """
    night = get_plan(store, plan)
    settings = night.settings if night else {}
    troubles = []
    mail, webhook = mail_of(settings), webhook_of(settings)
    text = as_text(digest)
    if mail is not None and (digest.news or not mail.only_news):
        url = settings.get("results_url") or None
        page = as_html(digest, base=f"{url.rstrip('/')}/" if url else None)
        troubles.append(send_mail(mail, f"pvlab: {digest.headline}", text, page))
    if webhook is not None and (digest.news or not webhook.only_news):
        troubles.append(post(webhook, text))
    return [trouble for trouble in troubles if trouble]
