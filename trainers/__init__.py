"""How a network learns and is judged: data, detectors, the training loop, COCO evaluation."""
