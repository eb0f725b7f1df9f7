"""The service: a model's sessions, scores and reconstructions over HTTP, and its page.

`GET /openapi.json` documents all of it; there is no page of documentation, which would be loaded
from elsewhere.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Collection, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import FastAPI, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from stcn_tf.web import lettering, measures, schemas
from stcn_tf.web.engine import MOST_DEVIATIONS, Engine
from stcn_tf.web.guard import BodyLimits, Guard, retry_after
from stcn_tf.web.scheduler import Scheduler
from stcn_tf.web.sessions import RequestError, Session, Sessions
from stcn_tf.web.settings import ServeSettings
from stcn_tf.web.streams import serve_stream

T = TypeVar("T")
PAGE = Path(__file__).parent / "page"
_ABOUT = """\
Sequences are in the raw units of the records: a step is one number for each of the features that
`GET /api/model` lists (handwriting: dx to the right, dy upwards, pen 1 on the last point of a
stroke). A session is some sequences that go on together; the same seed and beginnings give the same
steps, whoever else is served.

Steps are streamed by WebSocket, `/api/sessions/{id}/stream?have=N`, N being the steps that the
client has, 0 at first; where the connection is lost, the same address goes on. The client sends
JSON as `StreamMessage`: {"want": 600} asks for steps, {"have": 40} says which have arrived: the
service makes no more than `limits.ahead` steps beyond those. It answers with `Steps`, at the end
with {"type": "end", "made": N}. It closes with the code 4000 + S, S being the HTTP status of what
is wrong, and the reason."""


class Service:
    """What the routes share.

    Args:
        engine: the model.
        settings: the limits.
    """

    def __init__(self, engine: Engine, settings: ServeSettings):
        modality = engine.card.modality
        # Images are always whole.
        self.most_steps = modality.height * modality.width or None
        if self.most_steps:
            settings = dataclasses.replace(
                settings, max_beginning=self.most_steps, max_steps=self.most_steps
            )
        self.engine = engine
        self.settings = settings
        self.sessions = Sessions(settings.max_sessions, settings.idle_seconds)
        self.scheduler = Scheduler(engine, settings.rows_at_once)
        card = engine.card
        is_handwriting = card.modality.kind == "handwriting"
        self.model = schemas.ModelOf(
            dataset=card.name,
            features=[
                schemas.FeatureOf(**vars(feature), mean=mean, std=std)
                for feature, mean, std in zip(
                    card.features, card.normalization.mean, card.normalization.std, strict=True
                )
            ],
            modality=schemas.ModalityOf(**vars(card.modality)),
            layers=engine.num_layers,
            usual_length=_usual_length(card),
            writing=measures.of_writing(engine) if is_handwriting else None,
            limits=schemas.LimitsOf(
                **{name: getattr(settings, name) for name in schemas.LimitsOf.model_fields}
            ),
        )
        # Brackets and commas of a request of as many numbers as are accepted; the rest is names.
        row = settings.max_beginning * (card.num_features + 1) + 2
        self.most_parts = settings.max_rows * row + 100

    def sequence(self, steps: list[list[float]], where: str) -> np.ndarray:
        """A given sequence, [steps, features] float32.

        Raises:
            RequestError: it is too long, of another width, or of values that no record has.
        """
        card = self.engine.card
        most = self.settings.max_beginning
        if len(steps) > most:
            raise RequestError(422, f"{where}: {len(steps)} steps; accepted: up to {most}")
        for number, step in enumerate(steps):
            if len(step) != card.num_features:
                raise RequestError(
                    422,
                    f"{where}: step {number} has {len(step)} numbers; accepted: "
                    f"{card.num_features}, one for each feature",
                )
        x = np.array(steps, np.float64).reshape(len(steps), card.num_features)
        good = self.engine.deviations(x) <= MOST_DEVIATIONS
        for index, feature in enumerate(card.features):
            accepted = f"values within {MOST_DEVIATIONS:g} standard deviations"
            if feature.kind == "binary":
                good[:, index] = (x[:, index] == 0) | (x[:, index] == 1)
                accepted = "0, 1"
            if not good[:, index].all():
                step = int(np.argmin(good[:, index]))
                raise RequestError(
                    422,
                    f"{where}: step {step} has {feature.name} {x[step, index]:g}; accepted: "
                    f"{accepted}",
                )
        return x.astype(np.float32)

    async def begin(self, asked: schemas.Beginnings, ahead: int | None = None) -> Session:
        """A session after the beginnings that are asked for."""
        settings = self.settings
        rows = asked.rows * len(asked.beginnings)
        if rows > settings.max_rows:
            raise RequestError(
                422,
                f"beginnings, rows: {rows} continuations; accepted: up to {settings.max_rows}",
            )
        given = [
            self.sequence(steps, f"beginnings.{number}")
            for number, steps in enumerate(asked.beginnings)
        ]
        given = [each for each in given for _ in range(asked.rows)]
        temperatures = asked.temperatures.as_temperatures()
        state = await self.scheduler.call(self.engine.begin, given, asked.seed, temperatures.latent)
        limit = settings.max_steps
        if self.most_steps:
            limit = min(limit, self.most_steps - max(map(len, given)))
        return Session(state, temperatures, len(given), limit, ahead or settings.ahead)

    async def continued(self, asked: schemas.Continuation) -> schemas.Sequences:
        """What continues beginnings, by a session that nobody else knows of."""
        session = await self.begin(asked, ahead=asked.length)
        try:
            await self.made_up_to(session, asked.length)
            return schemas.Sequences(x=session.after(0).tolist())
        finally:
            session.close()

    async def made_up_to(self, session: Session, want: int) -> None:
        """Waits until so many steps of a session are made.

        Raises:
            RequestError: it failed, or ended, or its stream has stopped it.
        """
        if want > session.limit:
            raise RequestError(
                422, f"{want} steps in all; accepted: up to {session.limit} after these beginnings"
            )
        session.wanted = max(session.wanted, want)
        self.scheduler.look(session)
        while session.made < want:
            if session.failure:
                raise RequestError(500, session.failure)
            if session.is_closed:
                raise RequestError(404, "the session has ended")
            if session.is_paused or session.wanted < want:
                raise RequestError(409, "the session's stream has paused or stopped it")
            await session.changed()


def create(engine: Engine, settings: ServeSettings, names: Collection[str]) -> FastAPI:
    """The service as an ASGI application.

    Args:
        engine: the model; of handwriting it writes a little here.
        settings: the limits.
        names: under which the service may be asked for.
    """
    service = Service(engine, settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(service.scheduler.run()), asyncio.create_task(_sweep(service))]
        yield
        for task in tasks:
            task.cancel()
        for session in service.sessions:
            service.sessions.end(session)
        service.scheduler.close()

    app = FastAPI(
        title="stcn_tf",
        description=_ABOUT,
        version="1",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses={
            status: {"model": schemas.Problem, "description": text}
            for status, text in (
                (400, "the request cannot be read"),
                (403, "the request comes from a page of another site"),
                (404, "there is no such session, or it has ended"),
                (408, "the request did not arrive in time"),
                (409, "the session's stream, or what its client has, does not allow it"),
                (413, "the request is too large"),
                (421, "the request is for another host"),
                (422, "the request is not accepted"),
                (429, "too many requests"),
                (500, "the model or the service failed"),
                (503, "too much to do, or the service is stopping"),
            )
        },
    )
    app.state.service = service
    app.openapi = lambda: _openapi(app)
    _add_routes(app, service)
    _add_errors(app)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    app.add_middleware(
        Guard,
        names=names,
        requests_per_second=settings.requests_per_second,
        limits=BodyLimits(
            int(settings.max_body_mib * 2**20), service.most_parts, settings.body_seconds
        ),
    )
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    sessions, scheduler, engine = service.sessions, service.scheduler, service.engine

    @app.get("/api/model")
    async def model() -> schemas.ModelOf:
        """What is served, and what is accepted."""
        return service.model

    @app.get("/api/status")
    async def status() -> schemas.Status:
        """How busy the service is."""
        return schemas.Status(
            sessions=len(sessions), steps_made=scheduler.steps_made, calls=scheduler.calls
        )

    @app.post("/api/sessions", status_code=201)
    async def begin(asked: schemas.Beginnings) -> schemas.SessionState:
        """Begins a session, one sequence for each beginning."""
        sessions.reserve()
        try:
            session = await service.begin(asked)
        except BaseException:
            sessions.release()
            raise
        sessions.add(session)
        return _state_of(session)

    @app.get("/api/sessions/{session_id}")
    async def look(session_id: str) -> schemas.SessionState:
        """How far a session is."""
        return _state_of(sessions.find(session_id))

    @app.delete("/api/sessions/{session_id}", status_code=204)
    async def end(session_id: str) -> Response:
        """Ends a session."""
        sessions.end(sessions.find(session_id))
        return Response(status_code=204)

    @app.post("/api/sessions/{session_id}/steps")
    async def step(session_id: str, wish: schemas.Wish) -> schemas.Steps:
        """The next steps of a session; asked again with the same `have`, the same ones."""
        session = sessions.find(session_id)
        if wish.count > session.ahead:
            raise RequestError(422, f"count: {wish.count}; accepted: 1 to {session.ahead}")
        session.take(wish.have)
        if wish.temperatures is not None:
            session.temperatures = wish.temperatures.as_temperatures()
        await service.made_up_to(session, wish.have + wish.count)
        x = session.after(wish.have)
        return schemas.Steps(first=wish.have, x=x[:, : wish.count].tolist())

    @app.websocket("/api/sessions/{session_id}/stream")
    async def stream(websocket: WebSocket, session_id: str, have: str = "0") -> None:
        await serve_stream(websocket, service, session_id, have)

    @app.post("/api/continue")
    async def go_on(asked: schemas.Continuation, request: Request) -> schemas.Sequences:
        """Continues beginnings in one request; nothing more is made where its client leaves."""
        sessions.reserve()
        try:
            return await _while_there(request, service.continued(asked))
        finally:
            sessions.release()

    @app.post("/api/score")
    async def score(given: schemas.Given) -> schemas.ScoreOf:
        """Scores a sequence: likelihood and KL of each layer, for each step."""
        x = service.sequence(given.x, "x")
        terms = await scheduler.call(engine.score, x, given.seed, given.latent_temperature)
        _require_finite(*terms)
        return schemas.ScoreOf(
            log_likelihood=terms.log_likelihood.tolist(), kl=terms.kl.tolist(), elbo=terms.elbo
        )

    @app.post("/api/reconstruct")
    async def reconstruct(given: schemas.Given) -> schemas.Reconstruction:
        """Reconstructs a sequence from its latents."""
        x = service.sequence(given.x, "x")
        rebuilt = await scheduler.call(engine.reconstruct, x, given.seed, given.latent_temperature)
        _require_finite(rebuilt)
        return schemas.Reconstruction(x=rebuilt.tolist())

    @app.get("/api/lettering")
    async def letter(
        text: Annotated[str, Query(min_length=1, max_length=lettering.MOST_CHARACTERS)],
    ) -> schemas.Lettering:
        """A text as strokes: a beginning for those without a pen."""
        if strange := sorted(set(text) - set(lettering.ACCEPTED)):
            raise RequestError(
                422, f"text: {strange[0]!r} has no strokes here; accepted: letters of English"
            )
        return schemas.Lettering(strokes=lettering.strokes_of(text))


async def _while_there(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Does some work, or gives it up when the client leaves.

    Raises:
        RequestError: it has left.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.create_task(work), asyncio.create_task(left())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0] not in done:
            raise RequestError(499, "the client has left")
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description, with what OpenAPI has no place for: the messages of a stream."""
    if app.openapi_schema is None:
        content = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        message = schemas.StreamMessage.model_json_schema(
            ref_template="#/components/schemas/{model}"
        )
        message.pop("$defs")  # which are there already
        content["components"]["schemas"]["StreamMessage"] = message
        app.openapi_schema = content
    return app.openapi_schema


def _add_errors(app: FastAPI) -> None:
    """Every mistake is answered alike: {"detail": one sentence}."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return _problem(error.status, str(error), retry_after(error.retry_seconds))

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _problem(422, f"{where or 'request'}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return _problem(500, "the service failed; its log says why")


def _problem(status: int, message: str, headers: Any = None) -> Response:
    return JSONResponse({"detail": message}, status, headers)


def _require_finite(*values: Any) -> None:
    if not all(np.isfinite(value).all() for value in values):
        raise RequestError(422, "x: the model's values for it are not finite")


def _state_of(session: Session) -> schemas.SessionState:
    names = schemas.SessionState.model_fields
    return schemas.SessionState(**{name: getattr(session, name) for name in names})


def _usual_length(card: Any) -> int:
    lengths = [split.length_quantiles.get("0.5", 1) for split in card.splits.values()]
    return max(lengths, default=600)


async def _sweep(service: Service) -> None:
    while True:
        await asyncio.sleep(min(1.0, service.settings.idle_seconds / 4))
        service.sessions.end_idle()
