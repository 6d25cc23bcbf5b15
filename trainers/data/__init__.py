"""Images with boxes and masks, in memory: COCO folders and scenes of handwritten digits."""
