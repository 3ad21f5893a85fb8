"""The notebooks run from top to bottom, on less data than they show; they are stored without outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

nbclient = pytest.importorskip(
    "nbclient", reason="notebooks need nbclient and ipykernel: pip install '.[test]'"
)
pytest.importorskip("ipykernel", reason="notebooks need nbclient and ipykernel: pip install '.[test]'")
import nbformat  # noqa: E402

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples" / "notebooks").glob("*.ipynb"))
SMALL = {
    "pretrain_images": 72,
    "pretrain_epochs": 1,
    "train_images": 72,
    "max_steps": 2,
    "eval_images": 36,
    "eval_steps": 1,
}


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook):
    return [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]


def test_there_is_one_to_train_and_one_to_evaluate():
    assert [path.stem for path in NOTEBOOKS] == ["evaluate", "train"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs_and_with_one_cell_of_parameters(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert len(tagged(notebook)) == 1
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> dict:
    """Both, run in one kernel and folder, so that the stack is imported and the model pretrained once."""
    notebooks = {path.stem: read(path) for path in NOTEBOOKS}
    for notebook in notebooks.values():
        [parameters] = tagged(notebook)
        names = {}
        exec(parameters.source, names)
        small = {name: value for name, value in SMALL.items() if name in names}
        assert len(small) >= 4
        parameters.source += "".join(f"\n{name} = {value}" for name, value in small.items())
    whole = nbformat.v4.new_notebook()
    for notebook in notebooks.values():
        whole.cells += [nbformat.v4.new_code_cell("%reset -f"), *notebook.cells]
    resources = {"metadata": {"path": str(tmp_path_factory.mktemp("notebooks"))}}
    nbclient.NotebookClient(whole, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebooks


@pytest.mark.slow
@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_it_runs(name, executed):
    code = [cell for cell in executed[name].cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    printed = "".join(out.get("text", "") for cell in code for out in cell.get("outputs", []))
    assert "robust" in printed
    assert ("->" in printed) == (name == "train")
