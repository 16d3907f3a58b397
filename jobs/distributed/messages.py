"""Messages of the rendezvous: JSON files that are written as a whole, and lines of JSON signed with a token."""

import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

MAX_MESSAGE_BYTES = 65536  # a longer message is not from a rank


def publish(path: Path, content: dict) -> None:
    """Write a JSON file as a whole, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def read(path: Path) -> dict | None:
    """The content of a file of `publish`; None where it is not there or can't be read."""
    with suppress(OSError, ValueError):
        # NFS caches for up to a minute that a file is missing; listing the folder asks the server again
        if path.name in os.listdir(path.parent):
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def sign(token: str, message: dict) -> bytes:
    """A line: the HMAC-SHA256 of the message's JSON in 64 hexadecimal digits, and that JSON."""
    body = json.dumps(message)
    return (hmac.new(token.encode(), body.encode(), hashlib.sha256).hexdigest() + body + "\n").encode()


def check(token: str, line: bytes) -> dict | None:
    """The message of a line of `sign`; None where the signature is wrong."""
    signature, body = line[:64], line[64:].rstrip(b"\n")
    if not hmac.compare_digest(signature, hmac.new(token.encode(), body, hashlib.sha256).hexdigest().encode()):
        return None
    return json.loads(body)
