"""The published tables of SAK (arXiv 2410.14633), recomputed: the values as printed, Delta_m to two decimals."""

import pytest

from eyespot.evaluate.protocols.multitask import LOWER_IS_BETTER, delta_m, relative_gains

PASCAL = ("segmentation mIoU", "parts mIoU", "saliency maxF", "normals mErr", "boundary odsF")
NYUD = ("segmentation mIoU", "depth RMSE", "normals mErr", "boundary odsF")

PASCAL_L = (81.61, 72.77, 83.80, 13.87, 75.24)
NYUD_L = (54.19, 0.5560, 19.22, 78.09)
PASCAL_B = (80.25, 70.54, 84.54, 13.57, 74.22)
NYUD_B = (51.15, 0.5792, 19.77, 77.35)

TABLE_5 = [
    ("single-task", PASCAL_L, 0.00),
    ("multi-task", (79.26, 68.28, 84.16, 14.06, 71.59), -2.97),
    ("PAD-Net", (78.01, 67.12, 79.21, 14.37, 72.60), -4.95),
    ("MTI-Net", (78.31, 67.40, 84.75, 14.67, 73.00), -3.81),
    ("ATRC", (77.11, 66.84, 81.20, 14.23, 72.10), -4.71),
    ("InvPT", (79.03, 67.61, 84.81, 14.15, 73.00), -2.81),
    ("InvPT++", (80.22, 69.12, 84.74, 13.73, 74.20), -1.19),
    ("TaskPrompter", (80.89, 68.89, 84.83, 13.72, 73.50), -1.24),
    ("TaskExpert", (80.64, 69.42, 84.87, 13.56, 73.30), -0.97),
    ("BFCI", (80.64, 70.06, 84.64, 13.82, 72.96), -1.32),
    ("3D-aware", (79.53, 69.12, 84.94, 13.53, 74.00), -1.08),
    ("TSP", (81.48, 70.64, 84.86, 13.69, 74.80), -0.22),
    ("MLoRE", (81.41, 70.52, 84.90, 13.51, 75.42), 0.16),
    ("RADIO", (81.11, 71.50, 85.17, 13.49, 74.80), 0.29),
    ("SAK", (84.01, 76.99, 84.65, 13.82, 76.27), 2.30),
]
TABLE_6 = [
    ("single-task", NYUD_L, 0.00),
    ("multi-task", (52.42, 0.5413, 19.29, 76.50), -0.76),
    ("InvPT", (53.56, 0.5183, 19.04, 78.10), 1.64),
    ("InvPT++", (53.85, 0.5096, 18.67, 78.10), 2.65),
    ("TaskPrompter", (55.30, 0.5152, 18.47, 78.20), 3.36),
    ("TaskExpert", (55.35, 0.5157, 18.54, 78.40), 3.33),
    ("BFCI", (55.51, 0.4930, 18.47, 78.22), 4.46),
    ("3D-aware", (54.87, 0.5006, 18.55, 78.30), 3.74),
    ("TSP", (55.39, 0.4961, 18.44, 77.50), 4.07),
    ("MLoRE", (55.96, 0.5076, 18.33, 78.43), 4.26),
    ("RADIO", (59.32, 0.4698, 17.46, 79.41), 8.95),
    ("SAK", (63.18, 0.4313, 16.25, 79.43), 14.05),
]
RADAR_B = [
    ("SAK", PASCAL, PASCAL_B, (81.88, 74.30, 84.79, 14.02, 74.09), 0.83),
    ("multi-task", PASCAL, PASCAL_B, (76.76, 65.26, 84.39, 13.98, 70.37), -4.04),
    ("TaskPrompter", PASCAL, PASCAL_B, (79.00, 67.00, 85.05, 13.47, 73.50), -1.24),
    ("BFCI", PASCAL, PASCAL_B, (77.98, 68.19, 85.06, 13.48, 72.98), -1.31),
    ("SAK", NYUD, NYUD_B, (59.93, 0.4942, 17.60, 78.60), 11.11),
    ("TaskPrompter", NYUD, NYUD_B, (50.40, 0.5402, 18.91, 77.60), 2.49),
    ("BFCI", NYUD, NYUD_B, (51.14, 0.5186, 18.92, 77.98), 3.89),
]
ROWS = [
    *(("table 5", name, PASCAL, PASCAL_L, row, printed) for name, row, printed in TABLE_5),
    *(("table 6", name, NYUD, NYUD_L, row, printed) for name, row, printed in TABLE_6),
    *(("radar", name, keys, baseline, row, printed) for name, keys, baseline, row, printed in RADAR_B),
]


@pytest.mark.parametrize(("where", "name", "keys", "baseline", "row", "printed"), ROWS)
def test_published_rows_come_out(where, name, keys, baseline, row, printed):
    found = delta_m(dict(zip(keys, row, strict=True)), dict(zip(keys, baseline, strict=True)))
    assert round(found, 2) == pytest.approx(printed), f"{name}, {where}"


def test_errors_count_the_other_way_round():
    measured, baseline = {"a": 3.0, "depth RMSE": 3.0}, {"a": 2.0, "depth RMSE": 2.0}
    assert relative_gains(measured, baseline) == {"a": 50, "depth RMSE": -50}
    assert delta_m(measured, baseline) == 0
    assert delta_m(measured, baseline, lower_is_better=()) == 50
    assert set(LOWER_IS_BETTER) == {"depth RMSE", "normals mErr"}


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="same tasks, at least one; got a against a, b"):
        delta_m({"a": 1.0}, {"a": 1.0, "b": 1.0})
    with pytest.raises(ValueError, match="at least one"):
        delta_m({}, {})
    with pytest.raises(ValueError, match=r"a: no gain of 1\.0 over 0\.0"):
        delta_m({"a": 1.0}, {"a": 0.0})
    with pytest.raises(ValueError, match=r"a: no gain of nan over 1\.0; leave the task out of both"):
        delta_m({"a": float("nan")}, {"a": 1.0})
