import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from stcn_tf import media
from stcn_tf.data.card import read_card
from stcn_tf.media.audio import Audio
from stcn_tf.media.handwriting import Handwriting
from stcn_tf.media.images import Images


def test_who_only_draws_waits_for_no_tensorflow():
    code = "import sys, stcn_tf.media; sys.exit('tensorflow' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.parametrize(
    ("records", "kind"), [("tiny_records", Handwriting), ("tiny_audio", Audio)]
)
def test_a_medium_goes_with_the_modality(records, kind, request):
    card = read_card(request.getfixturevalue(records))
    medium = media.medium_of(card)
    assert type(medium) is kind and medium.card is card


@pytest.mark.parametrize(("num", "rows_each", "drawn"), [(7, 1, 7), (401, 1, 400), (399, 3, 133)])
def test_a_page_has_as_many_as_fit(tmp_path, tiny_images, num, rows_each, drawn):
    medium = media.medium_of(read_card(tiny_images))
    assert type(medium) is Images and medium.most_pictured == 400
    asked = []

    def draw(num: int) -> Figure:
        asked.append(num)
        return Figure()

    said = media.write_page(medium, tmp_path, "page", num, draw, rows_each)
    assert asked == [drawn]
    assert said == f", and the first {drawn} in page.png and page.svg"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.png", "page.svg"]
