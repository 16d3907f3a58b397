"""Access control, before any route: token, origin, size. Refusals say nothing, failures are logged without text.

Every path begins with the token of this start. The Host must be this machine's own (a foreign name that resolves to
127.0.0.1 is another site's, DNS rebinding), an Origin that of the page itself, a body small and JSON. Answers are never
stored, and the page may load and send nothing but to here.
"""

import hmac
import sys
import traceback
from collections.abc import Awaitable, Callable

from jobs.cli.console import log

MAX_BODY_BYTES = 64 << 10  # bytes of a body
HOSTS = ("127.0.0.1", "localhost", "[::1]")
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")  # fmt: skip
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """An ASGI application around another one, which sees paths without the token."""

    def __init__(self, app: Callable[..., Awaitable], token: str):
        self.app, self.token = app, token.encode()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        started = False

        async def answer(message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                kept = [(name, value) for name, value in message["headers"] if name.decode().lower() not in HEADERS]
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = message | {"headers": kept + own}
            await send(message)

        refused, path = self.check(scope)
        body = b""
        if not refused and scope["method"] == "POST":
            refused, body = await whole(receive)
        if refused:
            await plain(answer, refused)
            return

        async def given() -> dict:
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await self.app(scope | {"path": path, "raw_path": path.encode(), "query_string": b""}, given, answer)
        except Exception as error:  # a message may quote a text: where it happened says enough
            place = traceback.extract_tb(sys.exc_info()[2])[-1]
            log(f"review: {type(error).__name__} at {place.filename.rsplit('/', 1)[-1]}:{place.lineno}")
            if not started:
                await plain(answer, 500)

    def check(self, scope) -> tuple[int, str]:
        """-> the status that refuses it or 0, the path behind the token."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        raw = scope.get("raw_path") or scope["path"].encode()
        token, slash, path = raw.split(b"?")[0].removeprefix(b"/").partition(b"/")
        if not hmac.compare_digest(token, self.token) or not slash:
            return 403, ""
        [host] = headers.get(b"host", [b""])[:1]
        name, _, port = host.decode("latin-1").rpartition(":")
        if (name if port.isdigit() else host.decode("latin-1")) not in HOSTS or len(headers.get(b"host", [])) != 1:
            return 403, ""
        origins = headers.get(b"origin", [])
        if any(origin != b"http://" + host for origin in origins):
            return 403, ""
        if any(site not in (b"same-origin", b"none") for site in headers.get(b"sec-fetch-site", [])):
            return 403, ""
        if scope["method"] not in ("GET", "POST"):
            return 405, ""
        if scope["method"] == "POST":
            kinds = [kind.split(b";")[0].strip().lower() for kind in headers.get(b"content-type", [])]
            if kinds != [b"application/json"]:  # a form of another site can't send it
                return 415, ""
            length = headers.get(b"content-length", [b"0"])[0]
            if not length.isdigit() or int(length) > MAX_BODY_BYTES:
                return 413, ""
        if not path.isascii() or b"%" in path or b".." in path or b"\\" in path or b"//" in path:
            return 404, ""
        return 0, "/" + path.decode()


async def whole(receive) -> tuple[int, bytes]:
    """-> 413 for more than MAX_BODY_BYTES, else 0; the body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return 400, b""
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            return 413, b""
    return 0, body


async def plain(send, status: int) -> None:
    """A status and nothing else."""
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
