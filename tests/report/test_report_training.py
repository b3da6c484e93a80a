"""What a page says about training runs."""

from report_toys import teacher

from eyespot.report.pages.training import TrainingRun, run_sections

ONE = TrainingRun(
    config="seed: 0\n",
    students=[("test_vit", 367_000)],
    teachers=[teacher("onnx/expert.onnx", "mit")],
    records={"stage": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "seconds": 90.0}]},
    machine={"cpu": "a cpu"},
)


def test_a_run_says_who_learnt_from_how_many_and_for_how_long():
    assert ONE.headline == {"student": "test_vit", "parameters": "367 k", "teachers": 1, "training": "1.5 min"}


def test_equal_students_are_named_once():
    run = TrainingRun(config="", students=[("test_vit", 367_000), ("test_vit2", 367_000), ("test_vit", 367_000)])
    assert run.headline == {"students": "test_vit, test_vit2", "parameters": "367 k", "teachers": 0}


def test_a_run_that_has_only_begun_says_nothing():
    sections = run_sections({"young": TrainingRun(config="seed: 0\n")})
    assert sections == {"headline": {}, "curves": [], "licences": [], "configs": {"young": "seed: 0\n"}, "machines": {}}


def test_several_runs_keep_their_teachers_apart_and_share_their_curves():
    sections = run_sections({"a": ONE, "b": ONE}, alone=False)
    assert sections["headline"] == {"runs": 2}
    assert [box.title for box in sections["licences"]] == ["a: learnt from", "b: learnt from"]
    assert [figure.title for figure in sections["curves"]] == ["stage, loss"]
    assert list(sections["machines"]) == list(sections["configs"]) == ["a", "b"]


def test_a_single_run_needs_no_heading():
    sections = run_sections({"a": ONE})
    assert [box.title for box in sections["licences"]] == [""]
    assert [figure.title for figure in sections["curves"]] == ["stage"]
