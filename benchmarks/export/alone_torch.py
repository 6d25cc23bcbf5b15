"""Runs an exported file where there is torch only; started by clean_environments.py.

    python alone_torch.py FILE IMAGES.pt FOUND.pt ROUNDS

``FILE`` is backbone.py, backbone.pt2 or detector.pt2, with what belongs to it beside it. ``IMAGES.pt`` holds bytes
(N, 3, H, W). What the file gives for each goes into ``FOUND.pt``; a line of JSON on standard output says how long an
image took.
"""

import importlib.util
import json
import statistics
import sys
import time
from pathlib import Path

import torch


def main() -> None:
    absent = [
        name
        for name in ("torchvision", "onnxruntime", "nas", "search_spaces", "trainers", "safetensors")
        if importlib.util.find_spec(name) is not None
    ]
    assert not absent, f"this environment is not clean: {absent}"
    file, images = Path(sys.argv[1]), torch.load(sys.argv[2], weights_only=True)
    rounds = int(sys.argv[4])
    torch.set_num_threads(1)
    sys.path.insert(0, str(file.parent))
    if file.name == "detector.pt2":
        import detector

        run = detector.load(str(file))
    elif file.suffix == ".pt2":
        graph = torch.export.load(file).module()
        run = lambda image: graph(_normalised(image))  # noqa: E731
    else:
        import backbone

        network = backbone.load(str(file.parent / "weights.safetensors"))
        run = lambda image: network(_normalised(image))  # noqa: E731
    found, seconds = [], []
    with torch.no_grad():
        for index, image in enumerate(images):
            given = run(image[None])
            if isinstance(given, dict):
                given = list(given.values())
            found.append(given[0] if file.name == "detector.pt2" else list(given))
            if index < rounds:
                started = time.perf_counter()
                run(image[None])
                seconds.append(time.perf_counter() - started)
    torch.save(found, sys.argv[3])
    print(json.dumps({"ms": 1000 * statistics.median(seconds), "torch": torch.__version__}))


def _normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return (images.float() - 255 * mean) / (255 * std)


if __name__ == "__main__":
    main()
