"""experiments/tour.ipynb: runs from its first cell to its last, and shows what it says."""

from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
TOUR = ROOT / "experiments" / "tour.ipynb"


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> list:
    """The cells of code after they have run, in a folder of their own."""
    folder = tmp_path_factory.mktemp("tour")
    notebook = nbformat.read(TOUR, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("TMPDIR", str(folder))
        patch.delenv("TF_CPP_MIN_LOG_LEVEL")  # as in anyone's notebook
        NotebookClient(
            notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
        ).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cells: list, line: str, kind: str) -> str:
    """What the cell that ends with this line shows."""
    (cell,) = (cell for cell in cells if cell.source.splitlines()[-1] == line)
    (output,) = (o for o in cell.outputs if o.output_type == "execute_result")
    return output.data[kind]


def test_it_is_kept_without_what_it_shows():
    notebook = nbformat.read(TOUR, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 8
    assert not any(cell.outputs or cell.execution_count for cell in code)


def test_what_it_prints(cells):
    streams = [o for cell in cells for o in cell.outputs if o.output_type == "stream"]
    assert any("finished after 200 updates" in output.text for output in streams)
    # Of TensorFlow nothing.
    told = [output.text for output in streams if output.name == "stderr"]
    assert told == ["parsing: 240 of 240 files\n"]


def test_everything_draws_itself(cells):
    assert "z^3 of 94 frames: 4 units" in shown(cells, "run", "text/html")
    scores = shown(cells, "scores", "text/html")
    assert all(f"KL of layer {layer}" in scores for layer in (1, 2, 3))
    sampled = "run.sample(num=3, length=250, seed=0, temperature=0.5)"
    for line in ("lines", "scores.along(2)", sampled, "continued"):
        picture = ElementTree.fromstring(shown(cells, line, "image/svg+xml"))
        assert picture.tag.endswith("}svg")
