"""Steps of a session streamed by WebSocket, with back-pressure and resumption."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING

import anyio
from fastapi import WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from stcn_tf.web import schemas
from stcn_tf.web.guard import TokenBucket
from stcn_tf.web.sessions import RequestError, Session

if TYPE_CHECKING:
    from stcn_tf.web.app import Service

_MESSAGES_PER_REQUEST = 5.0  # that are as much as a request


async def serve_stream(
    websocket: WebSocket, service: "Service", session_id: str, have: str
) -> None:
    """Serves one connection until either side ends it.

    It is accepted in any case: a browser tells its page no more of one that is not than that.

    Args:
        websocket: not yet accepted.
        service: what is served.
        session_id: of the session, as the client has it.
        have: how many steps the client has, as it has said.
    """
    await websocket.accept()
    try:
        session = service.sessions.find(session_id)
        if not (have.isascii() and have.isdigit() and len(have) < 10):
            raise RequestError(422, f"have: {have}; accepted: a number of steps")
        session.take(int(have))
        session.stream = mark = object()  # an earlier stream of the session ends
        session.notify()
        await _serve(websocket, service, session, mark)
    except WebSocketDisconnect:
        pass
    except RequestError as error:
        # Of 123 bytes at most.
        reason = str(error).encode()[:120].decode(errors="ignore")
        await websocket.close(4000 + error.status, reason)


async def _serve(websocket: WebSocket, service: "Service", session: Session, mark: object) -> None:
    """Reads and writes until one of them ends."""
    endings: list[Exception] = []
    async with anyio.create_task_group() as group:

        async def run(part: Awaitable[None]) -> None:
            try:
                await part
            except (RequestError, WebSocketDisconnect) as error:
                endings.append(error)
            group.cancel_scope.cancel()

        group.start_soon(run, _read(websocket, service, session))
        group.start_soon(run, _write(websocket, session, mark))
    if endings:
        raise endings[0]


async def _read(websocket: WebSocket, service: "Service", session: Session) -> None:
    """Takes what the client says; too many messages wait in its connection."""
    bucket = TokenBucket(_MESSAGES_PER_REQUEST * service.settings.requests_per_second)
    while True:
        try:
            text = await websocket.receive_text()
        except KeyError as error:  # bytes, of which Starlette says no more
            raise RequestError(422, "message: accepted: JSON as text") from error
        while wait := bucket.take():
            await anyio.sleep(wait)
        try:
            message = schemas.StreamMessage.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "message"
            raise RequestError(422, f"{where}: {first['msg']}") from error
        session.touch()
        if message.have is not None:
            session.take(message.have)
        if message.temperatures is not None:
            session.temperatures = message.temperatures.as_temperatures()
        if message.want is not None:
            if message.want > session.limit:
                raise RequestError(422, f"want: {message.want}; accepted: up to {session.limit}")
            session.wanted = message.want
        if message.pause is not None:
            session.is_paused = message.pause
        session.notify()
        service.scheduler.look(session)


async def _write(websocket: WebSocket, session: Session, mark: object) -> None:
    """Sends steps as they are made, and once for each wish that all of it is there."""
    sent, told = session.have, None
    while True:
        if session.is_closed:
            raise RequestError(404, "the session has ended")
        if session.stream is not mark:
            raise RequestError(409, "the session is streamed by another connection")
        if session.failure:
            raise RequestError(500, session.failure)
        x = session.after(sent)
        if x is not None:
            await websocket.send_json({"type": "steps", "first": sent, "x": x.tolist()})
            sent += x.shape[1]
        elif sent >= session.wanted > 0 and told != session.wanted:
            told = session.wanted
            await websocket.send_json({"type": "end", "made": sent})
        else:
            await session.changed()
