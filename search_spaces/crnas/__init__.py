"""Computation reallocation for detection backbones (Liang et al., ICLR 2020, arXiv 1912.11234)."""
