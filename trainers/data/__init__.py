"""Images with boxes, in memory: COCO folders and scenes of handwritten digits."""
