"""Puts facts into the template, and blocks into the README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from results_page import classes, committee, device, probes, speed, tasks
from results_page.numbers import RESULTS, holds, number, order
from results_page.picture import picture

HERE = Path(__file__).parent
OLD_PROBES = (
    "(Masks, depth and reading in this table were measured by the quick probes of before 1 December 2026, which had "
    "one learning rate for all encoders and no row for the constant answer.)"
)
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def rendered(root: Path) -> dict[Path, str]:
    """Every file that is made from result files, by its place in the repository, as it should be."""
    readme = root / "README.md"
    return {
        root / "docs/results.md": results_page(),
        root / "docs/images/results.svg": picture(),
        readme: with_block(readme.read_text(encoding="utf-8"), readme_block()),
    }


def results_page() -> str:
    """`docs/results.md`."""
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    return environment.get_template("results.md.j2").render(**facts(), holds=holds, number=number)


def facts() -> dict[str, Any]:
    """What the template may speak of."""
    found: dict[str, Any] = {
        "quickstart": committee.quickstart(),
        "real": committee.real_pictures(),
        "universal": committee.one_table(),
        "words": committee.in_words(),
        "probes": probes.probe_check(),
        "methods": classes.methods(),
        "families": classes.families(),
        "branches": classes.branches(),
        "unlabelled": classes.unlabelled(),
        "sak": tasks.sak(),
        "audit": tasks.audit(),
        "runtimes": device.runtimes(),
        "int8": device.int8(),
        "reparameterized": device.reparameterized(),
        "speed": speed.speed(),
        "peers": speed.peers(),
        "quality": speed.quality(),
    }
    return found | _claims(found)


def readme_block() -> str:
    """The README's one table and one picture, with what they say."""
    found = facts()
    alt = "Experts, untrained models, students and proxy on real pictures, one dot per seed"
    claims = [
        holds(found["real"]["beaten"], "Students gain in every domain over the untrained model."),
        holds(found["cnn_above_vit"], "A CNN student learns more than a ViT in minutes of training."),
        holds(found["mixed"], "Whether the proxy pays is open at this length."),
    ]
    return f"{found['quickstart']['table']}\n\n{OLD_PROBES}\n\n![{alt}](docs/images/results.svg)\n\n{' '.join(claims)}"


def with_block(text: str, block: str) -> str:
    """The text with what stands between the markers replaced.

    Raises:
        ValueError: the markers are not there, once each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md needs one {BEGIN} and one {END}")
    return re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n{block}\n{END}", text, flags=re.DOTALL)


def _claims(found: dict[str, Any]) -> dict[str, Any]:
    """Comparisons that take more than one line."""
    toy = found["quickstart"]["rows"]
    real, universal = found["real"]["rows"], found["universal"]["rows"]
    cnn, vit = real["CNN student, full"], real["student, full"]
    measures = committee.SEEN
    siege = (RESULTS / "soak.md").read_text(encoding="utf-8")
    return {
        "siege": {
            "nothing_lost": "Lost or wrong: nothing." in siege,
            "equal": siege.count("equal to the last bit") == 2,
        },
        "mixed": not any("in all" in words for words in found["real"]["against"].values()),
        "quickstart_above": all(
            (row[key] > toy["student, untrained"][key]) == (key != "depth/RMSE")
            for row in (toy["student"], toy["student, direct"])
            for key in (*(m.key for m in measures), "reading/accuracy")
        ),
        "cnn_above_vit": all(order(cnn[m.key], vit[m.key], m.higher_is_better) > 0 for m in measures),
        "universal_cnn_dense": _keeps_more_of_dense(universal),
    }


def _keeps_more_of_dense(rows: dict[str, Any]) -> bool:
    """Whether the CNN student goes further from untrained to the best in every dense column than in classification."""
    student, untrained = rows["student, ResNet-10"], rows["untrained ViT-T"]
    teachers = [rows[f"expert *{name}*"] for name in ("semantic", "segmentation", "depth")]

    def way(key: str, sign: int) -> float:
        best = max(sign * row[key].mean for row in teachers)
        start = sign * untrained[key].mean
        return (sign * student[key].mean - start) / (best - start)

    dense = [
        way("segmentation/mIoU", 1),
        way("depth/RMSE", -1),
        way("normals/mean", -1),
        way("correspondence/PCK@0.1", 1),
    ]
    classes_ = [way(key, 1) for key in ("knn/accuracy", "linear/accuracy", "few_shot/accuracy")]
    return min(dense) > max(classes_) > 0
