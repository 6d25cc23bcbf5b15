"""The winner as a folder a stranger can run: architecture, weights, model card and one source file."""
