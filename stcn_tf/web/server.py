"""Listens, and stops cleanly."""

import asyncio
import gc
import ipaddress
import socket
from collections.abc import Collection

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stcn_tf.support.errors import UserError
from stcn_tf.web.guard import LOOPBACK

_MOST_MESSAGE_BYTES = 2**16
_SECONDS_TO_STOP = 3


def listen(host: str, port: int) -> socket.socket:
    """A socket that nobody else has; before the model is loaded, which takes long.

    Args:
        host: a name or address of this machine.
        port: 0: any that is free.

    Raises:
        UserError: there is no such address, or the port is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UserError(f"--host={host}: {error.strerror}; accepted: an address here") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise UserError(
            f"--host={host} --port={port}: {error.strerror}; accepted: a free port of this "
            "machine, or 0 for any"
        ) from error
    return listener


def names_of(host: str, others: Collection[str]) -> set[str]:
    """The names under which a service may be asked for that listens on a host."""
    return {host, *others, *LOOPBACK}


def is_open(listener: socket.socket) -> bool:
    """Whether other machines may reach it."""
    return not ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


class Stoppable:
    """Answers requests that are still open when the service has waited long enough to stop.

    They are cancelled then, of which the server would tell as of a fault of the application.

    Args:
        app: what is served.
    """

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        has_begun = False

        async def sent(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except asyncio.CancelledError:
            if scope["type"] == "http" and not has_begun:
                stopping = JSONResponse({"detail": "the service is stopping"}, 503)
                await stopping(scope, receive, send)


def config_of(app: ASGIApp) -> uvicorn.Config:
    """How an application is served: quietly, and to no proxies."""
    return uvicorn.Config(
        Stoppable(app),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=_MOST_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_SECONDS_TO_STOP,
    )


def run(app: ASGIApp, listener: socket.socket) -> None:
    """Serves until the process is asked to stop.

    Raises:
        KeyboardInterrupt: by SIGINT, once all is closed.
    """
    # What there is now stays. Else the many objects of a large request would have all of it, which
    # with TensorFlow is much, looked through for garbage again and again.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config_of(app)).run(sockets=[listener])
