"""Runs an exported ONNX file where there are onnxruntime, numpy and Pillow only; started by clean_environments.py.

    python alone_onnx.py FILE IMAGES_DIR FOUND.npz ROUNDS

``IMAGES_DIR`` holds pictures of the size that the file takes. What it gives for each goes into ``FOUND.npz``; a line
of JSON on standard output says how long a picture took.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

MEAN, STD = (
    np.array(one, dtype=np.float32)[:, None, None] for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def main() -> None:
    absent = [name for name in ("torch", "nas", "search_spaces", "trainers") if _there(name)]
    assert not absent, f"this environment is not clean: {absent}"
    file, folder, found, rounds = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    first = session.get_inputs()[0]
    names = [one.name for one in session.get_outputs()]
    outputs, seconds = {}, []
    for index, path in enumerate(sorted(folder.glob("*.png"))):
        image = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)[None]
        if first.type == "tensor(float)":
            image = (image.astype(np.float32) - 255 * MEAN) / (255 * STD)
        feed = {first.name: np.ascontiguousarray(image)}
        for name, value in zip(names, session.run(None, feed), strict=True):
            outputs[f"{index}/{name}"] = value
        if index < rounds:
            started = time.perf_counter()
            session.run(None, feed)
            seconds.append(time.perf_counter() - started)
    np.savez(found, **outputs)
    print(json.dumps({"ms": 1000 * float(np.median(seconds)), "onnxruntime": onnxruntime.__version__}))


def _there(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
