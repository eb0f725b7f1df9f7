"""What stands before the service: whose requests are let in, and how often; and headers.

The service has no accounts: whoever reaches it may use it. By default that is this machine alone.
But a page of any site, open in a browser on this machine, reaches it too. So a request must be
addressed to a name of the service (else a foreign name could be pointed at it: DNS rebinding), and
what a browser sends for a page of another site is refused, WebSockets included.
"""

import asyncio
import time
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# A page may load from here alone, and nobody may put it into another one.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_MOST_ADDRESSES = 10_000


class TokenBucket:
    """How often something may be done: `rate` a second, twice as often at once.

    Args:
        rate: per second.
    """

    def __init__(self, rate: float):
        self._rate = rate
        self._most = max(2.0 * rate, 1.0)
        self._tokens = self._most
        self._at = time.monotonic()

    def take(self) -> float:
        """Takes one: 0, or the seconds until there is one, and then none is taken."""
        now = time.monotonic()
        self._tokens = min(self._tokens + (now - self._at) * self._rate, self._most)
        self._at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0

    @property
    def is_full(self) -> bool:
        """Whether nothing would be forgotten with it."""
        return self._tokens + (time.monotonic() - self._at) * self._rate >= self._most


class BodyLimits(NamedTuple):
    """Of a request: while it is parsed, nobody else is served; while it comes, it is kept."""

    most_bytes: int
    most_parts: int  # brackets and commas, of which few bytes hold many
    seconds: float  # in which it must arrive

    @property
    def told(self) -> str:
        """Why another one is refused."""
        return (
            f"the request is too large; accepted: up to {self.most_bytes} bytes, in them "
            f"{self.most_parts} brackets and commas"
        )


class Guard:
    """Lets in what may come in.

    Args:
        app: what it stands before.
        names: under which the service may be asked for.
        requests_per_second: of one address, pages not counted.
        limits: of what is sent.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: Collection[str],
        requests_per_second: float,
        limits: BodyLimits,
    ):
        self._app = app
        self._limits = limits
        self._names = {name.lower() for name in names}
        self._rate = requests_per_second
        self._buckets: dict[str, TokenBucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        is_http = scope["type"] == "http"
        refusal = self._refusal(scope)
        if refusal is not None:
            if is_http:
                send = _with_headers(send)
            # Of a WebSocket too: before it is accepted, it is a request that may be answered.
            await _Refusal(*refusal)(scope, receive, send)
            return
        if is_http:
            receive, send = self._limited(receive), _with_headers(send)
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str, float] | None:
        """Status, reason and seconds until it may go better, if it is not let in."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name_of(host) not in self._names:
            accepted = ", ".join(sorted(self._names))
            return 421, f"Host: {host!r} is no name of this service; accepted: {accepted}", 0.0
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return 403, "pages of other sites may not use this service", 0.0
        if site not in ("none", "same-origin") and headers.get("sec-fetch-mode") != "navigate":
            return 403, "pages of other sites may not use this service", 0.0
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._limits.most_bytes:
            return 413, self._limits.told, 0.0
        if scope["path"].startswith("/api/"):
            wait = self._bucket((scope.get("client") or ("",))[0]).take()
            if wait:
                return 429, f"too many requests, {self._rate:g} a second are accepted", wait
        return None

    def _limited(self, receive: Receive) -> Receive:
        """Ends a body that is longer than it may be, or takes longer, before it is parsed."""
        limits, num_bytes, num_parts = self._limits, 0, 0
        deadline: float | None = asyncio.get_running_loop().time() + limits.seconds

        async def received() -> Message:
            nonlocal num_bytes, num_parts, deadline
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                told = f"the request has not arrived; accepted: within {limits.seconds:g} s"
                raise HTTPException(408, told, {"Connection": "close"}) from None
            if not message.get("more_body", False):
                deadline = None  # what comes after it is only that the client leaves
            body = message.get("body", b"")
            num_bytes += len(body)
            num_parts += body.count(b"[") + body.count(b",")
            if num_bytes > limits.most_bytes or num_parts > limits.most_parts:
                raise HTTPException(413, limits.told)
            return message

        return received

    def _bucket(self, address: str) -> TokenBucket:
        if address not in self._buckets:
            if len(self._buckets) >= _MOST_ADDRESSES:
                self._buckets = {k: b for k, b in self._buckets.items() if not b.is_full}
            self._buckets[address] = TokenBucket(self._rate)
        return self._buckets[address]


class _Refusal(JSONResponse):
    def __init__(self, status: int, message: str, retry_seconds: float):
        super().__init__({"detail": message}, status, retry_after(retry_seconds or None))


def retry_after(seconds: float | None) -> dict[str, str]:
    """The header that says so; none for None."""
    return {} if seconds is None else {"Retry-After": str(max(1, round(seconds + 0.5)))}


def _name_of(host: str) -> str:
    """The name in a Host header, lower case, without port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sent
