"""Put page, gate and queue together, and serve them."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aizheimer._imports import require
from aizheimer.errors import AizheimerError, InputError
from aizheimer.studio.gate import App, Gate
from aizheimer.studio.jobs import JobQueue
from aizheimer.studio.orders import NOBODY, Studio
from aizheimer.studio.shelf import Shelf
from aizheimer.studio.uploads import MOST_BYTES

SHORTEST_PASSWORD = 8
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def serve(
    models: Sequence[str],
    *,
    root: Path,
    host: str = "127.0.0.1",
    port: int = 7860,
    auth: str | None = None,
    say: Callable[[str], None],
) -> None:
    """Serve the studio until it is interrupted.

    Args:
        models: What visitors may choose from.
        root: The folder of all that they make.
        host: Address to bind.
        port: Port to bind; 0 takes a free one.
        auth: ``"user:password"``; needed unless ``host`` is loopback.
        say: Told the address when the page is there.

    Raises:
        InputError: A public address without a password, or a password that is none.
        MissingDependencyError: Gradio is not installed.
        AizheimerError: The port is taken.
    """
    login = login_of(auth, host=host)
    uvicorn = require("uvicorn", extra="studio")
    require("gradio", extra="studio")
    bound = _bound(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"
    queue, shelf = JobQueue(), Shelf(models)
    try:
        app = build_app(Studio(shelf=shelf, queue=queue, root=root), host=host, auth=login)
        queue.submit(NOBODY, lambda _: {"loaded": shelf.backbone(shelf.names[0]).family}, kind="load", title="loading")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2))
        logging.getLogger("uvicorn.error").addFilter(_PagesLeftOpen())
        say(address)
        server.run(sockets=[bound])
    finally:
        queue.close()
        bound.close()


class _PagesLeftOpen(logging.Filter):
    """Drops what the server says of pages that are still open when it is stopped: that is no error."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a record is shown."""
        cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
        return not cancelled and "timeout graceful shutdown exceeded" not in str(record.msg)


def build_app(studio: Studio, *, host: str = "127.0.0.1", auth: tuple[str, str] | None = None) -> App:
    """Return the whole studio as an ASGI application.

    Args:
        studio: What is behind the page.
        host: The address it will be bound to: on loopback it answers to no other name.
        auth: User and password.
    """
    studio.root.mkdir(parents=True, exist_ok=True)
    # Gradio reads these when it is imported, or when a page is built: no word to anybody, and files in one place.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(studio.root.resolve())
    gr = require("gradio", extra="studio")
    from aizheimer.studio.page import build_page, look

    page: Any = build_page(studio)
    page.queue(default_concurrency_limit=4, max_size=200)
    app = require("fastapi", extra="studio").FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=host,
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,
        max_file_size=MOST_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        **look(gr),
    )
    return Gate(app=app, root=studio.root, auth=auth, hosts=_LOOPBACK if is_loopback(host) else None)


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("")
        (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def login_of(auth: str | None, *, host: str) -> tuple[str, str] | None:
    """Return user and password.

    Raises:
        InputError: There is none and others could come in, or it is not ``user:password``.
    """
    if auth is None:
        if not is_loopback(host):
            raise InputError(
                f"--host: {host!r} can be reached from other machines; add --auth USER:PASSWORD, or bind 127.0.0.1."
            )
        return None
    user, colon, password = auth.partition(":")
    if not user or not colon or len(password) < SHORTEST_PASSWORD:
        raise InputError(f"--auth: wanted USER:PASSWORD, the password of at least {SHORTEST_PASSWORD} characters.")
    return user, password


def _bound(host: str, port: int) -> Any:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise AizheimerError(f"cannot serve on {host}:{port}: {error.strerror}; choose another --port.") from error
    return bound
