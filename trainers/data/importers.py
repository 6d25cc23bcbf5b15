"""The formats that can be imported, by name."""

from collections.abc import Callable
from pathlib import Path

from trainers.data.annotations import Problems
from trainers.data.coco_layouts import read_coco
from trainers.data.csv_boxes import read_csv
from trainers.data.found import Found, ImportOptions
from trainers.data.voc import read_voc
from trainers.data.yolo import read_yolo

IMPORTERS: dict[str, Callable[[Path, ImportOptions, Problems], Found]] = {
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "csv": read_csv,
}
"""Each reads a source without changing it and puts what is wrong with it into the problems."""
