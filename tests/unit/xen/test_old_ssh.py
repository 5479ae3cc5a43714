"""dom0 of Enterprise Linux 5: an SSH server that knows nothing without SHA-1."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import paramiko
import pytest

from lab.core.deadline import Deadline
from lab.core.errors import LabBroken, UsageError
from lab.xen.dom0 import Dom0
from lab.xen.old_ssh import KexGroup14Sha1, KexGroupExchangeSha1, OldTransport, Sha1RsaKey

SSHD = shutil.which("sshd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("user", "host"):
        words = ["-t", "rsa", "-b", "2048", "-m", "PEM", "-f", str(folder / name)]
        subprocess.run(["ssh-keygen", "-q", "-N", "", *words], check=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-t", "ed25519", "-f", str(folder / "other")], check=True
    )
    return folder


class Door(paramiko.ServerInterface):
    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED


@contextmanager
def old_server(keys: Path) -> Iterator[tuple[int, list[paramiko.Transport]]]:
    """paramiko on the other side, with what OpenSSH 4.3 has."""
    transports: list[paramiko.Transport] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            transport = OldTransport(client)
            transport.add_server_key(Sha1RsaKey.from_private_key_file(str(keys / "host")))
            transports.append(transport)
            try:
                transport.start_server(server=Door())
            except (paramiko.SSHException, EOFError, OSError):
                continue

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], transports
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for transport in transports:
                transport.close()


def host_key(keys: Path) -> paramiko.PKey:
    return paramiko.RSAKey.from_private_key_file(str(keys / "host"))


def test_an_old_server_is_talked_to(keys: Path) -> None:
    with (
        old_server(keys) as (port, transports),
        Dom0(
            "127.0.0.1", port, "root", keys / "user", host_key=host_key(keys), old_server=True
        ) as dom0,
    ):
        dom0.connect(Deadline(60))
        assert dom0.connected
        assert transports[0].host_key_type == "ssh-rsa"


def test_nothing_of_it_is_offered_to_another(keys: Path) -> None:
    with (
        old_server(keys) as (port, _),
        Dom0("127.0.0.1", port, "root", keys / "other") as dom0,
        pytest.raises(LabBroken, match="did not answer"),
    ):
        dom0.connect(Deadline(1))
    options = paramiko.Transport
    assert not [one for one in options._preferred_kex if one.endswith("sha1")]
    assert "ssh-rsa" not in options._preferred_keys
    assert "ssh-rsa" not in paramiko.RSAKey.HASHES


def test_another_machine_s_key(keys: Path) -> None:
    other = paramiko.Ed25519Key.from_private_key_file(str(keys / "other"))
    with (
        old_server(keys) as (port, _),
        Dom0("127.0.0.1", port, "root", keys / "user", host_key=other, old_server=True) as dom0,
        pytest.raises(LabBroken, match="is not this lab's dom0"),
    ):
        dom0.connect(Deadline(60))


def test_a_key_that_such_a_server_cannot_use(keys: Path) -> None:
    dom0 = Dom0("127.0.0.1", 1, "root", keys / "other", old_server=True)
    with pytest.raises(UsageError, match="cannot use the key"):
        dom0.connect(Deadline(1))


@pytest.mark.skipif(not SSHD, reason="no OpenSSH server here")
@pytest.mark.parametrize("kex", [KexGroup14Sha1.name, KexGroupExchangeSha1.name])
def test_openssh_told_to_be_old(keys: Path, tmp_path: Path, kex: str) -> None:
    """Another implementation than paramiko, with each exchange alone."""
    assert SSHD
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    for file in ("user.pub", "host"):
        shutil.copy(keys / file, tmp_path / file)
    options = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "user.pub", "StrictModes": "no", "UsePAM": "no",
        "PidFile": "none", "KexAlgorithms": kex, "HostKeyAlgorithms": "ssh-rsa",
        "PubkeyAcceptedAlgorithms": "ssh-rsa", "Ciphers": "aes128-cbc,3des-cbc",
        "MACs": "hmac-sha1",
    }  # fmt: skip
    config = tmp_path / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    if os.geteuid():
        pytest.skip("without root's rights, the account may be locked")
    # OpenSSH needs an account and a folder of its own, and root one that is not locked: all in
    # a mount namespace that ends with the server.
    (tmp_path / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nsshd:x:65534:65534::/run/sshd:/bin/false\n"
    )
    (tmp_path / "shadow").write_text("root:x:19000::::::\nsshd:*:19000::::::\n")
    script = (
        'mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/shadow" /etc/shadow && '
        'mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec "$@"'
    )
    wrap = ["unshare", "--mount", "sh", "-c", script, str(tmp_path)]
    if subprocess.run([*wrap, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no mount namespaces here")
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([*wrap, SSHD, "-D", "-e", "-f", str(config)], stderr=log)
    try:
        key = host_key(keys)
        with Dom0("127.0.0.1", port, "root", keys / "user", host_key=key, old_server=True) as dom0:
            dom0.connect(Deadline(60))
            assert dom0.connected
    finally:
        server.kill()
        server.wait()
