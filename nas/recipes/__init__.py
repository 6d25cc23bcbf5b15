"""What recipes may say. Plain dataclasses; ``nas.config`` checks them at the door."""
