import numpy as np
import pytest
from matplotlib.colors import to_hex

from stcn_tf import media
from stcn_tf.media.audio import _decibels, _power

RATE = 2000


def _tone(frequency_hz, seconds=1.0, rate=RATE):
    return np.sin(2 * np.pi * frequency_hz * np.arange(int(seconds * rate)) / rate)


def _spectrogram(waveform, rate):
    power = _power(waveform, rate)
    return _decibels(power, power.max())


def _lines(figure, row):
    """The waveform of a row by colour: (times, values)."""
    return {to_hex(line.get_color()): line.get_data() for line in figure.axes[2 * row].lines}


@pytest.mark.parametrize(("frequency_hz", "rate"), [(250, 2000), (440, 8000), (3000, 16000)])
def test_a_tone_is_loudest_at_its_frequency(frequency_hz, rate):
    db = _spectrogram(0.01 * _tone(frequency_hz, rate=rate), rate)
    frequencies = np.linspace(0, rate / 2, len(db))
    middle = db[:, db.shape[1] // 2]
    assert abs(frequencies[np.argmax(middle)] - frequency_hz) <= frequencies[1] / 2
    assert db.max() == 0 and db.min() >= -80
    # The window's side lobes are below the tone by far.
    assert middle[np.abs(frequencies - frequency_hz) > 6 * frequencies[1]].max() < -50


def test_windows_follow_time():
    quiet_then_tone = np.concatenate([np.zeros(RATE), _tone(300)])
    db = _spectrogram(quiet_then_tone, RATE)
    half = db.shape[1] // 2
    assert np.all(db[:, : half - 4] == -80)
    assert np.all(db[:, half + 4 :].max(axis=0) > -1)


@pytest.mark.parametrize("num", [1, 2, 63, 64, 65, 4001, 300_000])
def test_any_length_has_a_spectrogram(num):
    db = _spectrogram(np.random.default_rng(0).normal(size=num), RATE)
    assert db.shape[0] == 64 // 2 + 1
    assert db.shape[1] == -(-num // max(16, -(-num // 800)))
    assert np.isfinite(db).all()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_silence_and_any_loudness_are_drawn(scale):
    waveform = (scale * _tone(100)).astype(np.float32)
    figure = media.draw_audio([waveform], RATE)
    db = np.asarray(figure.axes[1].images[0].get_array())
    expected = np.full_like(db, -80) if scale == 0 else _spectrogram(_tone(100), RATE)
    np.testing.assert_allclose(db, expected, atol=1e-3)
    media.figure_to_rgb(figure)


def test_what_is_not_finite_is_drawn_as_silence():
    waveform = np.array([0.5, np.nan, -0.25, np.inf, -np.inf])
    _, values = _lines(media.draw_audio([waveform], RATE), 0)[media.INK]
    np.testing.assert_array_equal(values[::2], [0.5, 0, -0.25, 0, 0])


def test_rows_have_one_time_scale_and_a_height_each():
    figure = media.draw_audio([_tone(50), 0.02 * _tone(50, 0.25)], RATE)
    assert len(figure.axes) == 4
    assert {axes.get_xlim() for axes in figure.axes} == {(0.0, 1.0)}
    peaks = [max(tick for tick in axes.get_yticks()) for axes in figure.axes[::2]]
    assert peaks == pytest.approx([1.0, 0.02], rel=1e-3)
    for row, seconds in enumerate((1.0, 0.25)):
        times, values = _lines(figure, row)[media.INK]
        assert 0 < times[0] and times[-1] < seconds
        assert np.abs(values).max() == pytest.approx(peaks[row])
        left, right, bottom, top = figure.axes[2 * row + 1].images[0].get_extent()
        assert (left, right, bottom, top) == (0, seconds, 0, RATE / 2000)
    tops = [axes.get_position().y0 for axes in figure.axes]
    assert tops[0] == tops[1] > tops[2] == tops[3] > 0


def test_long_waveforms_keep_their_peaks():
    waveform = 0.1 * np.random.default_rng(0).normal(size=300_000)
    waveform[123_456], waveform[200_001] = 3.0, -5.0
    _, values = _lines(media.draw_audio([waveform], RATE), 0)[media.INK]
    assert len(values) <= 1600
    assert (values.max(), values.min()) == (3.0, -5.0)


@pytest.mark.parametrize("given", [0, 1, 30, 100])
def test_given_samples_have_their_own_colour(given):
    lines = _lines(media.draw_audio([_tone(50, 0.05)], RATE, given_samples=[given]), 0)
    counts = {color: len(times) // 2 for color, (times, _) in lines.items()}
    assert counts == {media.PREFIX_INK: given, media.INK: 100 - given}
    assert np.all(lines[media.PREFIX_INK][0] < given / RATE)
    assert np.all(lines[media.INK][0] > given / RATE)


def test_labels_stand_above_their_rows():
    figure = media.draw_audio([_tone(50)] * 2, RATE, labels=["a_$1$ $", "b"])
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a_$1$ $", "", "b", ""]
    media.figure_to_rgb(figure)  # the label is no formula


def test_faulty_arguments():
    with pytest.raises(ValueError, match="no waveforms"):
        media.draw_audio([], RATE)
    for shape in ((0,), (5, 2)):
        with pytest.raises(ValueError, match=r"must be \[samples\], one or more, not \["):
            media.draw_audio([np.zeros(shape)], RATE)
    with pytest.raises(ValueError, match="labels has 1 entries for 2 sequences"):
        media.draw_audio([_tone(9)] * 2, RATE, labels=["one"])
    with pytest.raises(ValueError, match="given_samples has 2 entries for 1 sequences"):
        media.draw_audio([_tone(9)], RATE, given_samples=[1, 2])


@pytest.mark.parametrize("save", [media.save_png, media.save_svg])
def test_files_are_reproducible(tmp_path, save):
    for name in ("one", "two"):
        save(media.draw_audio([_tone(50)] * 2, RATE, labels=["a", "b"]), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_rows_that_belong_together_have_one_scale_of_loudness():
    tone = _tone(100)
    figure = media.draw_audio([tone, 0.1 * tone, 0.5 * tone, 2.0 * tone], RATE, rows_each=2)
    tops = [figure.axes[2 * row].get_ylim()[1] for row in range(4)]
    np.testing.assert_allclose(tops, 1.05 * np.array([1, 1, 2, 2]), rtol=1e-4)
    loudest = [np.max(figure.axes[2 * row + 1].images[0].get_array()) for row in range(4)]
    np.testing.assert_allclose(loudest, [0, -20, 20 * np.log10(0.25), 0], atol=1e-6)
    inks = [media.INK, media.RECONSTRUCTION_INK] * 2
    assert all(ink in _lines(figure, row) for row, ink in enumerate(inks))
