"""The ``xl`` dialect (Xen 4.x)."""

from __future__ import annotations

import json
from typing import Any

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken
from lab.xen.blockspec import BlockSpec
from lab.xen.config import DomainConfig
from lab.xen.errors import NoSuchDomain
from lab.xen.toolstack import DomainRef, Toolstack, ref


class XlToolstack(Toolstack):
    """``xl``."""

    program = "xl"
    has_watches = True
    # LIBXL_HOTPLUG_TIMEOUT (libxl_internal.h, 4.17).
    hotplug_wait_s = 40.0

    def configuration(self, config: DomainConfig) -> str:
        """As xl.cfg(5) has it."""
        return config.for_xl()

    def block_attach_words(self, domain: DomainRef, spec: BlockSpec) -> tuple[str, ...]:
        """One disk specification in keywords (xl-disk-configuration(5)).

        ``target=`` takes the rest of the word, so it comes last.
        """
        # Said outright: left to itself, libxl looks at the path and may choose a qdisk.
        backend = ("backendtype=phy",) if spec.kind == "phy" else ()
        access = {"r": "access=ro", "w": "access=rw"}.get(spec.mode, f"access={spec.mode}")
        words = ("format=raw", f"vdev={spec.vdev}", access, *backend, f"target={spec.path}")
        return ("block-attach", ref(domain), ",".join(words))

    def migrate_here_words(self, domain: DomainRef) -> tuple[str, ...]:
        """With an empty ``-s`` the host is the command that receives (xl(1), "migrate")."""
        return ("migrate", "-s", "", ref(domain), "xl migrate-receive")

    def config(self, domain: DomainRef, deadline: Deadline) -> dict[str, Any]:
        """``domid`` and ``config``, of ``xl list --long``."""
        return parse_long_list(self._run(deadline, "list", "-l", ref(domain)).stdout)


def parse_long_list(text: str) -> dict[str, Any]:
    """The one domain of ``xl list -l NAME``.

    Raises:
        LabBroken: it is not the JSON that xl 4.x prints.
        NoSuchDomain: the list is empty.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise LabBroken(f"xl list -l printed something that is not JSON: {error}") from error
    # One domain by name is printed bare or in a list, depending on the version.
    if isinstance(found, list):
        if not found:
            raise NoSuchDomain("xl list -l printed no domain")
        found = found[0]
    if not isinstance(found, dict):
        raise LabBroken("xl list -l printed JSON, but no domain")
    return found
