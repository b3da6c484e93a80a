"""The model card: README.md of a student's folder, in the form of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from eyespot.encoders.base import Encoder
from eyespot.encoders.kinds import code_needed
from eyespot.encoders.licenses import hub_license, terms_of, verdict
from eyespot.encoders.lineage import Teacher, describe
from eyespot.evaluate.results import ResultTable
from eyespot.report.pages.html import short_count
from eyespot.tables import markdown_table

SHOWN_CLASSES = 12


def model_card(
    student: Encoder,
    *,
    title: str,
    summary: str,
    teachers: Sequence[Teacher],
    results: ResultTable | None = None,
    data: Sequence[str] = (),
    config_hash: str = "",
    machine: Mapping[str, Any] | None = None,
) -> str:
    """Writes the card of a student.

    Args:
        student: the encoder that lies in the folder. Loading through timm is explained if it is a timm model.
        title: name of the model.
        summary: one or two sentences: what was distilled into what, and what for.
        teachers: all that the student's weights were learnt from, through a proxy or directly; if it started from
            released weights, those as one more entry. Their licences decide the verdict on commercial use.
        results: what was measured.
        data: the training pictures, one phrase per source.
        config_hash: fingerprint of the run's configuration.
        machine: see `machine.machine_info`; the versions and the date are named.

    Returns:
        Markdown with a YAML header (license, library, tags). Teachers are no `base_model` there: the hub takes that for
        weights a model was tuned or merged from.
    """
    judged = verdict(teacher["licence"] for teacher in teachers)
    in_timm = student.architecture is not None
    header = {
        **hub_license(judged),
        "library_name": "timm" if in_timm else "eyespot",
        "pipeline_tag": "image-classification" if student.num_classes else "image-feature-extraction",
        "tags": ["eyespot", "knowledge-distillation", "vision-encoder"],
    }
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {title}\n\n{summary}",
        f"## The model\n\n{_facts(student)}",
        f"## How to load it\n\n{_loading(student, in_timm)}",
        f"## Commercial use\n\n**{judged.sentence}**\n\nThis is a summary for engineers, not legal advice. "
        "The training pictures may add terms of their own.",
    ]
    if teachers:
        sections.append(f"## Teachers and their licences\n\n{_teacher_table(teachers)}")
    if results is not None and results.rows:
        sections.append(f"## Results\n\n{results.to_markdown().strip()}")
    if data:
        sections.append("## Training pictures\n\n" + "\n".join(f"- {source}" for source in data))
    if config_hash or machine:
        sections.append(f"## How it was made\n\n{_origin(config_hash, machine or {})}")
    return "\n\n".join(sections) + "\n"


def _facts(student: Encoder) -> str:
    facts = describe(student)
    height, width = student.default_size
    taken = "that size only" if student.native_size else f"or any multiple of {student.stride} pixels"
    rows = {
        "architecture": student.architecture or student.name,
        "parameters": short_count(facts["parameters"]),
        "input": f"{height} x {width} pixels, {taken}",
        "summary": f"{student.summary_dim} numbers per picture",
        "patches": f"{student.patch_dim} numbers per {student.stride} x {student.stride} pixels",
    }
    if student.num_classes:
        names = [name.replace("|", "/") for name in student.class_names or []]
        shown = f": {', '.join(names[:SHOWN_CLASSES])}{', ...' if len(names) > SHOWN_CLASSES else ''}" if names else ""
        rows["classes"] = f"{student.num_classes}{shown}"
    return markdown_table(["", ""], rows.items(), numbers=False)


def _loading(student: Encoder, in_timm: bool) -> str:
    """How to load the folder; `deploy.push` puts the repository's name in the place of USER/REPO."""
    from_hub = 'encoder = eyespot.load_encoder("hf/USER/REPO")             # from the Hugging Face hub\n'
    code = code_needed(student)
    classes = "features.logits             # [B, K], one number per class\n" if student.num_classes else ""
    ours = (
        "```python\nimport eyespot\n\n"
        f"{'' if code else from_hub}"
        'encoder = eyespot.load_encoder("run/path/to/this/folder")  # from a folder\n'
        "features = encoder(images)  # images [B, 3, H, W], RGB in [0, 1]: it normalises for itself\n"
        "features.summary            # [B, C], one vector per picture\n"
        "features.patches            # [B, D, h, w], the dense feature map\n"
        f"{classes}```"
    )
    if code:
        return f"{ours}\n\nThe model is built by code that is not in this folder: `{code}`."
    if not in_timm:
        return ours
    turned = "" if student.channel_order == "rgb" else ", then as BGR: images.flip(1)"
    mean, std = (
        ", ".join(f"{value:g}" for value in buffer.flatten().tolist()) for buffer in (student.mean, student.std)
    )
    return (
        f"{ours}\n\nor without eyespot:\n\n```python\nimport timm\n\n"
        'model = timm.create_model("hf-hub:USER/REPO", pretrained=True)                # from the Hugging Face hub\n'
        'model = timm.create_model("local-dir:path/to/this/folder", pretrained=True)  # from a folder\n'
        f"# images: RGB in [0, 1], less mean ({mean}), divided by std ({std}){turned}\n```"
    )


def _teacher_table(teachers: Sequence[Teacher]) -> str:
    rows = [
        [
            teacher["name"],
            teacher["licence"] or "not stated",
            terms_of(teacher["licence"]).label,
            short_count(teacher["parameters"]),
            str(teacher["summary_dim"]),
            str(teacher["patch_dim"]),
            str(teacher["stride"]),
        ]
        for teacher in teachers
    ]
    head = ["teacher", "licence", "terms", "parameters", "summary", "patches", "stride"]
    return markdown_table(head, rows, numbers=False)


def _origin(config_hash: str, machine: Mapping[str, Any]) -> str:
    versions = [f"{name} {machine[name]}" for name in ("eyespot", "torch", "timm", "python") if machine.get(name)]
    lines = {
        "configuration": f"`{config_hash}`" if config_hash else "",
        "versions": ", ".join(versions),
        "machine": ", ".join([str(machine.get("cpu") or ""), *machine.get("gpus", [])]).strip(", "),
        "date": str(machine.get("date", "")),
    }
    return "\n".join(f"- {label}: {text}" for label, text in lines.items() if text)
