"""Each paper's procedure, readable from top to bottom."""
