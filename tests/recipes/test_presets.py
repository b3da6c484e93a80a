"""Presets: what ships, what the paper published, and how settings are laid over one another and checked."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
import timm
import torch
import yaml

from eyespot.config import ConfigError, as_plain, build, merged
from eyespot.encoders.licenses import Terms, terms_of
from eyespot.encoders.permissive import require_permissive
from eyespot.encoders.sources.timm import TimmEncoder, create_timm_encoder
from eyespot.recipes import RECIPES
from eyespot.recipes.eupe import EupeConfig
from eyespot.recipes.presets import preset_names, preset_text, read_settings

PRESETS = ["direct", "laptop", "no_multires", "paper", "permissive", "quickstart"]

PUBLISHED: dict[str, Any] = {
    # What is known of the paper's recipe, by the name of the setting: sections 4.1 and 4.2, and the student of table 1.
    "data.weights": [0.9, 0.1],
    "data.batches": "homogeneous",
    "student.model": ["timm/vit_base_patch16_dinov3_qkvb"],
    "standardizer": "channel",
    "stage1.adapter_width": 1536,
    "stage1.statistics_steps": 500,
    "stage2.steps": 390_000,
    "stage2.batch_size": 8192,
    "stage2.learning_rate": 2e-5,
    "stage2.weight_decay": 1e-4,
    "stage2.adapter_width": 3072,
    "stage2.student_sizes": [256],
    "stage2.teacher_sizes": [256],
    "stage2.statistics_steps": 500,
    "stage3.steps": 100_000,
    "stage3.batch_size": 4096,
    "stage3.learning_rate": 1e-5,
    "stage3.adapter_width": 3072,
    "stage3.student_sizes": [256, 384, 512],
    "stage3.teacher_sizes": [256, 384, 512],
    "stage3.statistics_steps": 500,
}
TEACHERS = {
    # name: side in pixels, parameters in billions as published
    "timm/vit_pe_core_gigantic_patch14_448.fb": (448, 1.9),
    "timm/vit_pe_lang_gigantic_patch14_448.fb": (448, 1.7),
    "timm/vit_huge_plus_patch16_dinov3_qkvb.lvd1689m": (256, 0.84),
}
NOT_SETTINGS = {"teachers", "data.sources"}
"""Teachers are published and checked by themselves; sources are places to fill in."""


@pytest.fixture(scope="module")
def paper() -> EupeConfig:
    return preset("paper")


def preset(*names: str) -> EupeConfig:
    return build(EupeConfig, read_settings("eupe", names), " + ".join(names))


def at(plain: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        plain = plain[part]
    return plain


def leaves(plain: dict[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in plain.items():
        found |= leaves(value, f"{place}{key}.") if isinstance(value, dict) else {f"{place}{key}": value}
    return found


def marked_ours(text: str) -> set[str]:
    """Settings whose line, or the comment right above, says that the value is ours."""
    lines = text.splitlines()

    def walk(node: yaml.MappingNode, place: str) -> set[str]:
        found = set()
        for key, value in node.value:
            path, line = f"{place}{key.value}", key.start_mark.line
            if isinstance(value, yaml.MappingNode):
                found |= walk(value, f"{path}.")
            elif any(re.search(r"#.*\bours\b", lines[near], re.IGNORECASE) for near in comment_lines(line)):
                found.add(path)
        return found

    def comment_lines(line: int) -> list[int]:
        above = line - 1
        return [line, above] if lines[above].lstrip().startswith("#") else [line]

    return walk(yaml.compose(text), "")


# What ships


def test_the_presets_that_the_documentation_names() -> None:
    assert preset_names("eupe") == PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration_and_survives_yaml(name: str) -> None:
    config = preset(name)
    assert isinstance(config, EupeConfig)
    text = yaml.safe_dump(as_plain(config), sort_keys=False)
    assert build(EupeConfig, yaml.safe_load(text), "again") == config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_whole_run_once_teachers_are_named(name: str) -> None:
    settings = merged(read_settings("eupe", [name]), {"teachers": ["timm/test_vit"]})
    config = build(EupeConfig, settings, name).checked()
    for model in filter(None, (config.proxy, *config.student.model)):
        assert timm.is_model(model.removeprefix("timm/").partition("?")[0]), model


@pytest.mark.parametrize("name", PRESETS)
def test_presets_say_what_they_are(name: str) -> None:
    assert preset_text("eupe", name).startswith("# ")


# The paper's values


@pytest.mark.parametrize("path", PUBLISHED)
def test_paper_preset_has_the_published_value(paper: EupeConfig, path: str) -> None:
    assert at(as_plain(paper), path) == PUBLISHED[path]


def test_what_is_not_published_is_marked_ours_and_nothing_else_is() -> None:
    text = preset_text("eupe", "paper")
    written = leaves(yaml.safe_load(text)).keys()
    assert written - NOT_SETTINGS - marked_ours(text) == PUBLISHED.keys()
    assert not marked_ours(text) & PUBLISHED.keys()


@pytest.mark.parametrize("path", ["stage1.steps", "stage1.batch_size", "stage1.learning_rate", "proxy"])
def test_the_reader_of_marks_finds_those_beside_and_above(path: str) -> None:
    assert path in marked_ours(preset_text("eupe", "paper"))


def test_paper_stages_one_and_two_see_one_size_and_teachers_their_native_one(paper: EupeConfig) -> None:
    assert paper.stage1.teacher_sizes == ()
    assert paper.stage1.student_sizes == (256,)
    assert paper.max_grid is None and paper.cache.folder is None and paper.data.views is None


def test_paper_teachers_are_the_published_ones_at_their_sizes(paper: EupeConfig) -> None:
    assert paper.teachers == list(TEACHERS)
    for spec, (side, billions) in TEACHERS.items():
        name = spec.removeprefix("timm/")
        assert timm.is_model_pretrained(name)
        assert timm.get_pretrained_cfg(name).tag == name.partition(".")[2]
        with torch.device("meta"):
            encoder = create_timm_encoder(name, pretrained=False)
        assert encoder.native_size is None and encoder.default_size == (side, side)
        assert parameters(encoder) == pytest.approx(billions * 1e9, rel=0.03)


def test_paper_proxy_has_four_registers_and_1_84_billion_parameters(paper: EupeConfig) -> None:
    assert paper.proxy == "timm/vit_gigantic_patch14_224?reg_tokens=4&patch_size=16&img_size=256"
    name, _, query = paper.proxy.removeprefix("timm/").partition("?")
    options = {key: int(value) for key, value in parse_qsl(query)}
    with torch.device("meta"):
        plain = timm.create_model(name, num_classes=0, **options)
        encoder = create_timm_encoder(name, pretrained=False, **options)
    assert plain.num_reg_tokens == 4
    assert sum(value.numel() for value in plain.parameters()) == pytest.approx(1.84e9, rel=0.005)
    assert plain.patch_embed.grid_size == (16, 16)
    # It teaches at several sizes in stage 3, so it must not be tied to the one it was made for.
    assert encoder.native_size is None
    for side in paper.stage3.teacher_sizes:
        images = torch.empty(1, 3, side, side, device="meta")
        assert encoder._encode(images).patches.shape == (1, 1664, side // 16, side // 16)


def test_paper_student_is_the_vit_b_of_table_1(paper: EupeConfig) -> None:
    with torch.device("meta"):
        student = create_timm_encoder(paper.student.model[0].removeprefix("timm/"), pretrained=False)
    assert parameters(student) == pytest.approx(86e6, rel=0.005)
    assert (student.stride, student.native_size) == (16, None)


def parameters(encoder: TimmEncoder) -> int:
    return sum(value.numel() for value in encoder.parameters())


# The ablations, alone and on another preset


def test_direct_alone_is_the_paper_without_proxy(paper: EupeConfig) -> None:
    config = preset("direct")
    assert config.proxy is None and config.stage3.steps == 0
    assert config.stage2.teacher_sizes == ()  # every teacher at its native size
    changed = {path for path, value in leaves(as_plain(config)).items() if value != at(as_plain(paper), path)}
    assert changed == {"proxy", "stage2.teacher_sizes", "stage3.steps"}


def test_no_multires_alone_is_the_paper_without_stage_3(paper: EupeConfig) -> None:
    config = preset("no_multires")
    changed = {path for path, value in leaves(as_plain(config)).items() if value != at(as_plain(paper), path)}
    assert changed == {"stage3.steps"} and config.stage3.steps == 0


@pytest.mark.parametrize(
    ("ablation", "changes"),
    [("direct", {"proxy", "stage2.teacher_sizes", "stage3.steps"}), ("no_multires", {"stage3.steps"})],
)
def test_ablations_laid_over_the_laptop_keep_its_sizes(ablation: str, changes: set[str]) -> None:
    laptop, config = (leaves(as_plain(preset(*names))) for names in (("laptop",), ("laptop", ablation)))
    assert {path for path in laptop if laptop[path] != config[path]} == changes
    assert config["stage2.steps"] == laptop["stage2.steps"]


# The permissive committee


@pytest.mark.parametrize("ground", ["paper", "laptop"])
def test_permissive_changes_the_committee_and_nothing_else(ground: str) -> None:
    below, config = (leaves(as_plain(preset(*names))) for names in ((ground,), (ground, "permissive")))
    assert {path for path in below if below[path] != config[path]} == {"teachers", "permissive_only"}
    assert config["permissive_only"] is True


def test_permissive_alone_stands_on_the_paper() -> None:
    assert preset("permissive") == preset("paper", "permissive")


def test_permissive_teachers_are_so_by_timms_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    config = preset("permissive")
    assert len(config.teachers) >= 3
    for spec in config.teachers:
        cfg = timm.get_pretrained_cfg(spec.removeprefix("timm/"))
        assert cfg.tag and terms_of(cfg.license) is Terms.PERMISSIVE, spec
        assert cfg.hf_hub_id, spec
    monkeypatch.setattr("eyespot.encoders.frozen.load_encoder", None)  # nothing may be fetched to find out
    require_permissive(config.learnt_from)


def test_the_guide_says_where_each_permissive_licence_is_stated() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs/licences.md").read_text()
    rows = [line for line in guide.splitlines() if line.startswith("| `vit_")]
    for spec in preset("permissive").teachers:
        (row,) = [row for row in rows if row.startswith(f"| `{spec.removeprefix('timm/')}`")]
        assert "Apache 2.0" in row and row.count("https://") + row.count("the same page") >= 2
    named = [name for row in rows for name in re.findall(r"`(vit_[\w.]+)`", row)]
    assert len(named) > len(preset("permissive").teachers)
    for name in named:
        assert terms_of(timm.get_pretrained_cfg(name).license) is Terms.PERMISSIVE, name


def test_permissive_teachers_take_any_size_and_show_a_map() -> None:
    for spec in preset("permissive").teachers:
        with torch.device("meta"):
            teacher = create_timm_encoder(spec.removeprefix("timm/"), pretrained=False)
        assert teacher.native_size is None
        features = teacher._encode(torch.empty(1, 3, *teacher.default_size, device="meta"))
        side = teacher.default_size[0] // teacher.stride
        assert features.patches.shape == (1, teacher.patch_dim, side, side)


def test_extends_is_the_ground_of_the_first_layer_only(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: laptop\nseed: 7\nstage1: {steps: 3}\n")
    alone = read_settings("eupe", [], file)
    assert "extends" not in alone
    assert alone == merged(read_settings("eupe", ["laptop"]), {"seed": 7, "stage1": {"steps": 3}})
    over = read_settings("eupe", ["paper"], file)
    assert over == merged(read_settings("eupe", ["paper"]), {"seed": 7, "stage1": {"steps": 3}})


def test_extends_of_something_unknown_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: labtop\n")
    with pytest.raises(ConfigError, match="did you mean 'laptop'"):
        read_settings("eupe", [], file)


def test_merged_goes_into_mappings_and_replaces_the_rest() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "d": 1, "e": {"f": 1}}
    above = {"a": {"c": [3]}, "d": None, "e": 5, "g": {"h": 1}}
    kept = json.dumps([below, above])
    assert merged(below, above) == {"a": {"b": 1, "c": [3]}, "d": None, "e": 5, "g": {"h": 1}}
    assert json.dumps([below, above]) == kept
    assert merged(below, {}) == below and merged({}, above) == above


def test_data_may_be_a_plain_list_of_sources() -> None:
    settings = read_settings("eupe", ["paper"]) | {"data": ["photos", "toybox:8"]}
    assert build(EupeConfig, settings, "file").data.sources == ["photos", "toybox:8"]


# What is refused, and how


def test_unknown_preset_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"eupe has no preset 'labtop'; did you mean 'laptop'\?"):
        preset_text("eupe", "labtop")
    with pytest.raises(ConfigError, match="there are direct, laptop, no_multires, paper, permissive, quickstart"):
        preset_text("eupe", "xyz")


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ({"techers": []}, "techers: no such setting; did you mean 'teachers'?"),
        ({"stage1": {"stepz": 3}}, "stage1.stepz: no such setting; did you mean 'steps'?"),
        ({"data": {"view": {"flipp": 0}}}, "data.view.flipp: no such setting; did you mean 'flip'?"),
        ({"engine": {"precison": "32-true"}}, "engine.precison: no such setting; did you mean 'precision'?"),
        ({"student": {"modle": "timm/x"}}, "student.modle: no such setting; did you mean 'model'?"),
        # right name, wrong place
        ({"learning_rate": 1}, "learning_rate: no such setting; did you mean 'stage1.learning_rate'?"),
        ({"data": {"flip": 0}}, "data.flip: no such setting; did you mean 'data.view.flip'?"),
        ({"qqqq": 1}, "qqqq: no such setting"),
    ],
)
def test_unknown_key_is_answered_with_the_nearest_right_one(wrong: dict[str, Any], answer: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(EupeConfig, merged(read_settings("eupe", ["laptop"]), wrong), "mine.yaml")
    assert str(refused.value).splitlines() == ["mine.yaml:", f"  {answer}"]


def test_every_fault_is_listed_in_one_message() -> None:
    wrong = {
        "stage1": {"steps": -3, "batch_size": 0, "student_sizes": []},
        "stage2": {"learning_rate": "fast"},
        "standardizer": "whiten",
        "seeed": 1,
        "data": {"view": {"flip": 2}},
    }
    with pytest.raises(ConfigError) as refused:
        build(EupeConfig, merged(read_settings("eupe", ["laptop"]), wrong), "mine.yaml")
    source, *lines = str(refused.value).splitlines()
    faults = dict(line.strip().split(": ", 1) for line in lines)
    assert source == "mine.yaml:"
    assert faults.keys() == {
        "stage1.steps",
        "stage1.batch_size",
        "stage1.student_sizes",
        "stage2.learning_rate",
        "standardizer",
        "seeed",
        "data.view.flip",
    }
    assert "greater than or equal to 0" in faults["stage1.steps"] and "(got -3)" in faults["stage1.steps"]
    assert "'phi_s'" in faults["standardizer"] and "(got 'whiten')" in faults["standardizer"]
    assert "did you mean 'seed'" in faults["seeed"]


def test_what_must_be_given_is_named() -> None:
    with pytest.raises(ConfigError) as refused:
        build(EupeConfig, {"teachers": [], "stage1": {"steps": 1}}, "mine.yaml")
    faults = dict(line.strip().split(": ", 1) for line in str(refused.value).splitlines()[1:])
    for path in ("data", "proxy", "stage1.batch_size", "stage1.student_sizes", "stage2", "stage3"):
        assert faults[path] == "must be given"


def test_weights_that_do_not_fit_the_sources_are_refused() -> None:
    settings = merged(read_settings("eupe", ["paper"]), {"data": {"sources": ["photos"]}})
    with pytest.raises(ConfigError, match="data: 2 weights for 1 sources; give one per source"):
        build(EupeConfig, settings, "paper")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold settings .key: value., it holds list"),
        ("", "it holds NoneType"),
        ("a: [1\n", "is not YAML"),
    ],
)
def test_a_file_without_settings_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_settings("eupe", [], file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml"):
        read_settings("eupe", [], tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["mixup", "label_smoothing"])
def test_numbers_that_are_none_are_refused(name: str, value: float) -> None:
    settings = merged(read_settings("vanilla_kd", ["laptop"]), {"mix": {name: value}})
    with pytest.raises(ConfigError, match=rf"mix\.{name}: "):
        build(RECIPES["vanilla_kd"].config_class, settings, "a.yaml")
