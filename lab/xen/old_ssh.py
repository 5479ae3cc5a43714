"""SSH as servers of 2007 speak it: SHA-1 throughout, which paramiko no longer offers.

OpenSSH 4.3 (Enterprise Linux 5) has no key exchange, host key or signature without SHA-1
(RFC 4253, sections 6.6 and 8; RFC 4419). Only a host whose image says ``ssh = "sha1"`` is
talked to like this, over the loopback; nothing of it is offered to any other.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Any, ClassVar

import paramiko
from cryptography.hazmat.primitives import hashes
from paramiko.kex_gex import KexGexSHA256
from paramiko.kex_group14 import KexGroup14SHA256

_RSA = "ssh-rsa"


class Sha1RsaKey(paramiko.RSAKey):
    """An RSA key that may be signed with by SHA-1."""

    # paramiko means no class to add to this one; nothing else adds the hash of old.
    HASHES = {**paramiko.RSAKey.HASHES, _RSA: hashes.SHA1}  # type: ignore[misc]  # noqa: RUF012


class KexGroup14Sha1(KexGroup14SHA256):
    """``diffie-hellman-group14-sha1`` (RFC 4253, section 8.2)."""

    name = "diffie-hellman-group14-sha1"
    hash_algo = sha1


class KexGroupExchangeSha1(KexGexSHA256):
    """``diffie-hellman-group-exchange-sha1`` (RFC 4419, section 4.1)."""

    name = "diffie-hellman-group-exchange-sha1"
    hash_algo = sha1
    # Larger groups cost an emulated processor seconds, and protect nothing here.
    max_bits = 2048


_KEX = {one.name: one for one in (KexGroup14Sha1, KexGroupExchangeSha1)}


class OldTransport(paramiko.Transport):
    """A transport that speaks SHA-1 and nothing else, so that nobody takes it by accident."""

    # Group exchange costs a round trip more, and the server's file of primes may be missing.
    _preferred_kex = tuple(_KEX)
    _kex_info: ClassVar[dict[str, Any]] = dict(_KEX)
    _preferred_keys = (_RSA,)
    _preferred_pubkeys = (_RSA,)
    _key_info: ClassVar[dict[str, Any]] = {_RSA: Sha1RsaKey}
    _preferred_ciphers = ("aes128-ctr", "aes128-cbc", "3des-cbc")
    _preferred_macs = ("hmac-sha1", "hmac-md5")
