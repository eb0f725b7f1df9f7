import asyncio
import json
import re
import threading
import time

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from stcn_tf.web import app as web_app
from stcn_tf.web.engine import Engine
from stcn_tf.web.guard import TokenBucket
from stcn_tf.web.sessions import RequestError
from stcn_tf.web.settings import ServeSettings
from tests.web.fake import FakeModel

NAMES = {"localhost", "testserver"}
BEGINNING = [[3.0, -4.0, 0.0], [5.0, 6.0, 1.0]]
STEPS = "/api/sessions/{}/steps"
JSON = {"Content-Type": "application/json"}
STREAM = "/api/sessions/{}/stream"


def served(model: FakeModel | None = None, **settings):
    """A client of a service of its own, which no rate limits."""
    settings = ServeSettings(**{"requests_per_second": 1e6, **settings})
    return TestClient(web_app.create(Engine(model or FakeModel()), settings, NAMES))


@pytest.fixture(scope="module")
def client():
    with served() as client:
        yield client


def session_of(client, **asked) -> str:
    answer = client.post("/api/sessions", json={"beginnings": [BEGINNING, []], "seed": 3, **asked})
    assert answer.status_code == 201
    return answer.json()["id"]


def steps_of(stream, count: int) -> np.ndarray:
    """The next steps of a stream, [rows, count, features]."""
    parts = []
    while sum(part.shape[1] for part in parts) < count:
        message = stream.receive_json()
        assert message["type"] == "steps"
        parts.append(np.array(message["x"]))
    return np.concatenate(parts, axis=1)


def continued(client, length: int, **asked) -> np.ndarray:
    asked = {"beginnings": [BEGINNING, []], "seed": 3, "length": length, **asked}
    answer = client.post("/api/continue", json=asked)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["x"])


def wait_until(holds) -> None:
    deadline = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def posted(app, receive) -> list[dict]:
    """What is answered to a request to continue, of which `receive` gives the body."""
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/api/continue", "raw_path": b""}
    scope |= {"query_string": b"", "headers": headers, "http_version": "1.1", "scheme": "http"}
    answered = []

    async def send(message):
        answered.append(message)

    await app(scope, receive, send)
    return answered


def running(app, work):
    """What a coroutine gives while the tasks of an application run."""

    async def all_of_it():
        async with app.router.lifespan_context(app):
            return await work

    return asyncio.run(all_of_it())


def test_tells_what_is_served_and_what_is_accepted(client):
    model = client.get("/api/model").json()
    assert [feature["name"] for feature in model["features"]] == ["dx", "dy", "pen"]
    assert model["modality"]["kind"] == "handwriting"
    assert model["layers"] == 3
    assert model["usual_length"] == 300
    # Of loops with a radius of 30 and shifted by 14 a step.
    assert 100 < model["writing"]["stroke_height"] < 250
    assert 25 < model["writing"]["step_length"] < 40
    assert model["limits"]["max_rows"] == 4


def test_openapi_describes_all_of_it_and_nothing_is_loaded_from_elsewhere(client):
    content = client.get("/openapi.json").json()
    assert {
        "/api/model",
        "/api/sessions",
        "/api/continue",
        "/api/score",
        "/api/reconstruct",
    } <= set(content["paths"])
    for path, methods in content["paths"].items():
        for method, about in methods.items():
            assert about["summary"] and about["description"], (path, method)
            assert {"400", "403", "404", "408", "409", "413", "421", "429"} <= set(
                about["responses"]
            )
    known = content["components"]["schemas"]
    references = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(content))
    assert {"StreamMessage", "Steps"} | set(references) <= set(known)
    assert "stream?have=" in content["info"]["description"]
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


def test_the_page_is_served_with_its_parts_and_may_load_nothing_else(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self';")
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in web_app.PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        for word in ("http://", "https://", "//cdn"):
            assert word not in text.replace("http://www.w3.org/", ""), path
        assert client.get(f"/{path.name}").status_code == 200
    assert "javascript" in client.get("/app.js").headers["content-type"]
    assert client.get("/..%2f..%2fserve.py").status_code == 404


def test_steps_by_request_by_stream_and_at_once_are_the_same(client):
    at_once = continued(client, 70)
    assert at_once.shape == (2, 70, 3)
    by_request = session_of(client)
    first = client.post(STEPS.format(by_request), json={"have": 0, "count": 40}).json()
    again = client.post(STEPS.format(by_request), json={"have": 0, "count": 40}).json()
    second = client.post(STEPS.format(by_request), json={"have": 40, "count": 30}).json()
    assert first == again
    assert (first["first"], second["first"]) == (0, 40)
    np.testing.assert_array_equal(np.concatenate([first["x"], second["x"]], axis=1), at_once)
    with client.websocket_connect(STREAM.format(session_of(client))) as stream:
        stream.send_json({"want": 60})
        np.testing.assert_array_equal(steps_of(stream, 60), at_once[:, :60])
        assert stream.receive_json() == {"type": "end", "made": 60}
        stream.send_json({"want": 70, "have": 60})
        np.testing.assert_array_equal(steps_of(stream, 10), at_once[:, 60:])


def test_another_seed_and_another_temperature_give_other_steps(client):
    assert (continued(client, 5) != continued(client, 5, seed=4)).any()
    cold = continued(client, 5, temperatures={"temperature": 0})
    np.testing.assert_array_equal(cold[..., 0], 14.0)


def test_temperatures_change_while_a_stream_goes_on(client):
    with client.websocket_connect(STREAM.format(session_of(client))) as stream:
        stream.send_json({"want": 20})
        assert (steps_of(stream, 20)[..., 0] != 14).all()
        stream.send_json({"have": 20, "want": 30, "temperatures": {"temperature": 0}})
        assert stream.receive_json()["type"] == "end"
        assert (steps_of(stream, 10)[..., 0] == 14).all()


def test_steps_that_a_client_has_are_gone_and_no_others_come_in_their_place(client):
    path = STEPS.format(session_of(client))
    assert client.post(path, json={"have": 0, "count": 6}).status_code == 200
    session = next(iter(s for s in client.app.state.service.sessions if s.made == 6))
    session.take(5)  # as another request, or a message of a stream, may say meanwhile
    with pytest.raises(RequestError, match="steps from 0 on are gone: 5 were said") as error:
        session.after(0)
    assert error.value.status == 409
    assert session.after(5).shape[1] == 1


def test_a_request_does_not_wait_for_what_a_stream_has_paused(client):
    session_id = session_of(client)
    with client.websocket_connect(STREAM.format(session_id)) as stream:
        stream.send_json({"pause": True})
        paused = client.app.state.service.sessions.find(session_id)
        wait_until(lambda: paused.is_paused)
        answer = client.post(STEPS.format(session_id), json={"have": 0, "count": 2})
    assert answer.status_code == 409
    assert "paused or stopped" in answer.json()["detail"]


def test_bytes_and_long_reasons_end_a_stream_in_words(client):
    for send, reason in (
        (lambda stream: stream.send_bytes(b"{}"), "message: accepted: JSON as text"),
        (lambda stream: stream.send_text(json.dumps({"\u00e9" * 300: 1})), "\u00e9" * 60),
    ):
        with client.websocket_connect(STREAM.format(session_of(client))) as stream:
            send(stream)
            with pytest.raises(WebSocketDisconnect) as end:
                stream.receive_json()
        assert end.value.code == 4422
        assert end.value.reason == reason


def test_no_more_is_made_than_a_client_can_take():
    with served(ahead=8) as client:
        session = session_of(client)
        with client.websocket_connect(STREAM.format(session)) as stream:
            stream.send_json({"want": 100})
            x = steps_of(stream, 8)
            time.sleep(0.1)
            assert client.get(f"/api/sessions/{session}").json()["made"] == 8
            stream.send_json({"have": 5})
            x = np.concatenate([x, steps_of(stream, 5)], axis=1)
            time.sleep(0.1)
            assert client.get(f"/api/sessions/{session}").json()["made"] == 13
        np.testing.assert_array_equal(x, continued(client, 13))


def test_messages_too_often_wait():
    bucket = TokenBucket(5.0)
    assert [bucket.take() for _ in range(10)] == [0.0] * 10
    assert 0.1 < bucket.take() <= 0.2
    assert not bucket.is_full
    with served(requests_per_second=4) as client:
        with client.websocket_connect(STREAM.format(session_of(client))) as stream:
            started = time.monotonic()
            for have in range(60):
                stream.send_json({"have": 0, "want": have})
            while stream.receive_json() != {"type": "end", "made": 59}:
                pass
            # 40 at once, then 20 a second.
            assert time.monotonic() - started > 0.7


def test_a_paused_stream_rests(client):
    session = session_of(client)
    with client.websocket_connect(STREAM.format(session)) as stream:
        stream.send_json({"want": 60, "pause": True})
        time.sleep(0.1)
        assert client.get(f"/api/sessions/{session}").json()["made"] == 0
        stream.send_json({"pause": False})
        assert steps_of(stream, 60).shape == (2, 60, 3)


def test_a_lost_connection_is_taken_up_where_it_was(client):
    session = session_of(client)
    with client.websocket_connect(STREAM.format(session)) as stream:
        stream.send_json({"want": 60})
        before = steps_of(stream, 30)[:, :30]
    with client.websocket_connect(f"{STREAM.format(session)}?have=30") as stream:
        # What was on its way is sent again, and what was asked for goes on.
        after = steps_of(stream, 30)
    np.testing.assert_array_equal(np.concatenate([before, after], axis=1), continued(client, 60))
    with client.websocket_connect(f"{STREAM.format(session)}?have=29") as stream:
        assert closing_of(stream) == (
            4409,
            "have: 29; accepted: 30 to 60, the steps that are kept",
        )


def closing_of(stream) -> tuple[int, str]:
    with pytest.raises(WebSocketDisconnect) as closing:
        while True:
            stream.receive_json()
    return closing.value.code, closing.value.reason


def test_the_newest_connection_has_the_stream(client):
    session = session_of(client)
    with client.websocket_connect(STREAM.format(session)) as first:
        with client.websocket_connect(STREAM.format(session)) as second:
            assert closing_of(first) == (4409, "the session is streamed by another connection")
            second.send_json({"want": 3})
            assert steps_of(second, 3).shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("{", "message: Invalid JSON"),
        ('{"want": -1}', "want: Input should be greater than or equal to 0"),
        ('{"want": 4001}', "want: 4001; accepted: up to 4000"),
        ('{"wish": 1}', "wish: Extra inputs are not permitted"),
        ('{"have": 1}', "have: 1; accepted: 0 to 0"),
        (
            '{"temperatures": {"temperature": NaN}}',
            "temperatures.temperature: Input should be a finite number",
        ),
    ],
)
def test_a_stream_says_what_is_wrong_with_a_message(client, message, reason):
    with client.websocket_connect(STREAM.format(session_of(client))) as stream:
        stream.send_text(message)
        code, told = closing_of(stream)
    assert code in (4422, 4409)
    assert told.startswith(reason)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"beginnings": [[[1, 2]]]}, "beginnings.0: step 0 has 2 numbers; accepted: 3"),
        ({"beginnings": [[], [[0, 0, 0], [1, 2, 3, 4]]]}, "beginnings.1: step 1 has 4 numbers"),
        ({"beginnings": [[[0, 0, 0.5]]]}, "beginnings.0: step 0 has pen 0.5; accepted: 0, 1"),
        (
            {"beginnings": [[[0, 0, 0], [0, 4e5, 1]]]},
            "beginnings.0: step 1 has dy 400000; accepted",
        ),
        ({"beginnings": [[[0, 0, 0]] * 2001]}, "beginnings.0: 2001 steps; accepted: up to 2000"),
        ({"beginnings": [[]] * 5}, "beginnings, rows: 5 continuations; accepted: up to 4"),
        ({"beginnings": [[], []], "rows": 3}, "beginnings, rows: 6 continuations; accepted: "),
        ({"rows": 0}, "rows: Input should be greater than or equal to 1"),
        ({"beginnings": []}, "beginnings: List should have at least 1 item"),
        ({"beginnings": [[["a", 0, 0]]]}, "beginnings.0.0.0: Input should be a valid number"),
        ({"beginnings": [[["1.5", 0, 0]]]}, "beginnings.0.0.0: Input should be a valid number"),
        ({"seed": True}, "seed: Input should be a valid integer"),
        ({"seed": "7"}, "seed: Input should be a valid integer"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": 2**31}, "seed: Input should be less than 2147483648"),
        ({"temperatures": {"temperature": -1}}, "temperatures.temperature: Input should be"),
        ({"temperatures": {"heat": 1}}, "temperatures.heat: Extra inputs are not permitted"),
        ({"length": 0}, "length: Input should be greater than or equal to 1"),
        ({"length": 4001}, "4001 steps in all; accepted: up to 4000 after these beginnings"),
    ],
)
def test_a_wrong_request_is_told_in_one_sentence(client, asked, told):
    answer = client.post("/api/continue", json={"length": 3, **asked})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(told)
    assert "\n" not in answer.json()["detail"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(client, number):
    for path, name in (("continue", "beginnings"), ("score", "x"), ("reconstruct", "x")):
        x = f"[[0, {number}, 1]]"
        text = f'{{"{name}": {f"[{x}]" if path == "continue" else x}}}'
        answer = client.post(f"/api/{path}", content=text, headers=JSON)
        assert answer.status_code == 422
        assert "finite number" in answer.json()["detail"]
    assert client.post("/api/score", content="{").status_code == 422


def test_unknown_and_ended_sessions_are_not_found(client):
    assert client.get("/api/sessions/nobody").status_code == 404
    with client.websocket_connect(STREAM.format("nobody")) as stream:
        assert closing_of(stream)[0] == 4404
    with client.websocket_connect(STREAM.format(session_of(client)) + "?have=abc") as stream:
        assert closing_of(stream) == (4422, "have: abc; accepted: a number of steps")
    session = session_of(client)
    with client.websocket_connect(STREAM.format(session)) as stream:
        assert client.delete(f"/api/sessions/{session}").status_code == 204
        assert closing_of(stream) == (4404, "the session has ended")
    assert client.post(STEPS.format(session), json={"have": 0, "count": 1}).status_code == 404


def test_as_many_sessions_as_are_allowed():
    with served(max_sessions=2) as client:
        session = session_of(client)
        session_of(client)
        answer = client.post("/api/sessions", json={})
        assert answer.status_code == 503
        assert 1 <= int(answer.headers["retry-after"]) <= 301
        assert client.post("/api/continue", json={"length": 1}).status_code == 503
        client.delete(f"/api/sessions/{session}")
        # A request that is refused keeps no place.
        assert client.post("/api/sessions", json={"beginnings": [[[1]]]}).status_code == 422
        session_of(client)


def test_what_its_client_has_left_is_given_up():
    model = FakeModel(step_seconds=0.01)
    app = web_app.create(Engine(model), ServeSettings(max_sessions=1), NAMES)
    messages = [
        {"type": "http.request", "body": b'{"length": 4000}'},
        {"type": "http.disconnect"},
    ]

    async def receive():
        await asyncio.sleep(0.05)
        return messages.pop(0) if messages else await asyncio.sleep(60)

    async def leave():
        await posted(app, receive)
        app.state.service.sessions.reserve()  # there is a place again
        await asyncio.sleep(0.5)  # the call that it is in
        made = app.state.service.scheduler.steps_made
        await asyncio.sleep(0.2)
        assert app.state.service.scheduler.steps_made == made < 200

    running(app, leave())


def test_a_beginning_that_several_go_on_from_is_sent_once(client):
    several = {"beginnings": [BEGINNING, []], "rows": 2}
    every = {"beginnings": [BEGINNING, BEGINNING, [], []]}
    np.testing.assert_array_equal(continued(client, 9, **several), continued(client, 9, **every))


def test_images_are_taken_whole_whatever_the_limits():
    model = FakeModel("image")
    most = model.num_pixels
    with served(model, max_beginning=5, max_steps=6) as client:
        limits = client.get("/api/model").json()["limits"]
        assert limits["max_beginning"] == limits["max_steps"] == most
        asked = {"beginnings": [[[1]] * 7]}
        assert client.post("/api/sessions", json=asked).json()["limit"] == most - 7
        asked = {"x": [[1]] * (most + 1)}
        answer = client.post("/api/score", json=asked)
        assert answer.json()["detail"] == f"x: {most + 1} steps; accepted: up to {most}"


def test_an_idle_session_ends():
    with served(idle_seconds=0.2) as client:
        session = session_of(client)
        with client.websocket_connect(STREAM.format(session)) as stream:
            assert closing_of(stream) == (4404, "the session has ended")
        assert client.get("/api/status").json()["sessions"] == 0


def test_requests_too_often_are_put_off():
    with served(requests_per_second=2) as client:
        answers = [client.get("/api/status") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
        assert answers[-1].headers["retry-after"] == "1"
        assert client.get("/").status_code == 200
        time.sleep(0.6)
        assert client.get("/api/status").status_code == 200


def test_large_requests_are_refused():
    with served(max_body_mib=0.001) as client:
        large = "[" + " " * 2000 + "]"
        answer = client.post("/api/score", content=large)
        assert (answer.status_code, list(answer.json())) == (413, ["detail"])
        # In parts, without saying how long it will be.
        parts = (large[i : i + 100].encode() for i in range(0, 2000, 100))
        answers = [client.post("/api/score", content=parts, headers=JSON)]
        # Long texts are read fast, many lists are not.
        for few_bytes in ("[]", "0,"):
            with served() as other:
                body = '{"x": [' + few_bytes * 40_000
                answers.append(other.post("/api/score", content=body, headers=JSON))
        for answer in answers:
            assert answer.status_code == 413
            assert answer.json()["detail"].startswith("the request is too large; accepted: up to")


@pytest.mark.parametrize(("is_whole", "status"), [(False, 408), (True, 200)])
def test_a_request_must_arrive_in_time_and_its_answer_may_take_longer(is_whole, status):
    settings = ServeSettings(body_seconds=0.1)
    app = web_app.create(Engine(FakeModel(step_seconds=0.05)), settings, NAMES)
    messages = [{"type": "http.request", "body": b'{"length": 5', "more_body": True}]
    messages += [{"type": "http.request", "body": b"}"}] * is_whole

    async def receive():
        return messages.pop(0) if messages else await asyncio.sleep(60)

    begun, body = running(app, posted(app, receive))
    assert begun["status"] == status
    if not is_whole:
        told = "the request has not arrived; accepted: within 0.1 s"
        assert json.loads(body["body"]) == {"detail": told}
        assert (b"connection", b"close") in begun["headers"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "localhost.evil.example"}, 421),
        ({"Host": "]["}, 421),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost:8000", "Origin": "http://localhost:9000"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "localhost", "Origin": "http://[bad"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Host": "localhost", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
    ],
)
def test_foreign_names_and_pages_of_other_sites_are_refused(client, headers, status):
    answer = client.get("/api/status", headers=headers)
    assert answer.status_code == status
    if status == 200:
        return
    assert answer.json()["detail"]
    with pytest.raises(WebSocketDisconnect):
        with client.websocket_connect(STREAM.format(session_of(client)), headers=headers):
            pass


def test_scores_and_reconstructs(client):
    score = client.post("/api/score", json={"x": BEGINNING, "seed": 1}).json()
    assert score["log_likelihood"] == [-7.0, -12.0]
    assert np.shape(score["kl"]) == (2, 3)
    answer = client.post("/api/reconstruct", json={"x": BEGINNING}).json()
    assert answer["x"] == BEGINNING
    assert client.post("/api/score", json={"x": []}).status_code == 422


def test_letters_are_strokes(client):
    strokes = client.get("/api/lettering", params={"text": "hi"}).json()["strokes"]
    assert len(strokes) == 4  # of which the dot is one
    ys = [y for stroke in strokes for _, y in stroke]
    assert min(ys) < -0.9 and max(ys) == 1.0
    for text in ("", "a" * 61, "ж"):
        assert client.get("/api/lettering", params={"text": text}).status_code == 422


def test_steps_of_all_sessions_are_made_together_and_nobody_sees_it():
    model, seeds = FakeModel(), range(6)
    with served(model) as client:
        alone = [continued(client, 40, seed=seed) for seed in seeds]
        sessions = [session_of(client, seed=seed) for seed in seeds]
        model.rows.clear()
        model.gate.clear()
        results = {}

        def run(seed):
            wish = {"have": 0, "count": 40}
            results[seed] = client.post(STEPS.format(sessions[seed]), json=wish).json()["x"]

        threads = [threading.Thread(target=run, args=(seed,)) for seed in seeds]
        for thread in threads:
            thread.start()
        # Those that come while others are computed are the next batch.
        waiting = client.app.state.service.sessions
        wait_until(lambda: all(session.wanted == 40 for session in waiting))
        model.gate.set()
        for thread in threads:
            thread.join()
    for seed in seeds:
        np.testing.assert_array_equal(results[seed], alone[seed])
    # Each has two rows; they are padded to powers of two, to eight at least.
    assert max(model.rows) == 16
    assert set(model.rows) <= {8, 16}


def test_rows_at_once_are_limited():
    model = FakeModel(step_seconds=0.002)
    with served(model, rows_at_once=8) as client:
        threads = [threading.Thread(target=continued, args=(client, 20)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.get("/api/status").json()["steps_made"] == 8 * 2 * 20
    assert set(model.rows) == {8}


def test_a_model_that_fails_is_told_and_the_service_goes_on(caplog):
    model = FakeModel()
    with served(model) as client:
        session = session_of(client)
        model.is_broken = True
        answer = client.post(STEPS.format(session), json={"have": 0, "count": 1})
        assert answer.status_code == 500
        assert answer.json() == {"detail": "the model failed (out of ideas)"}
        model.is_broken = False
        assert continued(client, 3).shape == (2, 3, 3)
    assert "steps of 1 sessions failed" in caplog.text


def test_numbers_of_the_model_that_are_none_end_a_session(monkeypatch):
    model = FakeModel()
    with served(model) as client:
        steps = model.steps
        monkeypatch.setattr(
            model, "steps", lambda *args: {**(made := steps(*args)), "x": made["x"] * np.nan}
        )
        answer = client.post("/api/continue", json={"length": 3})
        assert answer.status_code == 500
        assert "not finite" in answer.json()["detail"]


def test_images_end_with_their_last_pixel():
    with served(FakeModel("image")) as client:
        upper = [[0.0]] * 60
        assert continued(client, 60, beginnings=[upper]).shape == (1, 60, 1)
        answer = client.post("/api/continue", json={"beginnings": [upper], "length": 61})
        assert (
            answer.json()["detail"] == "61 steps in all; accepted: up to 60 after these beginnings"
        )
        answer = client.post("/api/continue", json={"beginnings": [[[0]] * 121], "length": 1})
        assert answer.json()["detail"] == "beginnings.0: 121 steps; accepted: up to 120"


def test_too_many_waiting_calls_are_put_off():
    from stcn_tf.web.scheduler import Scheduler
    from stcn_tf.web.sessions import RequestError

    async def many():
        scheduler = Scheduler(Engine(FakeModel()), 8)
        calls = [scheduler.call(time.sleep, 0.001) for _ in range(70)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        scheduler.close()
        return results

    results = asyncio.run(many())
    refused = [result for result in results if isinstance(result, RequestError)]
    assert len(refused) == 6 and results.count(None) == 64
    assert refused[0].status == 503 and refused[0].retry_seconds
