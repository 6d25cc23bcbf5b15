"""What a stranger does with a bundle, with nothing but torch: python examples/use_a_bundle.py runs/demo/bundle"""

import importlib.util
import sys
from pathlib import Path

import torch

bundle = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo/bundle")
spec = importlib.util.spec_from_file_location("backbone", bundle / "backbone.py")
assert spec is not None and spec.loader is not None
backbone_file = importlib.util.module_from_spec(spec)
spec.loader.exec_module(backbone_file)

weights = bundle / "weights.safetensors"
backbone = backbone_file.load(weights) if weights.exists() else backbone_file.build()
for level, features in backbone.eval()(torch.zeros(1, 3, 128, 128)).items():
    print(level, tuple(features.shape))
