"""The HTTP routes: the page, rows, answers, images, progress. All behind jobs.keying.guard, which checks the token.

    GET  /                        the page                    GET  /progress           the page of progress
    POST /begin                   {name} -> {tab}             GET  /figures            what it shows
    POST /next                    {tab, count}                GET  /image/RANK/VIEW    crop, around or whole
    POST /answer                  {tab, id, row, kind, …}     POST /suggest            {beginning} -> {words}
    POST /undo                    {tab, id, answer}           POST /write              the tables, now
    POST /leave                   {tab}

What can't be done is answered by 409 and {refused: a word}; a body that is not what it should be by 400.
"""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from htr.lines.normalise import RejectedInput
from jobs.cli.console import log
from jobs.keying.guard import Guard
from jobs.keying.lexicon import Lexicon
from jobs.keying.pictures import VIEWS, Pictures
from jobs.keying.session import Refused, Session

STATIC = Path(__file__).parent / "static"
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript",
         ".svg": "image/svg+xml"}  # fmt: skip
MAX_ROWS_PER_REQUEST = 8  # that a page asks for at once
PICTURE_THREADS = 2


class Malformed(ValueError):
    """The request's body is not the JSON that it should be."""


class Server:
    """`figures`: gives what progress shows; `write`: writes the tables, and returns how many. Both run in threads,
    beside the event loop."""

    def __init__(
        self,
        session: Session,
        pictures: Pictures,
        lexicon: Lexicon,
        figures: Callable[[], dict],
        write: Callable[[], int],
    ):
        self.session, self.pictures, self.lexicon = session, pictures, lexicon
        self.figures, self.write_tables = figures, write
        self.threads = ThreadPoolExecutor(PICTURE_THREADS, "picture")

    def app(self, token: str) -> Guard:
        routes = [
            Route("/", self.file("review.html")),
            Route("/progress", self.file("progress.html")),
            *(Route(f"/{path.name}", self.file(path.name)) for path in STATIC.iterdir() if path.suffix != ".html"),
            Route("/figures", self.show_figures),
            Route("/image/{row:int}/{view:str}", self.image),
            *(Route(f"/{name}", self.posted(getattr(self, name)), methods=["POST"])
              for name in ("begin", "next", "answer", "undo", "suggest", "write", "leave")),
        ]  # fmt: skip
        return Guard(Starlette(routes=routes), token)

    # ------------------------------------------------------------------------------------------ what is got

    def file(self, name: str) -> Callable:
        content, kind = (STATIC / name).read_bytes(), KINDS[Path(name).suffix]

        async def send(_: Request) -> Response:
            return Response(content, media_type=kind)

        return send

    async def image(self, request: Request) -> Response:
        row, view = request.path_params["row"], request.path_params["view"]
        if view not in VIEWS:
            return Response(status_code=404)
        try:
            number, own = self.session.place(row)
        except Refused:
            return Response(status_code=404)
        table = self.session.tables[number]

        def make() -> tuple[bytes, str]:
            return self.pictures.make(table.images, table.row(own), view, table.of_fields)

        try:
            content, kind = await asyncio.get_running_loop().run_in_executor(self.threads, make)
        except (RejectedInput, OSError):  # a missing scan is a fault of one row, not of the server
            return Response(status_code=404)
        return Response(content, media_type=kind)

    async def show_figures(self, _: Request) -> Response:
        return JSONResponse(await asyncio.get_running_loop().run_in_executor(None, self.figures))

    # ------------------------------------------------------------------------------------------ what is posted

    def posted(self, handle: Callable) -> Callable:
        async def send(request: Request) -> Response:
            try:
                body = json.loads(await request.body())
                if not isinstance(body, dict):
                    raise Malformed("not an object")
                return JSONResponse(await handle(body))
            except Refused as refused:
                return JSONResponse({"refused": refused.reason}, 409)
            except OSError:  # the disk: nothing that was not acknowledged counts
                return JSONResponse({"refused": "disk"}, 503)
            except (ValueError, RecursionError):
                return Response(status_code=400)

        return send

    async def begin(self, body: dict) -> dict:
        return {"tab": self.session.begin(text_of(body, "name")), **self.left()}

    async def next(self, body: dict) -> dict:
        return {"rows": self.session.next(text_of(body, "tab"), self.how_many(body)), **self.left()}

    async def answer(self, body: dict) -> dict:
        given = {"id": id_of(body), "row": number_of(body, "row"), "seconds": number_of(body, "seconds", 0, float)}
        given |= {"kind": text_of(body, "kind")} | {name: text_of(body, name, "") for name in ("text", "note")}
        done = self.session.answer(text_of(body, "tab"), **given)
        await asyncio.wrap_future(done)
        rows = self.session.next(text_of(body, "tab"), self.how_many(body))
        if self.session.done == self.session.total:
            asyncio.get_running_loop().run_in_executor(None, self.write_quietly)
        return {"rows": rows, **self.left()}

    async def undo(self, body: dict) -> dict:
        item, done = self.session.undo(text_of(body, "tab"), id=id_of(body), answer=text_of(body, "answer", ""))
        await asyncio.wrap_future(done)
        return {"item": item, **self.left()}

    async def suggest(self, body: dict) -> dict:
        self.session.operator(text_of(body, "tab"))
        return {"words": self.lexicon.suggest(text_of(body, "beginning")[:100])}

    async def write(self, _: dict) -> dict:
        try:
            return {"tables": await asyncio.get_running_loop().run_in_executor(None, self.write_tables)}
        except ValueError:
            raise Refused("changed") from None

    def write_quietly(self) -> None:
        """Write the tables when all rows are done. A failure is reported, and it is tried again when the server
        ends."""
        try:
            self.write_tables()
        except (ValueError, OSError) as error:
            log(f"review: the tables are not written yet ({error})")

    async def leave(self, body: dict) -> dict:
        self.session.leave(text_of(body, "tab"))
        return {}

    def how_many(self, body: dict) -> int:
        return min(max(number_of(body, "count", 0), 0), MAX_ROWS_PER_REQUEST)

    def left(self) -> dict:
        return {"total": self.session.total, "done": self.session.done, "in_hands": self.session.queue.in_hands}


def text_of(body: dict, name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise Malformed(f"{name} is no text")
    return value


def id_of(body: dict) -> str:
    value = text_of(body, "id")
    if not (value.isascii() and value.isalnum() and 16 <= len(value) <= 64):
        raise Malformed("id is not 16 to 64 letters and digits")
    return value


def number_of(body: dict, name: str, default: float | None = None, kind: type = int):
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, kind)) or not -1e15 < value < 1e15:
        raise Malformed(f"{name} is no number")
    return value
