"""The notebook of the documentation runs from top to bottom, and shows what it promises."""

import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "examples" / "quickstart.ipynb"


def test_the_quick_start_trains_shows_samples_and_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join(filter(None, [str(NOTEBOOK.parents[2] / "src"), os.environ.get("PYTHONPATH")]))
    )
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "the notebook is stored without outputs"
    client.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    train, samples, sevens, measure, _ = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    said = " ".join(output.get("text", "") + str(output.get("data", "")) for output in train)
    assert "vae-001" in said and "100%" in said and "200" in said
    for shown in (samples, sevens):
        assert shown[-1]["data"]["image/png"]
    assert "sliced_wasserstein" in measure[-1]["text"] and "256 samples" in measure[-1]["text"]
