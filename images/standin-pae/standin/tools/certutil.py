"""certutil.exe: -encode, -decode and -hashfile.

Source: "Certutil" in the Server 2003 command-line reference; the base64 files have the
certificate header lines and 64 characters a line, as CryptBinaryToString
(CRYPT_STRING_BASE64HEADER) writes them.
"""

import binascii
import os

from standin.errors import win32_code, win32_text

#: hashlib names of the algorithms -hashfile takes.
HASHES = {"MD5": "md5", "SHA1": "sha1", "SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}

_VERBS = {"encode": 2, "decode": 2, "hashfile": 1}


def run(ctx):
    """``certutil [-f] -encode|-decode IN OUT`` and ``certutil -hashfile FILE [ALGORITHM]``."""
    force = False
    verb = None
    names = []
    for word in ctx.args:
        if word[:1] in "-/" and len(word) > 1:
            option = word[1:].lower()
            if option == "f":
                force = True
            elif option in _VERBS and verb is None:
                verb = option
            elif option == "v":
                pass
            else:
                return _fail(ctx, None, 0x80070057, f"Unknown arg: {word}")
        else:
            names.append(word)
    if verb is None:
        return _fail(ctx, None, 0x80070057, "Missing command")
    low, high = _VERBS[verb], 2
    if not low <= len(names) <= high:
        word = "Too many arguments" if len(names) > high else "Expected at least " + str(low)
        return _fail(ctx, None, 0x80070057, word)
    try:
        return _hash(ctx, names) if verb == "hashfile" else _convert(ctx, verb, names, force)
    except OSError as error:
        code = win32_code(error)
        return _fail(ctx, verb, 0x80070000 | code, win32_text(error), f"WIN32: {code}")


def _fail(ctx, verb, hresult, text, facility="WIN32: 87"):
    """Print a failure; the exit code is the HRESULT, a negative number."""
    if verb is None:
        ctx.out(f"{text}\n\nCertUtil: The parameter is incorrect.\n")
    else:
        ctx.out(
            f"CertUtil: -{verb} command FAILED: 0x{hresult:08x} ({facility})\nCertUtil: {text}\n"
        )
    return hresult - (1 << 32)


def _empty(ctx, verb):
    """The real tool maps its input file, which cannot be done with an empty one."""
    return _fail(
        ctx,
        verb,
        0x800703EE,
        "The volume for a file has been externally altered so that the opened file is no longer "
        "valid.",
        "WIN32: 1006",
    )


def _convert(ctx, verb, names, force):
    source, target = (ctx.path(name) for name in names)
    with open(source, "rb") as file:
        data = file.read()
    if not data:
        return _empty(ctx, verb)
    if os.path.exists(target) and not force:
        return _fail(ctx, verb, 0x80070050, "The file exists.", "WIN32: 80")
    if verb == "encode":
        result = encode(data)
    else:
        try:
            result = decode(data)
        except binascii.Error:
            return _fail(ctx, verb, 0x8007000D, "The data is invalid.", "WIN32: 13")
    with open(target, "wb") as file:
        file.write(result)
    ctx.out(f"Input Length = {len(data)}\nOutput Length = {len(result)}\n")
    ctx.out(f"CertUtil: -{verb} command completed successfully.\n")
    return 0


def encode(data):
    """Bytes as base64 with header lines."""
    text = binascii.b2a_base64(data, newline=False)
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\r\n".join([b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""])


def decode(data):
    """The bytes in base64 text, with or without header lines.

    Raises:
        binascii.Error: it is not base64.
    """
    lines = data.replace(b"\r", b"").split(b"\n")
    body = b"".join(line.strip() for line in lines if not line.startswith(b"-----"))
    return binascii.a2b_base64(body, strict_mode=True) if body else b""


def _hash(ctx, names):
    import hashlib

    label = names[1].upper() if len(names) > 1 else "SHA1"
    if label not in HASHES:
        return _fail(ctx, "hashfile", 0xD0000225, "The object was not found.", "NT: 0xc0000225")
    digest = hashlib.new(HASHES[label])
    with open(ctx.path(names[0]), "rb") as file:
        digest_input = 0
        while data := file.read(1 << 18):
            ctx.check()
            digest.update(data)
            digest_input += len(data)
    if not digest_input:
        return _empty(ctx, "hashfile")
    text = " ".join(f"{byte:02x}" for byte in digest.digest())
    ctx.out(f"{label} hash of file {names[0]}:\n{text}\n")
    ctx.out("CertUtil: -hashfile command completed successfully.\n")
    return 0
