"""How much one service bears; run by hand: `python tests/web/load.py --run_dir=DIR`.

Starts `python -m stcn_tf.serve`, and for each number of sessions as many clients at once, each of
which begins a session, streams for some seconds and acknowledges whatever comes. Prints the steps a
second of all and of the slowest and fastest, the time from the request for a session to its first
point, and the memory of the service. More sessions than processors pay only where their steps are
computed together, so one more line has them one after the other (--rows_at_once=1).
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import websockets

BEGINNING_STEPS = 100


@contextlib.contextmanager
def service(*flags: str) -> Iterator[tuple[str, int]]:
    """The address of a service, and the number of its process."""
    command = [sys.executable, "-u", "-m", "stcn_tf.serve", "--port=0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            if found := re.match(r"(http://\S+)/ serves", line):
                break
        else:
            raise SystemExit("the service did not start")
        yield found[1], process.pid
    finally:
        process.terminate()
        process.wait()


def request(url: str, content: dict | None = None) -> dict:
    data = None if content is None else json.dumps(content).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
        return json.load(answer)


async def client(url: str, beginning: list, seed: int, seconds: float) -> tuple[float, int]:
    """Seconds to the first point, and steps in all."""
    started = time.perf_counter()
    asked = {"beginnings": [beginning], "seed": seed}
    session = await asyncio.to_thread(request, f"{url}/api/sessions", asked)
    address = f"{url.replace('http', 'ws')}/api/sessions/{session['id']}/stream"
    first, steps = 0.0, 0
    async with websockets.connect(address) as stream:
        await stream.send(json.dumps({"want": session["limit"]}))
        while time.perf_counter() - started < seconds and steps < session["limit"]:
            message = json.loads(await stream.recv())
            if message["type"] != "steps":
                break
            first = first or time.perf_counter() - started
            steps += len(message["x"][0])
            await stream.send(json.dumps({"have": steps}))
    return first, steps


async def clients(url: str, model: dict, count: int, seconds: float) -> str:
    beginning = [
        [
            float(f["mean"] + f["std"] * ((7 * t) % 5 - 2) / 4) if f["kind"] == "real" else 0.0
            for f in model["features"]
        ]
        for t in range(BEGINNING_STEPS)
    ]
    started = time.perf_counter()
    runs = [client(url, beginning, seed, seconds) for seed in range(count)]
    results = await asyncio.gather(*runs)
    elapsed = time.perf_counter() - started
    firsts = sorted(first for first, _ in results)
    steps = [steps for _, steps in results]
    return (
        f"{count:8d} {sum(steps) / elapsed:12.0f} {min(steps) / elapsed:8.1f} "
        f"{max(steps) / elapsed:8.1f} {1e3 * statistics.median(firsts):9.0f} "
        f"{1e3 * firsts[int(0.95 * (len(firsts) - 1))]:9.0f}"
    )


def memory_mib(pid: int) -> tuple[int, int]:
    """What the process has, and the most it had."""
    with open(f"/proc/{pid}/status") as file:
        sizes = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+) kB", file.read()))
    return int(sizes["VmRSS"]) // 1024, int(sizes["VmHWM"]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run_dir", required=True)
    parser.add_argument("--sessions", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    counts = [int(count) for count in args.sessions.split(",")]
    open_to_all = (f"--run_dir={args.run_dir}", "--requests_per_second=1000", "--max_steps=100000")
    print(f"{os.cpu_count()} processors, load before: {os.getloadavg()[0]:.1f}")
    print("sessions  steps/s, all  slowest  fastest  p50 ms   p95 ms to the first point")
    for flags in ((), ("--rows_at_once=1",)):
        with service(*open_to_all, *flags) as (url, pid):
            model = request(f"{url}/api/model")
            if flags:
                print("the same, one session after the other:")
                counts = counts[-1:]
            for count in counts:
                before = request(f"{url}/api/status")
                line = asyncio.run(clients(url, model, count, args.seconds))
                after = request(f"{url}/api/status")
                made = after["steps_made"] - before["steps_made"]
                calls = after["calls"] - before["calls"]
                now, most = memory_mib(pid)
                print(f"{line}   {made / calls:.0f} steps a call, {now} MiB, {most} at most")


if __name__ == "__main__":
    main()
