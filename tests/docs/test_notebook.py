"""The notebook runs from nothing, without a warning, and draws three figures."""

import os
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "three_figures.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Return the notebook with its outputs."""
    nbclient = pytest.importorskip("nbclient")
    home = tmp_path_factory.mktemp("home")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "error::FutureWarning,error::DeprecationWarning:__main__")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CLOAKBENCH_STORE", str(home / "store"))
        patch.setenv("TORCH_HOME", str(home / "torch"))
        patch.setenv("IPYTHONDIR", str(home / "ipython"))
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        patch.delenv("CLOAKBENCH_NOTEBOOK_RUN", raising=False)
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(home))
    return notebook


def _outputs(notebook, kind):
    return [
        out
        for cell in notebook.cells
        if cell.cell_type == "code"
        for out in cell.outputs
        if out.output_type in kind
    ]


def test_three_figures_are_drawn(executed) -> None:
    shown = _outputs(executed, ("display_data", "execute_result"))
    assert sum("image/png" in out.data for out in shown) == 3
    assert any("**" in out.data.get("text/markdown", "") for out in shown)


def test_nothing_is_said_on_standard_error(executed) -> None:
    said = [out.text for out in _outputs(executed, ("stream",)) if out.name == "stderr"]
    assert not said


def test_the_run_is_the_small_one(executed) -> None:
    said = [out.data["text/plain"] for out in _outputs(executed, ("execute_result",))]
    assert "'9 rows, 8 identities, synthetic'" in said


REPRODUCE = NOTEBOOK.with_name("reproduce.ipynb")


@pytest.mark.slow
@pytest.mark.real_data
def test_the_headline_is_made_again(tmp_path) -> None:
    """Takes minutes: the quick form of `bench reproduce headline`, on the faces and weights that are here."""
    data = os.environ.get("CLOAKBENCH_DATA", "")
    if not (Path(data) / "lfw").is_dir():
        pytest.skip("needs real faces and weights; CLOAKBENCH_DATA points to no folder that has them")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(REPRODUCE, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOAKBENCH_STORE", str(tmp_path / "store"))
        patch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
        # Beside other tests, two threads on two busy cores take ten times as long as one.
        patch.setenv("CLOAKBENCH_REPRODUCE_THREADS", "1")
        nbclient.NotebookClient(notebook, timeout=3600, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = _outputs(notebook, ("display_data", "execute_result"))
    assert any(out.data.get("text/plain", "").startswith("'Reproduced: ") for out in shown)
    assert any("image/png" in out.data for out in shown)


@pytest.mark.parametrize("notebook", [NOTEBOOK, REPRODUCE], ids=lambda path: path.stem)
def test_it_is_committed_without_outputs(notebook) -> None:
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
