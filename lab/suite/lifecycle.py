"""A guest's reboot, stop, save and restore, with what the lab has to look at again after it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TypeVar

from lab.core.deadline import Deadline, NotYet, wait_for
from lab.core.errors import DeadlineExpired, DriverFailure, GuestCrashed
from lab.core.journal import verb
from lab.place.place import Place, config_in_dom0
from lab.xen.domain import Domain

IMAGE = "/var/lib/pvlab/saved"
"""Where a saved guest is, in dom0."""

# How often the place is looked at while its guest is awaited, in s: dom0 needs a second or two
# for an answer when it is emulated.
_LOOK_SECONDS = 20.0

T = TypeVar("T")


@verb
def reboot(place: Place, deadline: Deadline) -> None:
    """Restart the guest from inside and wait until it answers.

    Raises:
        DriverFailure: it did not go down, or did not come back.
        LabBroken: dom0 failed.
    """
    before = place.domain
    place.guest.channel.run("shutdown /r /t 0 /f", deadline)

    def back() -> Domain:
        found = place.toolstack.find(before.name, deadline)
        if found is None or found.domid == before.domid:
            raise NotYet("the old domain" if found else "no domain")
        return found

    _await_guest(place, "the guest to restart", back, deadline)


@verb
def power_off(place: Place, deadline: Deadline) -> None:
    """Stop the guest from inside and wait until its domain has shut down.

    Raises:
        DriverFailure: it did not.
        LabBroken: dom0 failed.
    """
    domain = place.domain
    place.guest.channel.run("shutdown /s /t 0 /f", deadline)

    def off() -> None:
        found = place.toolstack.find(domain.name, deadline)
        if found is not None and not found.shut_down:
            raise NotYet(f"state {found.state}")

    try:
        wait_for("the guest to stop", _watched(place, off, deadline), deadline, interval=0.5)
    except DeadlineExpired as error:
        raise DriverFailure(f"the guest was told to shut down: {error.message}") from error


@verb
def start(place: Place, deadline: Deadline) -> None:
    """Start the guest's domain anew, after it ended, and wait until it answers.

    Raises:
        DriverFailure: it did not come up.
        LabBroken: dom0 failed.
    """
    made = place.toolstack.create(place.access.config_in_dom0, deadline)

    def there() -> Domain:
        found = place.toolstack.find(made.name, deadline)
        if found is None:
            raise NotYet("no domain")
        return found

    _await_guest(place, "the guest to start", there, deadline)


@verb
def start_with(place: Place, settings: Mapping[str, int], deadline: Deadline) -> None:
    """Stop the guest from inside, and start it again with other settings; it then answers.

    Args:
        place: whose guest.
        settings: numbers of the domain's configuration (xl.cfg(5), xmdomain.cfg(5)), by key.
        deadline: for all of it.

    Raises:
        DriverFailure: it did not go down, or did not come back.
        LabBroken: dom0 failed.
    """
    power_off(place, deadline)
    # It was told to stay, so that its end can be looked at.
    place.toolstack.destroy(place.domain, deadline)
    changed = f"/run/{place.domain.name}.cfg"
    keys = "|".join(settings)
    place.dom0.run(
        f"grep -vE {shlex.quote(f'^({keys}) *=')} {config_in_dom0(place.domain.name)} > {changed}; "
        + "; ".join(f"echo '{key} = {value}' >> {changed}" for key, value in settings.items()),
        deadline,
        check=True,
    )
    started = place.toolstack.create(changed, deadline)
    _await_guest(place, "the guest to start", lambda: started, deadline)


@verb
def save(place: Place, deadline: Deadline) -> None:
    """Save the guest to a file in dom0, which ends its domain.

    Raises:
        DriverFailure: the guest did not suspend.
        LabBroken: dom0 failed.
    """
    place.dom0.run("mkdir -p /var/lib/pvlab", deadline)
    place.toolstack.save(place.domain, IMAGE, deadline)


@verb
def restore(place: Place, deadline: Deadline) -> None:
    """Bring a saved guest back and wait until it answers.

    Raises:
        DriverFailure: it did not come back to life.
        LabBroken: dom0 failed.
    """
    before = place.domain
    place.toolstack.restore(IMAGE, deadline)

    def back() -> Domain:
        found = place.toolstack.find(before.name, deadline)
        if found is None:
            raise NotYet("no domain")
        return found

    _await_guest(place, "the guest to be restored", back, deadline)
    place.dom0.run(f"rm -f {IMAGE}", deadline)


@verb
def migrate(place: Place, deadline: Deadline) -> None:
    """Migrate the guest, live, to the host that it is on, and wait until it answers.

    Raises:
        DriverFailure: the guest did not suspend, or did not come back to life.
        LabBroken: dom0 failed.
    """
    before = place.domain
    place.toolstack.migrate_here(before, deadline)

    def moved() -> Domain:
        found = place.toolstack.find(before.name, deadline)
        if found is None or found.domid == before.domid:
            raise NotYet("the old domain" if found else "no domain")
        return found

    _await_guest(place, "the guest to arrive", moved, deadline)


def _await_guest(place: Place, what: str, back: Callable[[], Domain], deadline: Deadline) -> None:
    place.guest.channel.close(Deadline(0.0))
    try:
        back = _watched(place, back, deadline)
        place.domain = wait_for(f"{what}: its domain", back, deadline, interval=0.5)
        place.guest.crash.log_anew()
        answers = _watched(place, lambda: _answers(place, deadline), deadline)
        wait_for(f"{what}: an answer", answers, deadline, interval=0.5)
    except DeadlineExpired as error:
        raise DriverFailure(f"{error.message}") from error
    # What the guest printed on its way here belongs to the restart.
    place.guest.crash.mark(deadline)


def _watched(place: Place, probe: Callable[[], T], deadline: Deadline) -> Callable[[], T]:
    """A probe that gives up when the place breaks: nobody restarts a guest in it."""
    next_look = Deadline(_LOOK_SECONDS)

    def watched() -> T:
        nonlocal next_look
        try:
            return probe()
        except NotYet:
            if next_look.expired:
                place.check(deadline)
                next_look = Deadline(_LOOK_SECONDS)
            raise

    return watched


def _answers(place: Place, deadline: Deadline) -> None:
    if not place.guest.crash.retired:
        # A guest that stays where it crashed, as behind a blue screen, is running for Xen.
        place.guest.crash.raise_if_seen(deadline)
    found = place.toolstack.find(place.domain.name, deadline)
    if found is None or found.crashed:
        seen = place.guest_serial(deadline)
        raise GuestCrashed("the guest crashed on its way", evidence=tuple(seen.splitlines()[-20:]))
    place.domain = found
    if not place.guest.channel.alive(deadline.at_most(5.0)):
        raise NotYet(f"domain {found.domid}, state {found.state}, WinRM silent")
