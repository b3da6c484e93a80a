"""Zero-shot classification through adapter heads: teacher, proxy (one hop), student (two hops), direct student.

    python benchmarks/zero_shot.py --teachers TEACHERS_FOLDER --data DATA_FOLDER --runs WORK_FOLDER [MORE_WORK_FOLDERS]

WORK_FOLDERs are those of `eupe_real.py`. Nobody in them ever saw a Caltech-101 label: pictures are named in the space
of the semantic expert, with the rows of that expert's own ImageNet classifier as class embeddings, for the Caltech-101
classes that have an ImageNet name (matched word by word after spaces, hyphens and plural are made alike). The same
for the toybox, where an image-text expert was trained with a text tower, is part of `eyespot quickstart`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from eyespot import Encoder, load_encoder
from eyespot.data.sets import open_image_folder
from eyespot.distill.features.chain import AdapterChain, find_route
from eyespot.encoders.text.embeddings import TextEmbeddings, save_text_embeddings
from eyespot.evaluate import FeatureBank, evaluate
from eyespot.evaluate.protocols.zero_shot import zero_shot_scores
from eyespot.files import atomic_write_text
from eyespot.report import machine_info

SEMANTIC = "semantic_mobilenetv2_in1k"


def classifier_rows(teachers: Path) -> TextEmbeddings:
    """The last layer of the semantic expert as class embeddings, with its bias and the names of its labels."""
    graph = onnx.load(teachers / f"{SEMANTIC}.onnx")
    last = [node for node in graph.graph.node if node.op_type == "Conv"][-1]
    _, weight, bias = last.input
    constants = {constant.name: constant for constant in graph.graph.initializer}
    if weight not in constants:  # stored in 8 bits and widened by the graph itself
        graph.graph.output.append(helper.make_tensor_value_info(weight, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    picture = np.zeros((1, 3, 224, 224), np.float32)
    rows = session.run([weight], {session.get_inputs()[0].name: picture})[0]
    names = (teachers / f"{SEMANTIC}.labels.txt").read_text().splitlines()
    offset = numpy_helper.to_array(constants[bias]).astype(np.float32)
    return TextEmbeddings(
        tuple(names), torch.from_numpy(rows.reshape(len(rows), -1).copy()), torch.from_numpy(offset.copy())
    )


def models_of(runs: list[Path], teachers: Path) -> dict[str, list[str]]:
    """Group -> specs: the expert itself, proxies, and the students of every arm."""
    groups = {"expert semantic": [f"onnx/{teachers / SEMANTIC}.onnx"]}
    for work in runs:
        for folder in sorted(work.glob("*-seed*")):
            arm = folder.name.partition("-seed")[0]
            label = f"student {arm}" if work == runs[0] else f"student {arm} ({work.name})"
            groups.setdefault(label, []).append(f"run/{folder}")
            if (folder / "stage-1-proxy").is_dir():
                groups.setdefault("proxy", []).append(f"run/{folder}/stage-1-proxy")
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--size", type=int, default=112)
    args = parser.parse_args()
    rows: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "imagenet.safetensors"
        known = classifier_rows(args.teachers)
        save_text_embeddings(text, known.names, known.embeddings, known.bias)
        options = {"zero_shot": {"text": str(text), "space": SEMANTIC}}
        for group, specs in models_of(args.runs, args.teachers).items():
            models = {spec: load_encoder(spec) for spec in specs}
            table = evaluate(
                models, ["zero_shot"], {"zero_shot": str(args.data / "caltech101")}, size=args.size, options=options
            )
            rows[group] = summary(list(table.rows.values()))
            control = [as_it_comes(encoder, args, known) for encoder in models.values() if encoder.adapters]
            if control:
                rows[group]["accuracy, summaries at the length that heads give them"] = round(mean(control), 4)
            print(group, rows[group], flush=True)
    record = {
        "machine": machine_info(),
        "settings": {"data": "caltech101/val", "text": "rows of the semantic expert's classifier", "size": args.size},
        "rows": rows,
    }
    atomic_write_text(Path(__file__).parent / "results" / "zero_shot.json", json.dumps(record, indent=1) + "\n")


def as_it_comes(encoder: Encoder, args: argparse.Namespace, text: TextEmbeddings) -> float:
    """The control: heads trained by cosine alone, taken at their word about the length of summaries."""
    data = open_image_folder(args.data / "caltech101")
    chain = AdapterChain(encoder.adapters, find_route(encoder.adapters, SEMANTIC)).summary
    for hop in chain:
        hop.direction_only = False
    classes, known = text.match(data.classes)
    counts = torch.isin(data.val.labels, torch.tensor(classes))
    features = FeatureBank(encoder, args.size).summaries(data.val.pictures)[counts]
    with torch.inference_mode():
        guess = zero_shot_scores(chain(features), known).argmax(1)
    return float((torch.tensor(classes)[guess] == data.val.labels[counts]).float().mean())


def summary(found: list[dict[str, float | None]]) -> dict[str, object]:
    """Mean and spread over seeds."""
    result: dict[str, object] = {"seeds": len(found), "classes": found[0]["zero_shot/classes"]}
    for metric in ("accuracy", "top5"):
        values = [float(row[f"zero_shot/{metric}"] or 0) for row in found]
        result[metric] = round(mean(values), 4)
        if len(values) > 1:
            result[f"{metric} spread"] = round(stdev(values), 4)
    return result


if __name__ == "__main__":
    main()
