"""The API as people use it: in a script, a notebook, several threads, the documentation.

The script builds one store of 200 drawn scenes with the embedded model, which all tests use.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbclient
import nbformat
import pytest

import mmindex

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}

# No __main__ guard: decode workers must not run the script again.
SCRIPT = """
import mmindex

done = mmindex.build("store", sources=["scenes:200@7"], model="embedded", workers=2)
print("published", done.published, done.manifest.counts.indexed)
with mmindex.open("store") as index:
    hits = index.search("a red boat on the sea", k=3)
    print(len(hits), hits[0].image().size)
"""


def run_script(
    folder: Path, script: str, *, stdin: bool = False
) -> subprocess.CompletedProcess[str]:
    path = folder / "script.py"
    path.write_text(script)
    return subprocess.run(
        [sys.executable, "-" if stdin else str(path)],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=250,
        input=script if stdin else None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the script ran; it contains ``store``."""
    folder = tmp_path_factory.mktemp("api")
    done = run_script(folder, SCRIPT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "published True 200\n3 (224, 224)\n"
    assert done.stderr == ""
    return folder


def test_a_plain_script_prints_only_what_it_prints(folder: Path) -> None:
    """As a file, it built the store; here it comes from stdin, where the usual spawn fails."""
    small = SCRIPT.replace("scenes:200@7", "scenes:12@8").replace('"store"', '"other"')
    done = run_script(folder, small, stdin=True)
    assert done.stdout == "published True 12\n3 (224, 224)\n"
    assert done.stderr == ""


def test_every_scene_finds_itself_first(folder: Path) -> None:
    with mmindex.open(folder / "store") as index:
        ids, _ = index.vectors()
        assert len(ids) == 200
        assert [index.search(image=name, k=1)[0].id for name in ids] == ids.tolist()


def test_eight_threads_get_the_same_answers_as_one(folder: Path) -> None:
    texts = [f"{colour} {thing}" for colour in ("red", "blue") for thing in ("boat", "tree", "cat")]
    asked: list[dict[str, object]] = [
        *({"text": text, "where": where} for text in texts for where in (None, "width > 3")),
        *({"text": text, "to": "text"} for text in texts),
        *({"image": f"scenes/7/{n:012d}"} for n in range(6)),
    ]
    with mmindex.open(folder / "store") as index:
        expected = [index.search(**one) for one in asked]  # type: ignore[arg-type]
    with mmindex.open(folder / "store") as index, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: index.search(**one), asked * 8))  # type: ignore[arg-type]
    for number, hits in enumerate(found):
        reference = expected[number % len(asked)]
        assert [hit.id for hit in hits] == [hit.id for hit in reference]
        assert [hit.score for hit in hits] == pytest.approx([h.score for h in reference], abs=1e-6)


def test_a_notebook_builds_searches_and_shows_images(folder: Path) -> None:
    cells = [
        "import mmindex",
        "done = mmindex.build('notebook', sources=['scenes:8@9'], model='embedded', workers=2)\n"
        "done.published",
        "index = mmindex.open('store')\nindex.search('a red boat', k=3)",
        "index.search('a red boat', to='text', k=1)[0]",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    os.environ["PYTHONPATH"], before = ENVIRONMENT["PYTHONPATH"], os.environ.get("PYTHONPATH")
    try:
        nbclient.NotebookClient(
            notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    outputs = [cell.outputs for cell in notebook.cells]
    assert outputs[0] == []
    # Without ipywidgets, tqdm warns when a library imports it; nothing else may be printed.
    said = [output.text for output in outputs[1] if output.output_type == "stream"]
    assert all("TqdmWarning" in text for text in said)
    assert outputs[1][-1].data["text/plain"] == "True"
    (shown,) = outputs[2]
    assert shown.data["text/html"].count("<img") == 3
    assert "data:image/jpeg;base64," in outputs[3][0].data["text/html"]


def test_every_example_of_the_documentation_runs(folder: Path) -> None:
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(examples) > 8
    if importlib.util.find_spec("pandas") is None:  # it is an extra
        examples = [example for example in examples if "to_pandas" not in example]
    done = run_script(folder, "\n".join(examples))
    assert done.returncode == 0, done.stderr
