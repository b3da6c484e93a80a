"""Every verb with --output refuses what it did not write, by name, before it loads a model or a picture."""

from pathlib import Path
from typing import Any

import pytest

NOWHERE = "timm/there_is_no_such_model"
VERBS = {
    "toybox": (),
    "visualize": (NOWHERE, "nowhere.jpg"),
    "report": ("nowhere",),
    "plan": ("eupe", "--preset", "laptop", "direct", "--teachers", NOWHERE, "--data", "nowhere"),
    "export": (NOWHERE,),
    "evaluate": (NOWHERE, "--data", "knn=nowhere"),
    "audit": (NOWHERE, NOWHERE, "--data", "nowhere"),
    "benchmark": (NOWHERE, "--runtimes", "eager"),
    "distill": ("eupe", "--preset", "laptop", "direct", "--teachers", NOWHERE, "--data", "nowhere"),
    "quickstart": (),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_is_not_ours_stays(eyespot: Any, tmp_path: Path, verb: str, what: str) -> None:
    output = tmp_path / "precious"
    if what == "folder":
        output.mkdir()
        (output / "thesis.txt").write_text("thesis")
        (output / "report.html").write_text("mine")
    else:
        output.write_text("thesis")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    answer = eyespot(verb, *VERBS[verb], "--output", output)
    assert answer.code == 1 and str(output) in answer.err and len(answer.err.splitlines()) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
