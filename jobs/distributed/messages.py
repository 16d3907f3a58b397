"""What ranks that meet write and say: JSON files that are whole or not there, and lines that a token signs."""

import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

MAX_MESSAGE_BYTES = 65536  # bytes of a message; more comes from a stranger


def publish(path: Path, content: dict) -> None:
    """Write a JSON file that is either whole or not there, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)


def read(path: Path) -> dict | None:
    with suppress(OSError, ValueError):
        # NFS remembers for up to a minute that a file is not there; a listing of the folder asks the server again
        if path.name in os.listdir(path.parent):
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def sign(token: str, message: dict) -> bytes:
    body = json.dumps(message)
    return (hmac.new(token.encode(), body.encode(), hashlib.sha256).hexdigest() + body + "\n").encode()


def check(token: str, line: bytes) -> dict | None:
    """The message of a signed line, None if it is not ours."""
    signature, body = line[:64], line[64:].rstrip(b"\n")
    if not hmac.compare_digest(signature, hmac.new(token.encode(), body, hashlib.sha256).hexdigest().encode()):
        return None
    return json.loads(body)
