"""A few seconds of the fuzz, the same cases every time; `benchmarks/fuzz.py` draws others for as long as one likes."""

from pathlib import Path

import fuzz_labels
import fuzz_onnx
import fuzz_pictures
import fuzz_saved
import fuzz_sets
import fuzz_settings
import fuzz_shards
import pytest
from fuzzing import Case, Skipped, Wrong, check_case, outcome

SUBJECTS = {
    "labels": (fuzz_labels, 400),
    "onnx": (fuzz_onnx, 60),
    "pictures": (fuzz_pictures, 250),
    "saved": (fuzz_saved, 20),
    "sets": (fuzz_sets, 40),
    "settings": (fuzz_settings, 40),
    "shards": (fuzz_shards, 150),
}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EYESPOT_DEBUG", "1")  # which a subject sets: taken back at the end


@pytest.mark.parametrize("name", SUBJECTS)
def test_everything_is_right_or_refused_or_skipped_with_a_word(name: str, tmp_path: Path) -> None:
    subject, count = SUBJECTS[name]
    ends = [(seed, *check_case(subject.draw, f"{name} {seed}", tmp_path / "case")) for seed in range(count)]
    assert [end for end in ends if end[2].startswith("FAILURE")] == []
    assert {"right", "refused"} <= {end for *_, end in ends}  # neither all sound nor all damaged


def _raises(error: Exception) -> Case:
    def act() -> None:
        raise error

    return Case("", act, ["a.png"])


def test_the_judge_knows_our_sentences() -> None:
    """Errors of this file are no errors of the library, so a real one stands for ours."""
    from eyespot.data.sources.decode import decode_picture

    missing = Case("", lambda: decode_picture(Path("a.png")), ["a.png"])
    assert outcome(missing) == "refused"
    assert "names none of" in outcome(Case("", missing.act, ["b.png"]))
    assert "although nothing is wrong" in outcome(Case("", missing.act, ["a.png"], may_refuse=False))


@pytest.mark.parametrize(
    "error", [KeyError("a.png"), ValueError("a.png"), UnicodeDecodeError("utf-8", b"", 0, 1, "a.png")]
)
def test_the_judge_fails_what_is_not_ours(error: Exception) -> None:
    assert outcome(_raises(error)).startswith("FAILURE")


def test_the_judge_fails_what_is_wrong() -> None:
    def judge(found: object, warned: list[str]) -> None:
        raise Wrong("not that") if found else Skipped

    assert outcome(Case("", lambda: 1, [], judge)) == "FAILURE: not that"
    assert outcome(Case("", lambda: 0, [], judge)) == "skipped"
    assert outcome(Case("", lambda: 0, [])) == "right"
