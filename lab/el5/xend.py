"""``xend-config.sxp`` (tools/examples/xend-config.sxp, Xen 3.0.3 and 3.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping

# sxp.py reads a word up to a blank, a quote or a parenthesis.
_PLAIN = re.compile(r"[A-Za-z0-9_./:-]+")


def xend_config(*, dom0_mib: int) -> str:
    """xend's configuration.

    The bridge is the system's own, so that xend's network script does not rename interfaces
    under the lab's connection. Relocation is open to this host itself: a migration to itself
    is how live migration is tested.

    Args:
        dom0_mib: dom0 is not shrunk below this for guests, in MiB.
    """
    settings: Mapping[str, str | int] = {
        "xend-http-server": "no",
        "xend-unix-server": "yes",
        "xend-unix-xmlrpc-server": "yes",
        "xend-relocation-server": "yes",
        "xend-relocation-port": 8002,
        "xend-relocation-address": "localhost",
        "xend-relocation-hosts-allow": r"^localhost$ ^localhost\.localdomain$ ^127\.0\.0\.1$",
        "network-script": "network-dummy",
        "vif-script": "vif-bridge bridge=xenbr0",
        "dom0-min-mem": dom0_mib,
        "dom0-cpus": 0,
        # A crash of a domain that the hypervisor is told of leaves a core: xend.py of lab.xen.
        "enable-dump": "yes",
        "vnc-listen": "127.0.0.1",
    }
    return "".join(f"({name} {_word(value)})\n" for name, value in settings.items())


def _word(value: str | int) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else f"'{text}'"
