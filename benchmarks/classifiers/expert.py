"""The semantic expert with a linear head for Caltech-101 on its frozen summary, as a `python/` source."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from eyespot import load_encoder
from eyespot.data.sets import open_image_folder
from eyespot.encoders import Encoder, HeadedEncoder
from eyespot.evaluate import FeatureBank

SEMANTIC = "semantic_mobilenetv2_in1k.onnx"


def probed() -> Encoder:
    """The expert below EYESPOT_SHARED, its head fitted by logistic regression on the training pictures."""
    shared = Path(os.environ["EYESPOT_SHARED"])
    expert = load_encoder(f"openvino/{shared}/teachers/{SEMANTIC}?precision=bf16")
    data = open_image_folder(shared / "data" / "caltech101")
    summaries = FeatureBank(expert).summaries(data.train.pictures)
    scaler = StandardScaler().fit(summaries)
    model = LogisticRegression(C=0.01, max_iter=300).fit(scaler.transform(summaries), data.train.labels)
    weight = torch.from_numpy(model.coef_ / scaler.scale_).float()
    bias = torch.from_numpy(model.intercept_).float() - weight @ torch.from_numpy(scaler.mean_).float()
    headed = HeadedEncoder(expert, len(data.classes), data.classes)
    with torch.no_grad():
        headed.head.weight.copy_(weight)
        headed.head.bias.copy_(bias)
    return headed.eval()
