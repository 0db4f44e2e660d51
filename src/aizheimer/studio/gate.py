"""What stands before the page: who may come in, which addresses there are, and whose files are whose."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote

from aizheimer._imports import require
from aizheimer.errors import InputError
from aizheimer.studio.visitors import COOKIE, Visitor, is_token, new_token
from aizheimer.studio.wiring import token_of

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 100_000_000
"""Of one request: all pictures of an upload together."""
_COOKIE_DAYS = 30
_WRONG_PASSWORD_SECONDS = 1.0

_GET = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/(?:assets|static|svelte)/.+"
    r"|/gradio_api/(?:info/?|app_id/?|startup-events|heartbeat/[\w-]+|queue/data|theme\.css|user/?|upload_progress)"
)
_POST = re.compile(r"/gradio_api/(?:run/predict|queue/join|upload|cancel|reset)/?")
"""Addresses of Gradio's that the page needs; its others (proxies, editors, interfaces) are not there."""
_SHOWN = re.compile(r"/gradio_api/file=(.+)")
_OWN = re.compile(r"/studio/(pictures|exports)/([^/]+)")

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """An ASGI application around Gradio's.

    Args:
        app: What is behind it.
        root: The studio's folder.
        auth: User and password that everybody needs; None lets all in, which is for loopback.
        hosts: Names that a browser may know this server by; None for any. On loopback it keeps out pages of other sites
            that have their own name point here.
    """

    app: App
    root: Path
    auth: tuple[str, str] | None = None
    hosts: frozenset[str] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or have the page answer it; see ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # Gradio's page needs no websocket
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        token = token_of(headers.get("cookie", ""))
        known = is_token(token)
        answered = _answering(send, scope, token=None if known or scope["path"] != "/" else new_token())
        refusal = await self._refusal(scope, headers)
        if refusal is not None:
            await _say(answered, *refusal)
            return
        shown = self._file(scope, token)
        if shown is not None:
            file, download = shown
            responses = require("starlette.responses", extra="studio")
            name = {"filename": file.name} if download else {}
            await responses.FileResponse(file, **name)(scope, receive, answered)
            return
        pattern = _POST if scope["method"] == "POST" else _GET
        if pattern.fullmatch(scope["path"]) is None:
            await _say(answered, 404, "There is nothing here.")
            return
        await self.app(scope, receive, answered)

    async def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[Any, ...] | None:
        """Return status, text and headers of a request that must not come in; None lets it."""
        host = headers.get("host", "").rsplit(":", 1)[0].strip("[]").lower()
        if self.hosts is not None and host not in self.hosts:
            return 403, "This studio answers to its own name only."
        if self.auth is not None and not _matches(headers.get("authorization", ""), self.auth):
            if "authorization" in headers:
                await asyncio.sleep(_WRONG_PASSWORD_SECONDS)
            return 401, "Name and password, please.", {"www-authenticate": 'Basic realm="aizheimer studio"'}
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Only GET and POST."
        if scope["method"] == "POST":
            length = headers.get("content-length", "")
            if not length.isdecimal():
                return 411, "How long is it?"
            if int(length) > MOST_BYTES:
                return 413, f"At most {MOST_BYTES // 1_000_000} MB at once."
        return None

    def _file(self, scope: Scope, token: str | None) -> tuple[Path, bool] | None:
        """Return the visitor's own file that is asked for, and whether it is to be saved; None if none is."""
        if scope["method"] == "POST" or token is None:
            return None
        try:
            visitor = Visitor.of(token, root=self.root)
            if own := _OWN.fullmatch(scope["path"]):
                return visitor.file(own[1], own[2]), own[1] == "exports"
        except InputError:
            return None
        if shown := _SHOWN.fullmatch(scope["path"]):
            file = Path(unquote(shown[1]))
            if file.suffix == ".png" and visitor.owns(file) and file.is_file():
                return file, False
        return None


def _matches(header: str, auth: tuple[str, str]) -> bool:
    """Whether a header holds this user and password; takes as long for wrong ones."""
    kind, _, encoded = header.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    wanted = ":".join(auth).encode()
    return kind.lower() == "basic" and hmac.compare_digest(given, wanted)


def _answering(send: Send, scope: Scope, *, token: str | None) -> Send:
    """Return ``send`` with our headers, and with the visitor's cookie if there is a new one."""
    extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
    if token is not None:
        secure = "; Secure" if scope.get("scheme") == "https" else ""
        age = _COOKIE_DAYS * 24 * 3600
        cookie = f"{COOKIE}={token}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"
        extra.append((b"set-cookie", cookie.encode()))

    async def answered(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return answered


async def _say(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    lines = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
    encoded = [(name.encode(), value.encode()) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": text.encode()})
