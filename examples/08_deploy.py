"""Pictures through the exported detector, by onnxruntime alone too: python examples/08_deploy.py [DIR]

After examples/06_export.py. With the toolkit: nas predict runs/examples/bundle PICTURE --out runs/examples/predicted,
and nas benchmark runs/examples/bundle --input 64x64 for how long it takes.
"""

import sys
from pathlib import Path

from nas.predicting import predict
from trainers.data.catalog import open_split
from trainers.data.digits import write_folder
from trainers.recipes import DataRecipe, DigitsRecipe

if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
    scenes = DigitsRecipe(
        train_images=2, val_images=4, image_size=64, min_side=20, max_side=56, classes=(1, 7), seed=9
    )
    recipe = DataRecipe(source="digits", digits=scenes)
    write_folder(recipe, directory / "pictures")

    # Drawn, and as a list in COCO's form.
    predict(directory / "bundle", [directory / "pictures/images"], directory / "predicted", threshold=0.05)
    print(f"look at {directory / 'predicted'}")

    # The same without the toolkit and without torch: bytes (N, 3, H, W) in, boxes, scores and labels out.
    try:
        import onnxruntime
    except ImportError:
        print("pip install onnxruntime to run detector.onnx")
    else:
        session = onnxruntime.InferenceSession(str(directory / "bundle/detector.onnx"))
        images = open_split(recipe, "val").images[:1].numpy()
        names = [one.name for one in session.get_outputs()]
        for name, values in zip(
            names, session.run(None, {session.get_inputs()[0].name: images}), strict=True
        ):
            print(name, values.shape, values[:2].tolist())
