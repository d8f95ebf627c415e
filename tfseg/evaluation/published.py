"""The paper's Table 1, which our numbers are printed beside: VOC 2012 val, IoU in percent (SPEC 8)."""

LABEL_MAP = "voc20_coco60"
"""Only over these labels are the numbers comparable."""

_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
_ROWS = {
    "TransferNet": """85.3 68.5 26.4 69.8 36.7 49.1 68.4 55.8 77.3 6.2 75.2 14.3 69.8 71.5 61.1 31.9 25.5
        74.6 33.8 49.6 43.7""",
    "TransferNet-GT": """85.2 70.6 25.3 61.7 42.2 38.9 67.5 53.9 73.3 20.6 81.5 26.9 69.6 73.2 66.6 36.7
        26.9 82.9 42.2 54.4 39.3""",
    "DecoupledNet": """79.2 13.1 7.7 38.4 14.3 15.0 14.7 46.0 60.5 3.7 28.0 1.7 54.0 37.5 24.0 9.2 4.5
        46.2 3.4 18.7 13.0""",
    "BaselineNet": """81.4 30.6 9.2 41.8 27.0 32.9 46.9 44.7 61.2 7.0 59.2 4.7 55.2 55.5 22.7 32.0 17.5
        65.7 15.8 33.6 18.1""",
}

MEANS = {
    "TransferNet": 52.1,
    "TransferNet-GT": 54.3,
    "DecoupledNet": 25.4,
    "BaselineNet": 36.3,
}
"""Mean over the 21 classes, as printed."""

PER_CLASS: dict[str, dict[str, float]] = {
    method: dict(zip(_CLASSES, map(float, row.split()), strict=True)) for method, row in _ROWS.items()
}
"""By method and the class's name in VOC."""
