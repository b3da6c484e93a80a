"""Classifiers on small real pictures: does a teacher help, which method helps most, what do branches give?

    python benchmarks/classifiers.py teacher   --shared SHARED --work WORK     # once, for all others
    python benchmarks/classifiers.py methods   --shared SHARED --work WORK     # VanillaKD: KD, DKD, DIST and none
    python benchmarks/classifiers.py families  --shared SHARED --work WORK     # OFA-KD: a token student of a CNN
    python benchmarks/classifiers.py branches  --shared SHARED --work WORK     # GhostNetV3: its ingredients
    python benchmarks/classifiers.py unlabelled --shared SHARED --work WORK    # an ONNX file teaches without labels

SHARED holds teachers/ (the semantic expert as an ONNX file) and data/ (Caltech-101: 71 classes, 26 training and 8
validation pictures each, 112 px). The code lies in the folder `classifiers` beside this file. An interrupted run goes
on where it stopped.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_suffix("")), run_name="__main__")
