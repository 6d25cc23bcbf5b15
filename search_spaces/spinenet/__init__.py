"""Scale-permuted networks (Du et al., CVPR 2020, arXiv 1912.05027)."""
