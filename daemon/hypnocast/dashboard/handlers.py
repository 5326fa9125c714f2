"""The handlers of the ward page: pages, server-sent events, pictures, commands."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from collections.abc import AsyncIterator
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from hypnocast import __version__
from hypnocast.core.wire.commands import CatchUp, PageCommand, decode_command
from hypnocast.core.wire.payloads import TopicWord
from hypnocast.core.wire.topics import Topics
from hypnocast.dashboard.auth import Allowance, Gate, Visitor, load_logins
from hypnocast.dashboard.door import address_of
from hypnocast.dashboard.guard import Guard
from hypnocast.dashboard.hub import Hub
from hypnocast.dashboard.pictures import Album, picture_digest, png_of_reply
from hypnocast.dashboard.settings import DashboardSettings
from hypnocast.errors import BrokerError
from hypnocast.ports.mqtt.retire import retire
from hypnocast.ports.supervision import Supervisor

_STATIC = Path(str(files("hypnocast.dashboard") / "static"))


class Login(Struct, frozen=True, forbid_unknown_fields=True):
    """What the login page sends."""

    user: Annotated[str, Meta(max_length=64)]
    password: Annotated[str, Meta(max_length=256)]


class RefusedRequest(Exception):  # noqa: N818 - an answer, not a fault
    """A request that is answered with an error."""

    def __init__(self, status: int, words: str, *, wait_s: int | None = None) -> None:
        """Keep the HTTP status, the answer, and when to try again."""
        super().__init__(words)
        self.status = status
        self.words = words
        self.wait_s = wait_s


class Handlers:
    """The handlers of the ward page, around one hub."""

    def __init__(self, settings: DashboardSettings, supervisor: Supervisor) -> None:
        """Read the settings, and keep who watches; a wrong login file is refused here."""
        self.settings = settings
        self.hub = Hub(settings, supervisor)
        logins = load_logins(Path(settings.users_file)) if settings.users_file else None
        self.gate = Gate(logins, settings.session_s, settings.token)
        self.cookie = "__Host-hypnocast" if settings.secure else f"hypnocast-{self.gate.name}"
        self._album = Album()
        self._logins = Allowance(burst=5, per_s=1 / 60)
        self._commands = Allowance(burst=20, per_s=4.0)
        self._pictures = Allowance(burst=60, per_s=10.0)
        self._one_hash = asyncio.Semaphore(1)
        self.app = self._build()

    def _build(self) -> Starlette:
        routes = [
            Route("/", self.ward_page),
            Route("/bed/{bed}", self.bed_page),
            Route("/login", self.login_page),
            Route("/api/session", self.session),
            Route("/api/login", self.login, methods=["POST"]),
            Route("/api/logout", self.logout, methods=["POST"]),
            Route("/api/ward/live", self.live_ward),
            Route("/api/bed/{bed}/live", self.live_bed),
            Route("/api/bed/{bed}/page", self.newest_page),
            Route("/api/bed/{bed}/page/{epoch:int}", self.past_page),
            Route("/api/bed/{bed}/command", self.command, methods=["POST"]),
            Route("/api/bed/{bed}/retire", self.retire, methods=["POST"]),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ]
        guard = Middleware(
            Guard,
            loopback=self.settings.loopback and not self.settings.secure,
            secure=self.settings.secure,
            patience_s=self.settings.patience_s,
        )
        app = Starlette(
            routes=routes,
            middleware=[guard],
            exception_handlers={RefusedRequest: _answer_refusal, BrokerError: _answer_broker},
            lifespan=self._lifespan,
        )
        app.state.hub = self.hub
        return app

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self.hub.start()
        try:
            yield
        finally:
            await self.hub.stop()

    # --- pages ---------------------------------------------------------------------------

    async def ward_page(self, request: Request) -> Response:
        """Serve the ward."""
        return self._page(request, "ward.html")

    async def bed_page(self, request: Request) -> Response:
        """Serve the page of one bed."""
        _bed(request)
        return self._page(request, "bed.html")

    async def login_page(self, request: Request) -> Response:
        """Ask for user and password, or for the token; go on with whoever is let in already."""
        if self._visitor(request) is not None:
            return RedirectResponse("/", HTTPStatus.SEE_OTHER)
        name = "login.html" if self.gate.needs_login else "token.html"
        return FileResponse(_STATIC / name, headers={"cache-control": "no-store"})

    def _page(self, request: Request, name: str) -> Response:
        path = quote(request.url.path, safe="/")
        if self.gate.fits(request.query_params.get("token", "")):
            # On to the address without the token, so that none is bookmarked, shown or copied.
            answer: Response = RedirectResponse(path, HTTPStatus.SEE_OTHER)
            self._give_cookie(answer, self.gate.open(None))
            return answer
        if self._visitor(request) is None:
            return RedirectResponse(f"/login?next={path}", HTTPStatus.SEE_OTHER)
        return FileResponse(_STATIC / name, headers={"cache-control": "no-store"})

    # --- sessions ------------------------------------------------------------------------

    async def session(self, request: Request) -> Response:
        """Give the page who is looking, and the token its commands must carry."""
        visitor = self._may_look(request)
        return _json(
            {
                "user": visitor.user,
                "login": self.gate.needs_login,
                "csrf": visitor.csrf,
                "version": __version__,
            }
        )

    async def login(self, request: Request) -> Response:
        """Check a password and give a session."""
        _same_origin(request)
        login = await _body(request, Login)
        # By address only: who guesses at a name shuts out nobody who comes from elsewhere.
        if not self._logins.spend(_client(request)):
            raise RefusedRequest(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many tries; wait a minute",
                wait_s=self._logins.wait_s(),
            )
        async with self._one_hash:
            fits = await asyncio.to_thread(self.gate.check, login.user, login.password)
        if not fits:
            raise RefusedRequest(HTTPStatus.FORBIDDEN, "user or password is wrong")
        answer = _json({"ok": True})
        self._give_cookie(answer, self.gate.open(login.user))
        return answer

    async def logout(self, request: Request) -> Response:
        """End the session."""
        self._may_act(request)
        self.gate.close(request.cookies[self.cookie])
        answer = _json({"ok": True})
        answer.delete_cookie(self.cookie, path="/", secure=self.settings.secure, httponly=True)
        return answer

    def _visitor(self, request: Request) -> Visitor | None:
        return self.gate.visitor(request.cookies.get(self.cookie))

    def _may_look(self, request: Request) -> Visitor:
        visitor = self._visitor(request)
        if visitor is None:
            words = "log in first" if self.gate.needs_login else "open the page by its token first"
            raise RefusedRequest(HTTPStatus.UNAUTHORIZED, words)
        return visitor

    def _may_act(self, request: Request) -> None:
        """Let through only what this site's own page sent for a visitor with a session."""
        _same_origin(request)
        visitor = self._visitor(request)
        if visitor is None:
            raise RefusedRequest(HTTPStatus.UNAUTHORIZED, "no session; load the page again")
        token = request.headers.get("x-csrf-token", "")
        if not _equal(token, visitor.csrf):
            raise RefusedRequest(HTTPStatus.FORBIDDEN, "the token against forged requests is wrong")

    def _give_cookie(self, answer: Response, cookie: str) -> None:
        answer.set_cookie(
            self.cookie,
            cookie,
            max_age=int(self.settings.session_s),
            path="/",
            secure=self.settings.secure,
            httponly=True,
            samesite="strict",
        )

    # --- what is going on ------------------------------------------------------------------

    async def live_ward(self, request: Request) -> Response:
        """Stream the ward's cards as they change."""
        return self._stream(request, None)

    async def live_bed(self, request: Request) -> Response:
        """Stream everything about one bed as it changes."""
        return self._stream(request, _bed(request))

    def _stream(self, request: Request, only: str | None) -> Response:
        self._may_look(request)
        if self.hub.full:
            raise RefusedRequest(
                HTTPStatus.SERVICE_UNAVAILABLE, "too many pages are open", wait_s=10
            )
        cookie = request.cookies.get(self.cookie)
        return StreamingResponse(
            self.hub.stream(only, while_=lambda: self.gate.visitor(cookie) is not None),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    # --- pictures --------------------------------------------------------------------------

    async def newest_page(self, request: Request) -> Response:
        """Serve the retained picture of a bed."""
        self._may_look(request)
        bed = self.hub.ward.beds.get(_bed(request))
        if bed is None or bed.page is None:
            raise RefusedRequest(HTTPStatus.NOT_FOUND, "no page is retained for this bed")
        return _png(bed.page)

    async def past_page(self, request: Request) -> Response:
        """Ask the bed's daemon for the picture of any page of the session."""
        self._may_look(request)
        bed = _bed(request)
        epoch = int(request.path_params["epoch"])
        session = request.query_params.get("session", "")
        kept = self._album.get(bed, session, epoch)
        if kept is not None:
            return _png(kept)
        if not self._pictures.spend(_client(request)):
            raise RefusedRequest(HTTPStatus.TOO_MANY_REQUESTS, "too many pages at once", wait_s=1)
        wanted = {"request": request.query_params.get("request", ""), "epoch": epoch}
        try:
            command = msgspec.convert(
                {**wanted, "session": session, "command": "page"}, PageCommand
            )
        except msgspec.ValidationError as error:
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, str(error)) from None
        reply = await self.hub.ask(bed, command)
        if not reply.ok or reply.png is None:
            raise RefusedRequest(HTTPStatus.NOT_FOUND, reply.error or "the daemon has no such page")
        png = png_of_reply(reply.png, f"bed {bed}")
        self._album.put(bed, session, epoch, png)
        return _png(png)

    # --- commands --------------------------------------------------------------------------

    async def command(self, request: Request) -> Response:
        """Send a command to a bed and answer with its reply."""
        bed = self._bed_to_act_on(request)
        try:
            command = decode_command(await request.body())
        except msgspec.DecodeError as error:
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, f"not a command: {error}") from None
        if isinstance(command, CatchUp | PageCommand):
            raise RefusedRequest(HTTPStatus.BAD_REQUEST, "this command is not sent from here")
        reply = await self.hub.ask(bed, command)
        return _json(reply)

    async def retire(self, request: Request) -> Response:
        """Take a bed that nobody serves any more off every screen."""
        bed = self._bed_to_act_on(request)
        root, _, site = self.settings.prefix.rpartition("/")
        return _json({"cleared": await retire(self.settings.broker, Topics(site, root), bed)})

    def _bed_to_act_on(self, request: Request) -> str:
        """Return the bed of a request that this site's own page sent, and not too many of them."""
        self._may_act(request)
        bed = _bed(request)
        if not self._commands.spend(_client(request)):
            raise RefusedRequest(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many commands at once",
                wait_s=self._commands.wait_s(),
            )
        _json_only(request)
        return bed


# --- answers -----------------------------------------------------------------------------------


def _bed(request: Request) -> str:
    try:
        return msgspec.convert(request.path_params["bed"], TopicWord)
    except msgspec.ValidationError:
        raise RefusedRequest(HTTPStatus.NOT_FOUND, "not a bed") from None


def _client(request: Request) -> str:
    return address_of(request.client.host) if request.client is not None else "unknown"


def _same_origin(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is None or urlsplit(origin).netloc != request.headers.get("host"):
        raise RefusedRequest(HTTPStatus.FORBIDDEN, "the request comes from another site")


def _json_only(request: Request) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")


async def _body(request: Request, kind: type[Login]) -> Login:
    _json_only(request)
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.DecodeError as error:
        raise RefusedRequest(HTTPStatus.BAD_REQUEST, str(error)) from None


def _equal(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(), right.encode())


def _json(data: object, status: int = HTTPStatus.OK) -> Response:
    return Response(
        msgspec.json.encode(data),
        status,
        media_type="application/json",
        headers={"cache-control": "no-store"},
    )


def _png(png: bytes) -> Response:
    headers = {"cache-control": "no-store"}
    with contextlib.suppress(ValueError):
        headers["x-picture-digest"] = picture_digest(png)
    return Response(png, media_type="image/png", headers=headers)


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedRequest)  # noqa: S101 - registered for nothing else
    answer = _json({"error": error.words}, error.status)
    if error.wait_s is not None:
        answer.headers["retry-after"] = str(error.wait_s)
    return answer


async def _answer_broker(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, HTTPStatus.BAD_GATEWAY)
