"""No number of the results page, its picture or the README can differ from the result files."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEND = "run `python benchmarks/render_results.py` and commit what it writes"


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def test_committed_pages_are_what_the_result_files_say() -> None:
    from results_page.page import rendered

    for path, text in rendered(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.relative_to(ROOT)} is stale: {MEND}"


def test_results_that_touch_within_their_spread_are_level() -> None:
    from results_page.numbers import Measure, Spread, compared, order

    one, near, far = Spread.of([1.0, 1.2]), Spread.of([1.2, 1.4]), Spread.of([2.0, 2.2])
    assert order(one, near) == order(near, one) == 0
    assert (order(far, one), order(one, far)) == (1, -1)
    assert order(one, far, higher_is_better=False) == 1
    measures = [Measure(name, name) for name in ("a", "b", "c")]
    words = compared({"a": far, "b": one, "c": one}, {"a": one, "b": near, "c": far}, measures)
    assert words == "better in a, level in b, worse in c"
    assert compared({"a": one}, {"a": near}, measures[:1]) == "level in all"


def test_a_sentence_that_the_files_no_longer_bear_is_refused() -> None:
    from results_page.numbers import ClaimError, holds

    assert holds(True, "It helps.") == "It helps."
    with pytest.raises(ClaimError, match="rewrite it: 'It helps"):
        holds(False, "It helps.")


def test_spread_and_signs_are_shown_plainly() -> None:
    from results_page.numbers import Measure, Spread, number
    from results_page.tables import measured

    assert Spread.of([0.1, 0.3]).times(100).text() == "20.0 ± 14.1"
    assert Spread.of(0.25).text(2) == "0.25"
    assert (number(-1.26), number(-0.01)) == ("−1.3", "0.0")
    rows = {"a": {"x": Spread(2.0, 0.1)}, "b": {"x": Spread(1.9, 0.1)}, "c": {"x": Spread(1.0)}, "d": {"x": None}}
    table = measured("model", rows, [Measure("x", "x", "m")])
    assert table.splitlines()[2:] == ["| a | **2.0 ± 0.1** |", "| b | **1.9 ± 0.1** |", "| c | 1.0 |", "| d | – |"]


def test_a_readme_without_markers_is_an_error() -> None:
    from results_page.page import BEGIN, END, with_block

    assert with_block(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="needs one"):
        with_block("no markers", "new")
