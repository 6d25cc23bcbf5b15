"""Exact costs without building a network, and the limits of a search: python examples/03_cost.py"""

from search_spaces.catalog import get_space
from search_spaces.cost import cost, cost_by_stage
from search_spaces.crnas.detector_cost import faster_rcnn_macs

space = get_space("crnas.resnet50.stages")
baseline = space.baseline
size = (800, 1088)

# Blocks cost the same in every stage, so all 153 allocations have the baseline's multiply-adds, to the digit.
everything = {cost(architecture, size).macs for architecture in space.enumerate()}
print(f"{space.size} allocations, multiply-adds of the backbone: {everything}")

# Their parameters differ.
params = sorted(cost(architecture, size).params for architecture in space.enumerate())
print(f"parameters from {params[0]:,} to {params[-1]:,}; the baseline has {cost(baseline, size).params:,}")

for stage, one in cost_by_stage(baseline, size).items():
    print(f"  {stage:<8} {one.macs / 1e9:7.3f} GMAC  {one.params:>11,} parameters")

# Of a whole detector, as the paper counts it (Liang et al. 2020, table 1: 192.5 GMAC).
parts = faster_rcnn_macs(baseline, size)
print(
    f"Faster R-CNN around it: {parts.total / 1e9:.1f} GMAC, the backbone is {parts.backbone / parts.total:.0%} of it"
)
