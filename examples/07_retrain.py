"""The winner in another detector, trained to completion: python examples/07_retrain.py [DIR]

After examples/06_export.py, whose bundle it takes. The same on the command line:

nas train runs/examples/bundle RECIPE --run runs/examples/retrained
"""

import sys
from pathlib import Path

from nas.config import check
from nas.progress import ConsoleProgress
from nas.recipes.train_job import TrainJobRecipe
from nas.training import train_bundle

if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
    recipe = check(
        TrainJobRecipe,
        {
            "name": "retrained",
            "data": {
                "source": "digits",
                "digits": {
                    "train_images": 96,
                    "val_images": 24,
                    "image_size": 64,
                    "min_side": 20,
                    "max_side": 56,
                    "classes": [1, 7],
                },
            },
            # Found inside FCOS, used in Faster R-CNN: a backbone is one file and fits into any detector of the catalog.
            "detector": {
                "name": "faster_rcnn",
                "fpn_channels": 16,
                "levels": ["c3", "c4", "c5"],
                "anchor_scale": 2.0,
                "roi_scale": 3.5,
                "box_head": 64,
            },
            "init": "bundle",
            "train": {"epochs": 6, "batch_size": 8, "lr": 0.005},
        },
        source="examples/07_retrain.py",
    )
    with ConsoleProgress() as progress:
        metrics = train_bundle(str(directory / "bundle"), recipe, directory / "retrained", progress)
    print({name: round(value, 3) for name, value in metrics.items() if isinstance(value, float)})
    print(f"evaluate it again: nas evaluate {directory / 'retrained'}")
