"""One self-contained page about a search, and the statistics behind its sentences."""
