"""The page in a real browser, with a model that needs no training."""

import asyncio
import contextlib
import io
import json
import re
import shutil
import socket
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile
import uvicorn
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Page, expect, sync_playwright

from data_prep.common.ink_json import parse_json
from data_prep.common.inkml import parse_inkml
from stcn_tf.web import app as web_app
from stcn_tf.web import server
from stcn_tf.web.engine import Engine
from stcn_tf.web.settings import ServeSettings
from tests.web.fake import FakeModel

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")

FLAGS = (
    "--no-sandbox",  # of containers, whose root it refuses otherwise
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
LIMITS = ServeSettings(requests_per_second=1000.0, max_beginning=300)


class Served:
    """A service in a thread of its own, which can be stopped and started again."""

    def __init__(self, kind: str, step_seconds: float = 0.0):
        self.model = FakeModel(kind, step_seconds)
        self.port = 0
        self.start()

    def start(self) -> None:
        listener = server.listen("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        self.app = web_app.create(Engine(self.model), LIMITS, {"127.0.0.1"})
        self.uvicorn = uvicorn.Server(server.config_of(self.app))
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve(listener)))
        self.thread.start()

    async def serve(self, listener: socket.socket) -> None:
        await self.uvicorn.serve([listener])
        # A browser may be slow to close its side, which a process that ends would not care for.
        while connections := list(self.uvicorn.server_state.connections):
            for connection in connections:
                connection.transport.abort()
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.05)

    def stop(self) -> None:
        self.uvicorn.should_exit = True
        self.thread.join()

    def cut(self) -> None:
        """Ends every connection without a word, as a network does."""
        for connection in list(self.uvicorn.server_state.connections):
            transport = connection.transport
            transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    @property
    def sessions(self) -> list:
        return list(self.app.state.service.sessions)


@contextlib.contextmanager
def serving(kind: str, **how):
    served = Served(kind, **how)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def ink():
    with serving("handwriting") as served:
        yield served


@pytest.fixture
def open_page(browser):
    """Function (served, **context) -> its page; nothing may be wrong on it in the end."""
    with contextlib.ExitStack() as contexts:
        problems = []

        def opened(served: Served, **context) -> Page:
            context = browser.new_context(**{"viewport": {"width": 1100, "height": 900}, **context})
            contexts.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(15_000)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on(
                "console",
                lambda message: problems.append(message.text) if message.type == "error" else None,
            )
            page.goto(f"http://127.0.0.1:{served.port}/")
            expect(page.locator("#connection-text")).to_have_text("connected")
            return page

        opened.problems = problems
        yield opened
        assert problems == []


def draw(page: Page, *points: tuple[float, float], canvas: str = "#ink") -> None:
    page.locator(canvas).scroll_into_view_if_needed()
    box = page.locator(canvas).bounding_box()
    places = [(box["x"] + x, box["y"] + y) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def write(page: Page) -> None:
    draw(page, (40, 60), (60, 90), (80, 60), (100, 90))
    draw(page, (120, 80), (150, 60))


def set_range(page: Page, name: str, value: float) -> None:
    page.locator(f"#{name}").fill(str(value))


def go_on(page: Page, length: int | None = 100) -> None:
    if length:
        set_range(page, "length", length)
    set_range(page, "pace", page.locator("#pace").get_attribute("max"))
    page.locator("#continue").click()


def wait_until_done(page: Page) -> None:
    expect(page.locator("#status")).to_have_text(re.compile("^Done"))


def shown(page: Page) -> list[np.ndarray]:
    """The pieces of ink as they are shown, [points, 2] each."""
    lines = ET.fromstring(downloaded(page, "svg")).iter("{http://www.w3.org/2000/svg}polyline")
    return [
        np.array([point.split(",") for point in line.get("points").split()], float)
        for line in lines
    ]


def downloaded(page: Page, ending: str) -> bytes:
    with page.expect_download() as download:
        page.locator(f"#save-{ending}").click()
    assert download.value.suggested_filename == f"continued.{ending}"
    with open(download.value.path(), "rb") as file:
        return file.read()


def line_of(page: Page) -> dict:
    return json.loads(downloaded(page, "json"))


def steps_of(strokes: list) -> list[list[float]]:
    """As the records have them: y upwards."""
    points = [(x, y, i == len(s) - 1) for s in strokes for i, (x, y) in enumerate(s)]
    return [
        [b[0] - a[0], a[1] - b[1], float(b[2])] for a, b in zip(points, points[1:], strict=False)
    ]


def test_a_line_is_drawn_and_goes_on_as_the_model_says(open_page, ink):
    page = open_page(ink)
    expect(page.locator("#pad-title")).to_have_text("Write here")
    expect(page.locator("#continue")).to_be_disabled()
    write(page)
    go_on(page, 100)
    wait_until_done(page)
    line = line_of(page)
    steps, given = steps_of(line["strokes"]), line["given_points"] - 1
    assert len(steps) == given + 100
    # The strokes that were drawn, resampled to the length of the model's own steps.
    assert sum(pen for *_, pen in steps[:given]) == 2
    unit = ink.app.state.service.model.writing
    lengths = [np.hypot(dx, dy) for dx, dy, _ in steps[:given]]
    assert 0.4 * unit.step_length < np.median(lengths) < 1.6 * unit.step_length
    # 30 pixels of the pad, from one corner to the next, are a small letter.
    assert np.ptp([y for _, y in line["strokes"][0]]) == pytest.approx(
        0.8 * unit.stroke_height, rel=0.25
    )
    answer = page.request.post(
        f"http://127.0.0.1:{ink.port}/api/continue",
        data={
            "beginnings": [steps[:given]],
            "seed": line["seed"],
            "temperatures": line["temperatures"],
            "length": 100,
        },
    )
    expected = answer.json()["x"][0]
    expected[-1][2] = 1.0  # the last point of a line ends its stroke
    np.testing.assert_allclose(steps[given:], expected, atol=1e-3)

    page.locator("#continue").click()
    expect(page.locator("#status")).to_have_text(re.compile("^Done, 200 points"))
    further = steps_of(line_of(page)["strokes"])
    assert len(further) == given + 200
    np.testing.assert_allclose(further[: given + 99], steps[:-1], atol=1e-6)
    # Whoever goes on writing keeps what was made.
    draw(page, (300, 80), (320, 60), (340, 80))
    expect(page.locator("#again")).to_be_disabled()
    assert line_of(page)["given_points"] > given + 200


def test_what_is_shown_stays_where_it_is(open_page, ink):
    page = open_page(ink)
    width = page.locator("#ink").bounding_box()["width"]
    strokes = [
        ((80, 60), (110, 60)),
        ((60, 170), (90, 170)),
        ((100, 30), (104, 34)),  # a dot above the first row
        ((300, 60), (330, 60)),
        ((120, 170), (150, 170)),
        ((width - 60, 60), (width - 4, 70)),
        ((width - 40, 90), (width + 30, 100)),  # off the paper
    ]
    for number, (start, end) in enumerate(strokes):
        draw(page, start, end)
        pieces = shown(page)
        assert len(pieces) == number + 1
        for piece, (first, last) in zip(pieces, strokes, strict=False):
            np.testing.assert_allclose(piece[[0, -1]], [first, last], atol=8)
    page.locator("#clear").click()
    # Whoever went on by keyboard would begin at the top of the page else.
    assert page.evaluate("() => document.activeElement.id") == "ink"

    page.locator("#example").click()
    go_on(page, 600)
    wait_until_done(page)
    before = np.concatenate(shown(page))
    assert len(np.unique(before[:, 1] // 100)) > 2  # in several rows
    height = page.locator("#ink").bounding_box()["height"]
    assert before[:, 1].max() < height
    draw(page, (20, 20), (40, 24))
    pieces = shown(page)
    np.testing.assert_array_equal(np.concatenate(pieces[:-1]), before)
    # The model goes on below, not over the row of the last stroke.
    go_on(page, 50)
    wait_until_done(page)
    made = np.concatenate(shown(page)[len(pieces) :])
    assert made[:, 1].mean() > before[:, 1].max()


def test_a_slider_acts_while_it_goes_on(open_page):
    with serving("handwriting", step_seconds=0.002) as served:
        page = open_page(served)
        page.locator("#example").click()
        go_on(page, 2000)
        expect(page.locator("#continue")).to_have_text("Pause")
        set_range(page, "temperature", 0.25)
        expect(page.locator("#temperature-out")).to_have_text("0.25")
        (session,) = served.sessions
        wait_until(lambda: session.temperatures.real == 0.25)
        page.locator("#seed").fill("-5")  # of the next run: this one is paused all the same
        page.locator("#continue").click()
        expect(page.locator("#status")).to_have_text("Paused.")
        expect(page.locator("#seed")).to_have_value("0")
        set_range(page, "temperature", 1.5)
        assert line_of(page)["temperatures"]["temperature"] == 0.25  # that of what is shown
        made = session.made
        time.sleep(0.2)
        assert session.made <= made + 64  # and no more is asked for
        page.locator("#clear").click()
        wait_until(lambda: not served.sessions)
        expect(page.locator("#continue")).to_be_disabled()


def wait_until(holds) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_pause_before_anything_has_come(open_page):
    with serving("handwriting") as served:
        page = open_page(served)
        page.locator("#example").click()
        served.model.gate.clear()
        go_on(page, 100)
        page.locator("#continue").click()
        expect(page.locator("#status")).to_have_text("Paused.")
        served.model.gate.set()
        page.wait_for_timeout(300)
        assert len(steps_of(line_of(page)["strokes"])) == line_of(page)["given_points"] - 1
        page.locator("#continue").click()
        wait_until_done(page)
        assert len(steps_of(line_of(page)["strokes"])) == line_of(page)["given_points"] + 99


def test_a_pause_while_the_session_is_made(open_page, ink):
    page = open_page(ink)
    page.locator("#example").click()
    held = []
    page.route("**/api/sessions", lambda route: held.append(route))
    go_on(page, 100)
    for text in ("Continue", "Pause"):
        page.locator("#continue").click()
        expect(page.locator("#continue")).to_have_text(text)
    wait_until(lambda: page.wait_for_timeout(20) or held)
    for route in held:
        route.continue_()
    wait_until_done(page)
    line = line_of(page)
    assert len(held) == 1
    assert len(steps_of(line["strokes"])) == line["given_points"] + 99


def test_downloads_are_what_others_read(open_page, ink):
    page = open_page(ink)
    write(page)
    go_on(page, 100)
    wait_until_done(page)
    svg = ET.fromstring(downloaded(page, "svg"))
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    colours = {line.get("stroke") for line in svg.iter("{http://www.w3.org/2000/svg}polyline")}
    assert len(colours) == 2  # what was given, what was made
    picture = matplotlib.image.imread(io.BytesIO(downloaded(page, "png")), format="png")
    assert np.ptp(picture[..., 0]) > 0.3
    by_inkml = parse_inkml(downloaded(page, "inkml"))
    by_json = parse_json(downloaded(page, "json"))[""]
    np.testing.assert_allclose(by_inkml.offsets, by_json.offsets, atol=2e-3)
    assert len(by_json.offsets) > 100
    np.testing.assert_allclose(by_json.offsets, steps_of(line_of(page)["strokes"]), atol=1e-3)


def test_a_connection_is_lost_and_regained(open_page, ink):
    lines = []
    for is_cut in (False, True):
        with serving("handwriting", step_seconds=0.002) as served:
            page = open_page(served)
            page.locator("#example").click()
            go_on(page, 400)
            if is_cut:
                (session,) = wait_for_one(served)
                wait_until(lambda session=session: session.have > 40)
                served.cut()
                expect(page.locator("#status")).to_have_text(re.compile("^Connected again"))
                assert served.sessions == [session]
            wait_until_done(page)
            lines.append(line_of(page)["strokes"])
            page.close()
    assert lines[0] == lines[1]


def wait_for_one(served: Served) -> list:
    wait_until(lambda: len(served.sessions) == 1)
    return served.sessions


def test_a_service_that_is_started_anew_goes_on_from_what_is_shown(open_page):
    with serving("handwriting", step_seconds=0.002) as served:
        page = open_page(served)
        page.locator("#example").click()
        go_on(page, 400)
        for is_paused in (False, True):
            (session,) = wait_for_one(served)
            wait_until(lambda session=session: session.have > 40)
            if is_paused:
                page.locator("#continue").click()
                expect(page.locator("#status")).to_have_text("Paused.")
            served.stop()
            expect(page.locator("#connection-text")).to_have_text("not connected")
            served.start()
            if is_paused:
                expect(page.locator("#status")).to_have_text("Connected again.")
                page.locator("#continue").click()
        wait_until_done(page)
        expect(page.locator("#connection-text")).to_have_text("connected")
        line = line_of(page)
        assert len(steps_of(line["strokes"])) == line["given_points"] - 1 + 400
    # What the browser itself says of requests that nobody answers.
    open_page.problems[:] = [p for p in open_page.problems if "ERR_CONNECTION" not in p]


def test_what_woke_up_is_coloured_and_told_in_numbers(open_page, ink):
    page = open_page(ink)
    page.locator("#example").click()
    page.locator("#wake").check()
    rows = page.locator("#layers tbody tr")
    # A dot is no step yet.
    page.locator("#clear").click()
    page.locator("#ink").click(position={"x": 30, "y": 60})
    expect(page.locator("#status")).to_have_text("That is too little to look at: give some more.")
    page.locator("#clear").click()
    page.locator("#example").click()
    expect(rows).to_have_count(3)
    expect(page.locator("#legend-high")).not_to_have_text("")
    page.locator("#layer").select_option("0")
    expect(page.locator("#legend-about")).to_have_text(
        "What the latents carry (KL) in each step, from 0.00 to 1.00 nats."
    )
    svg = downloaded(page, "svg").decode()
    assert len(set(re.findall(r'stroke="(rgb[^"]*)"', svg))) > 10
    page.locator("#reconstruct").click()
    expect(page.locator("#reconstruction canvas")).to_be_visible()
    expect(page.locator("#status")).to_have_text("Reconstructed: it is shown below.")
    # Of more than the service takes at once the last part.
    draw(page, *[(20 + 60 * (i % 10), 170 - 60 * (i % 2)) for i in range(60)])
    told = ", of the last 300 steps alone"
    expect(page.locator("#legend-about")).to_have_text(re.compile(f"nats{told}.$"))
    svg = downloaded(page, "svg").decode()
    last = ET.fromstring(svg).findall(".//{*}polyline")[-1]
    assert last.get("stroke").startswith("rgb")
    assert "rgb" not in ET.fromstring(svg).find(".//{*}polyline").get("stroke")
    page.locator("#reconstruct").click()
    expect(page.locator("#status")).to_have_text(f"Reconstructed{told}: it is shown below.")
    page.locator("#wake").uncheck()
    assert "rgb" not in downloaded(page, "svg").decode()


def test_several_continuations_of_which_one_is_kept(open_page, ink):
    page = open_page(ink)
    page.locator("#example").click()
    expect(page.locator("#continue")).to_be_enabled()
    page.locator("#rows").select_option("3")
    page.locator("#seed").fill("7")
    go_on(page, 50)
    wait_until_done(page)
    expect(page.locator("#views canvas")).to_have_count(2)
    lines = line_of(page)
    assert len(lines) == 3 and len({json.dumps(line["strokes"]) for line in lines}) == 3
    # A document of InkML is one line.
    files = []
    page.on("download", lambda file: files.append(file))
    page.locator("#save-inkml").click()
    wait_until(lambda: page.wait_for_timeout(50) or len(files) == 3)
    for number, (file, line) in enumerate(zip(files, lines, strict=True)):
        assert file.suggested_filename == f"continued-{number + 1}.inkml"
        offsets = parse_inkml(Path(file.path()).read_bytes()).offsets
        np.testing.assert_allclose(offsets, steps_of(line["strokes"]), atol=2e-3)
    page.locator("#again").click()
    wait_until_done(page)
    expect(page.locator("#seed")).to_have_value("8")
    page.get_by_role("button", name="Keep continuation 3").press("Enter")
    expect(page.locator("#ink")).to_be_focused()
    expect(page.locator("#views canvas")).to_have_count(0)
    kept = line_of(page)
    points = sum(map(len, kept["strokes"]))
    assert kept["given_points"] == points == lines[0]["given_points"] + 50
    page.locator("#undo").click()
    assert sum(map(len, line_of(page)["strokes"])) < points


def test_from_nothing(open_page, ink):
    page = open_page(ink)
    set_range(page, "length", 50)
    page.locator("#alone").click()
    wait_until_done(page)
    line = line_of(page)
    assert line["given_points"] == 0
    assert len(steps_of(line["strokes"])) == 50


def test_with_the_keyboard_alone(open_page, ink):
    page = open_page(ink)
    page.locator("#ink").focus()
    for key in ["Space", *["ArrowRight"] * 4, *["ArrowDown"] * 3, *["Shift+ArrowLeft"] * 3]:
        page.keyboard.press(key)
    expect(page.locator("#status")).to_have_text("Pen down.")
    box = page.locator("#ink").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 50)  # draws nothing, no button being down
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_have_text("Pen lifted.")
    strokes = line_of(page)["strokes"]
    assert len(strokes) == 1 and len(strokes[0]) > 3
    assert np.array(strokes[0])[:, 0].max() < 500
    page.locator("#word").fill("hi")
    page.keyboard.press("Enter")
    expect(page.locator("#continue")).to_be_enabled()
    wait_until(lambda: len(line_of(page)["strokes"]) == 5)
    page.locator("#word").fill("once upon a time there was a minimum")
    page.keyboard.press("Enter")
    wait_until(lambda: len(line_of(page)["strokes"]) > 20)
    places = np.concatenate(shown(page))
    assert 0 <= places[:, 0].min() < places[:, 0].max() <= box["width"]
    assert np.ptp(places[:, 1]) > 100  # in two rows
    page.locator("#continue").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#continue")).to_have_text("Pause")


@pytest.mark.parametrize("kind", ["handwriting", "audio", "image"])
def test_every_control_has_a_name_and_a_small_screen_is_enough(open_page, kind):
    with serving(kind) as served:
        page = open_page(served, viewport={"width": 360, "height": 700}, has_touch=True)
        expect(page.locator("#example")).to_be_visible()
        named = 0
        for control in page.locator("button, input, select, canvas, progress").all():
            if control.is_visible():
                expect(control).to_have_accessible_name(re.compile(r"\S"))
                named += 1
        assert named > 15
        for width in (360, 320):
            page.set_viewport_size({"width": width, "height": 700})
            widths = page.evaluate(
                "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert widths[0] <= widths[1] == width
        ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
        assert page.locator("#status").get_attribute("aria-live") == "polite"
        assert page.locator("html").get_attribute("lang") == "en"


def test_a_finger_draws_and_does_not_scroll(open_page, ink):
    page = open_page(ink, viewport={"width": 360, "height": 500}, has_touch=True)
    expect(page.locator("#example")).to_be_visible()
    box = page.locator("#ink").bounding_box()
    devtools = page.context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [
            {"x": box["x"] + x, "y": box["y"] + y, "id": number}
            for number, (x, y) in enumerate(points)
        ]
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (40, 60))
    for step in range(1, 12):
        place = (40 + 4 * step, 60 - 4 * step)
        # The hand comes down beside it, and writes nothing.
        touch("touchStart" if step == 4 else "touchMove", place, *[(200, 100 + step)] * (step > 3))
    touch("touchEnd")
    expect(page.locator("#continue")).to_be_enabled()
    assert page.evaluate("() => window.scrollY") == 0
    (stroke,) = line_of(page)["strokes"]
    assert len(stroke) > 5
    assert stroke[-1][0] - stroke[0][0] == pytest.approx(stroke[0][1] - stroke[-1][1], rel=0.1)


def test_a_palm_does_not_paint(open_page):
    with serving("image") as served:
        page = open_page(served, has_touch=True)
        box = page.locator("#picture").bounding_box()
        devtools = page.context.new_cdp_session(page)
        for kind, *fingers in (
            ("touchStart", (20, 20)),
            ("touchStart", (20, 20), (box["width"] - 20, box["height"] - 20)),
            ("touchMove", (60, 20), (box["width"] - 30, box["height"] - 20)),
            ("touchEnd",),
        ):
            places = [
                {"x": box["x"] + x, "y": box["y"] + y, "id": number}
                for number, (x, y) in enumerate(fingers)
            ]
            devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
        expect(page.locator("#clear")).to_be_enabled()
        image = np.array(json.loads(downloaded(page, "json"))["images"][0])
        assert image[:3].any() and not image[3:].any()


def test_without_motion_all_is_shown_as_it_comes(open_page, ink):
    page = open_page(ink, reduced_motion="reduce", color_scheme="dark")
    page.locator("#example").click()
    expect(page.locator("#continue")).to_be_enabled()
    set_range(page, "length", 2000)
    set_range(page, "pace", 20)
    page.locator("#continue").click()  # 100 s at that pace
    wait_until_done(page)


def test_a_sound_goes_on(open_page):
    with serving("audio") as served:
        page = open_page(served)
        page.locator("#example").click()
        go_on(page, 10)
        wait_until_done(page)
        samples, rate = soundfile.read(io.BytesIO(downloaded(page, "wav")))
        assert rate == 1600
        assert len(samples) == 400 + 10 * 40  # a quarter of a second, and what was made
        assert np.abs(samples[400:]).max() == pytest.approx(0.27, abs=0.02)
        page.get_by_role("button", name="Play beginning").click()
        page.get_by_role("button", name="Play continuation").click()
        expect(page.get_by_role("button", name="Stop continuation")).to_be_visible()
        expect(page.get_by_role("button", name="Play beginning")).to_be_visible()  # one is heard
        ET.fromstring(downloaded(page, "svg"))
        assert downloaded(page, "png").startswith(b"\x89PNG")
        page.get_by_role("button", name="Keep this one").click()
        assert len(line_of(page)["sounds"][0]) == line_of(page)["given_samples"] == 800
        page.locator("#undo").click()
        assert len(line_of(page)["sounds"][0]) == 400
        page.locator("#record").click()
        expect(page.locator("#record")).to_have_text("Stop recording")
        page.wait_for_timeout(500)
        page.locator("#record").click()
        expect(page.locator("#status")).to_have_text(re.compile("given. Press Continue"))


def sound_file(samples: np.ndarray, rate: int, subtype: str = "FLOAT") -> dict:
    """A WAV as a file that is opened on the page."""
    content = io.BytesIO()
    soundfile.write(content, samples, rate, subtype, format="WAV")
    return {"name": "sound.wav", "mimeType": "audio/wav", "buffer": content.getvalue()}


def tone(hertz: float, rate: int, seconds: float) -> np.ndarray:
    """Of half the full scale."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def test_sounds_of_any_kind(open_page):
    """At 1,600 Hz, 40 samples a step."""
    with serving("audio") as served:
        page = open_page(served)

        def given(samples: np.ndarray, rate: int) -> np.ndarray:
            page.locator("#sound-file").set_input_files(sound_file(samples, rate))
            expect(page.locator("#status")).to_have_text(re.compile(r"given\. Press Continue\.$"))
            content = line_of(page)
            page.locator("#clear").click()
            return np.array(content["sounds"][0])

        # What can be heard at that rate is as loud as it was, of either ear; the rest is not there.
        for rate in (8000, 44100, 48000):
            for hertz in (200, 500):
                left = np.stack([2 * tone(hertz, rate, 0.5), np.zeros(rate // 2)], axis=1)
                middle = given(left, rate)[200:600]
                expected = tone(hertz, 1600, 0.5)[200:600]
                np.testing.assert_allclose(middle, expected, atol=0.02)
            assert np.abs(given(tone(1100, rate, 0.5), rate)[200:600]).max() < 0.01
        assert np.abs(given(3 * tone(100, 8000, 0.5), 8000)).max() == 1.0
        told = page.locator("#status")
        wrong = tone(100, 8000, 0.5)
        wrong[7] = np.nan
        page.locator("#sound-file").set_input_files(sound_file(wrong, 8000))
        expect(told).to_have_text("That sound has values that are no numbers.")
        long = np.concatenate([np.zeros(80_000), tone(100, 8000, 60)])
        page.locator("#sound-file").set_input_files(sound_file(long, 8000))
        expect(told).to_have_text("The last 7.50 s of 70.00 s given. Press Continue.")
        page.locator("#rows").select_option("4")
        go_on(page, 10)
        wait_until_done(page)
        assert [len(sound) for sound in line_of(page)["sounds"]] == [12_000 + 400] * 4
        page.locator("#clear").click()
        page.locator("#sound-file").set_input_files(sound_file(np.zeros(10), 8000))
        expect(told).to_have_text("That is too short to go on from.")


def test_what_is_heard_can_be_stopped(open_page):
    with serving("audio") as served:
        page = open_page(served)
        page.evaluate(
            """() => {
                window.heard = 0;
                const { start, stop } = AudioBufferSourceNode.prototype;
                Object.assign(AudioBufferSourceNode.prototype, {
                    start(...args) { window.heard++; return start.apply(this, args); },
                    stop(...args) { window.heard--; return stop.apply(this, args); },
                });
            }"""
        )
        page.locator("#sound-file").set_input_files(sound_file(tone(100, 8000, 20), 8000))
        play = page.get_by_role("button", name="Play beginning")
        play.evaluate("(button) => { button.click(); button.click(); button.click(); }")
        expect(page.get_by_role("button", name="Stop beginning")).to_be_visible()
        wait_until(lambda: page.evaluate("() => window.heard") == 1)
        page.locator("#reconstruct").click()
        page.get_by_role("button", name="Play reconstruction").click()
        wait_until(lambda: page.evaluate("() => window.heard") == 1)
        page.locator("#clear").click()
        wait_until(lambda: page.evaluate("() => window.heard") == 0)
        expect(page.get_by_role("button", name="Play beginning")).to_be_disabled()


def test_a_recording_is_one_and_is_given_up_for_what_comes_after_it(open_page):
    with serving("audio") as served:
        page = open_page(served)
        page.evaluate(
            """() => {
                window.streams = [];
                const devices = navigator.mediaDevices;
                const get = devices.getUserMedia.bind(devices);
                devices.getUserMedia = async (...args) => {
                    const stream = await get(...args);
                    window.streams.push(stream);
                    return stream;
                };
            }"""
        )
        record = page.locator("#record")
        live = """() => window.streams.flatMap((s) => s.getTracks())
            .filter((t) => t.readyState === "live").length"""
        record.evaluate("(button) => { button.click(); button.click(); }")
        expect(record).to_have_text("Stop recording")
        assert page.evaluate("() => window.streams.length") == 1
        page.locator("#example").click()
        expect(record).to_have_text("Record")
        wait_until(lambda: page.evaluate(live) == 0)
        go_on(page, 10)
        wait_until_done(page)
        assert len(line_of(page)["sounds"][0]) == 800


@pytest.mark.parametrize("kind", ["handwriting", "audio"])
def test_what_comes_too_late_is_not_shown(open_page, kind):
    """A reconstruction and colours of what is there no longer."""
    with serving(kind) as served:
        page = open_page(served)
        held = []
        for path in ("reconstruct", "score"):
            page.route(f"**/api/{path}", lambda route: held.append(route))
        page.locator("#example").click()
        expect(page.locator("#reconstruct")).to_be_enabled()
        page.locator("#reconstruct").click()
        expect(page.locator("#status")).to_have_text("Reconstructing …")
        page.locator("#clear").click()
        page.locator("#example").click()
        page.locator("#wake").check()
        wait_until(lambda: page.wait_for_timeout(10) or len(held) == 2)
        go_on(page, 100)
        for route in held:
            with page.expect_response(route.request.url):
                route.continue_()
        page.wait_for_timeout(100)
        expect(page.locator("#reconstruction canvas")).to_have_count(0)
        expect(page.locator("#legend-about")).to_have_text("")
        wait_until(lambda: page.wait_for_timeout(10) or len(held) == 3)  # it is done
        assert "rgb" not in downloaded(page, "svg").decode()
        held[2].continue_()
        expect(page.locator("#legend-about")).not_to_have_text("")
        assert "rgb" in downloaded(page, "svg").decode()


def test_a_slider_that_is_moved_while_the_session_is_made_acts(open_page):
    with serving("audio") as served:
        page = open_page(served)
        held = []
        page.route("**/api/sessions", lambda route: held.append(route))
        page.locator("#example").click()
        go_on(page, 100)
        wait_until(lambda: page.wait_for_timeout(10) or held)
        set_range(page, "temperature", 0.2)
        held[0].continue_()
        wait_until_done(page)
        content = line_of(page)
        assert content["temperatures"]["temperature"] == 0.2
        made = np.abs(content["sounds"][0][content["given_samples"] :])
        assert made[-400:].max() == pytest.approx(0.06, abs=0.005)


def test_an_image_is_erased_by_pen_and_told_by_keyboard(open_page):
    with serving("image") as served:
        page = open_page(served)
        box = page.locator("#picture").bounding_box()
        right = box["width"] - 20
        draw(page, (20, 20), (right, 20), canvas="#picture")
        page.locator("#erase").check()
        draw(page, (box["width"] / 2, 20), (right, 20), canvas="#picture")
        image = np.array(line_of(page)["images"][0])
        assert image[:, :3].any() and not image[:, 6:].any()
        page.locator("#erase").uncheck()
        page.locator("#clear").click()
        page.locator("#picture").focus()
        page.keyboard.press("Space")
        expect(page.locator("#status")).to_have_text("Row 4, column 6: on.")
        page.keyboard.press("ArrowDown")
        expect(page.locator("#status")).to_have_text("Row 5, column 6: off.")
        np.testing.assert_array_equal(np.argwhere(line_of(page)["images"][0]), [[3, 5]])
        # Of a part of it the rest is not made yet.
        served.model.gate.clear()
        go_on(page, None)
        content = line_of(page)
        assert content["given_pixels"] == 60
        assert content["images"][0][6:] == [[None] * 10] * 6
        served.model.gate.set()


def test_every_line_of_an_image_can_be_taken_back(open_page):
    with serving("image") as served:
        page = open_page(served)
        right = page.locator("#picture").bounding_box()["width"] - 20
        drawn = []
        for y in (20, 90, 160):
            draw(page, (20, y), (right, y), canvas="#picture")
            drawn.append(line_of(page)["images"])
        page.locator("#clear").click()
        for images in reversed(drawn):
            page.locator("#undo").click()
            assert line_of(page)["images"] == images
        page.locator("#undo").click()
        expect(page.locator("#undo")).to_be_disabled()
        expect(page.locator("#clear")).to_be_disabled()


def test_an_image_is_completed(open_page):
    with serving("image") as served:
        page = open_page(served)
        box = page.locator("#picture").bounding_box()
        draw(page, (20, 20), (box["width"] - 20, 20), canvas="#picture")
        page.locator("#rows").select_option("2")
        go_on(page, None)
        wait_until_done(page)
        images = np.array(json.loads(downloaded(page, "json"))["images"])
        assert images.shape == (2, 12, 10)
        assert images[:, 0].sum() >= 10 and (images[0, :6] == images[1, :6]).all()
        stripes = (np.arange(60, 120)[None] + np.arange(2)[:, None]) % 4 < 2
        np.testing.assert_array_equal(images[:, 6:].reshape(2, -1), stripes)
        ET.fromstring(downloaded(page, "svg"))
        assert downloaded(page, "png").startswith(b"\x89PNG")
        expect(page.locator("#save-inkml")).to_have_count(0)


def test_a_foreign_page_gets_nothing(browser, ink):
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto("about:blank")
        address = f"127.0.0.1:{ink.port}/api"
        state = page.evaluate(
            """(url) => new Promise((resolve) => {
                const socket = new WebSocket(url);
                socket.onopen = () => resolve("open");
                socket.onerror = () => resolve("refused");
            })""",
            f"ws://{address}/sessions/any/stream",
        )
        assert state == "refused"
        with pytest.raises(PlaywrightError, match="Failed to fetch"):
            page.evaluate("(url) => fetch(url)", f"http://{address}/model")
        made = ink.app.state.service.scheduler.steps_made
        post = "(url) => fetch(url, {method: 'POST', mode: 'no-cors', body: '{\"length\": 9}'})"
        with pytest.raises(PlaywrightError, match="Failed to fetch"):
            page.evaluate(post, f"http://{address}/continue")
        assert ink.app.state.service.scheduler.steps_made == made


@pytest.fixture(scope="module")
def modules(browser, ink):
    """Function (expression, argument): the value of a function of the page's modules."""
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{ink.port}/")

        def call(module: str, function: str, *arguments):
            code = f"([...args]) => import('/{module}.js').then((module) => ({function})(...args))"
            return page.evaluate(code, list(arguments))

        yield call


def test_strokes_are_resampled_as_a_hand_would_move(modules):
    def resample(points, step):
        resampled = modules("resample", "(...args) => module.resample(...args)", points, step)
        return np.array(resampled)

    assert resample([[3, 4]], 2.0).tolist() == [[3, 4]]
    # On a circle the speed is one, whatever the rate of the pointer.
    for rate in (40, 400):
        angles = np.linspace(0, 2 * np.pi, rate)
        circle = resample(np.stack([50 * np.cos(angles), 50 * np.sin(angles)], 1).tolist(), 5.0)
        lengths = np.hypot(*np.diff(circle, axis=0).T)
        assert np.ptp(lengths[1:-1]) < 0.1 * lengths.mean()
        np.testing.assert_allclose(np.hypot(*circle.T), 50.0, atol=0.3)
        np.testing.assert_allclose(circle[[0, -1]], [[50, 0], [50, 0]], atol=1.0)
    # At a corner it is slower, beside it faster.
    corner = resample([[0, 0], [100, 0], [100, 100]], 5.0)
    lengths = np.hypot(*np.diff(corner, axis=0).T)
    at = int(np.argmin(np.abs(corner - [100, 0]).sum(axis=1)))
    assert lengths[at - 1 : at + 1].min() < 0.5 * lengths[: at - 4].min()
    assert lengths.mean() == pytest.approx(5.0 * 1.3, rel=0.1)


def test_paper_shows_in_rows_what_is_one_line(modules):
    made = [[3.0, 2.0 * (-1) ** (i // 4), float(i % 8 == 7)] for i in range(400)]
    code = """(steps, width) => {
        const paper = new module.Paper(10);
        paper.width = width;
        for (const step of steps) paper.push(step);
        const shown = [...paper.x.keys()].map((i) => paper.shown(i));
        return [paper.steps, shown, paper.numRows, paper.rowHeight];
    }"""
    for width, fewest in ((2000, 1), (300, 4)):
        steps, shown, rows, height = modules("paper", code, made, width)
        np.testing.assert_allclose(steps, made, atol=1e-9)
        assert fewest <= rows <= 2 * fewest
        xs, ys = np.array(shown).T
        assert xs.min() >= 0 and xs.max() <= width
        assert ys.min() >= 0 and ys.max() <= rows * height


def test_paper_keeps_a_climbing_line_level(modules):
    climbing = [[3.0, 0.4, float(i % 8 == 7)] for i in range(600)]  # by 24 heights of letters
    code = """(steps) => {
        const paper = new module.Paper(10);
        paper.width = 5000;
        for (const step of steps) paper.push(step);
        return [paper.steps, [...paper.x.keys()].map((i) => paper.shown(i)[1]), paper.rowHeight];
    }"""
    steps, ys, height = modules("paper", code, climbing)
    np.testing.assert_allclose(steps, climbing, atol=1e-9)
    assert 0 <= min(ys) and max(ys) <= height


def test_a_tone_is_where_its_pitch_is(modules):
    samples = np.sin(2 * np.pi * 0.125 * np.arange(200))
    code = """(samples) => {
        const spectrogram = new module.Spectrogram(64);
        for (const count of [10, 90, samples.length])  // it grows
            spectrogram.update(Float32Array.from(samples.slice(0, count)));
        return spectrogram.columns.map((_, i) => Array.from(spectrogram.shares(i)));
    }"""
    levels = np.array(modules("spectrum", code, samples.tolist()))
    assert levels.shape == (7, 32)
    assert (levels.argmax(axis=1) == 8).all()  # an eighth of the rate, of 64 bins
    assert levels.max() == pytest.approx(1.0)
    silence = np.array(modules("spectrum", code, [0.0] * 200))
    assert not silence.any()
