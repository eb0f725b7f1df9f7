import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from stcn_tf import flags, serve
from stcn_tf.support.errors import UserError
from stcn_tf.web import server

_POST = (
    b"POST /api/continue HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: "
)


@pytest.fixture
def parse(parse_flags):
    return lambda *arguments: parse_flags(flags.define_serve, *arguments)


def test_a_port_that_is_in_use_is_told_in_one_line(tiny_run, parse):
    with contextlib.closing(server.listen("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        parse(f"--run_dir={tiny_run}", f"--port={port}")
        with pytest.raises(UserError) as error:
            serve.main()
    assert str(error.value) == (
        f"--host=127.0.0.1 --port={port}: Address already in use; accepted: a free port of this "
        "machine, or 0 for any"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--run_dir, --model: one of them is needed, and no more"),
        (("--run_dir=a", "--model=b"), "--run_dir, --model: one of them is needed, and no more"),
        (("--run_dir=nowhere",), "nowhere: "),
        (("--model=nowhere", "--port=0"), "nowhere: no SavedModel; accepted: a folder of"),
        (("--model=m", "--host=no.such.invalid"), "--host=no.such.invalid: "),
        (("--model=m", "--max_rows=0"), "--max_rows: 0; accepted: 1 to 64"),
        (("--model=m", "--idle_seconds=0"), "--idle_seconds: 0.0; accepted: more than 0"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(parse, arguments, told):
    parse(*arguments)
    with pytest.raises(UserError) as error:
        serve.main()
    assert str(error.value).startswith(told)
    assert "\n" not in str(error.value)


def test_names_and_addresses():
    assert server.names_of("127.0.0.1", []) == {"localhost", "127.0.0.1", "::1"}
    assert server.names_of("box", ["b.example"]) > {"box", "b.example", "localhost"}
    for host, shown, is_open in (
        ("127.0.0.1", "127.0.0.1", False),
        ("localhost", None, False),
        ("0.0.0.0", "127.0.0.1", True),
    ):
        with contextlib.closing(server.listen(host, 0)) as listener:
            port = listener.getsockname()[1]
            assert server.is_open(listener) == is_open
            if shown:
                assert server.url_of(listener) == f"http://{shown}:{port}/"


def test_what_is_cancelled_is_answered():
    async def app(scope, receive, send):
        await asyncio.sleep(60)

    async def cancelled() -> list[dict]:
        messages = []

        async def send(message):
            messages.append(message)

        task = asyncio.create_task(server.Stoppable(app)({"type": "http"}, None, send))
        await asyncio.sleep(0)
        task.cancel()
        await task
        return messages

    begun, body = asyncio.run(cancelled())
    assert (begun["status"], body["body"]) == (503, b'{"detail":"the service is stopping"}')


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_it_is_asked_to_stop(tiny_run, asked):
    command = [sys.executable, "-u", "-m", "stcn_tf.serve", f"--run_dir={tiny_run}", "--port=0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if found := re.match(r"http://127\.0\.0\.1:(\d+)/ serves a model of tiny", line):
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/api/model") as answer:
            assert answer.status == 200
        # Those who stay connected, who have not said all or who wait for much, keep nobody from
        # stopping it.
        texts = (b"", _POST + b"9\r\n\r\n{", _POST + b"16\r\n\r\n" + b'{"length": 4000}')
        with contextlib.ExitStack() as stack:
            for text in texts:
                address = ("127.0.0.1", int(found[1]))
                stack.enter_context(socket.create_connection(address)).sendall(text)
            time.sleep(0.5)
            process.send_signal(asked)
            _, errors = process.communicate(timeout=20)
    assert process.returncode == (130 if asked == signal.SIGINT else -signal.SIGTERM)
    assert "Traceback" not in errors
    if asked == signal.SIGINT:
        assert errors.splitlines()[-1] == "interrupted"
