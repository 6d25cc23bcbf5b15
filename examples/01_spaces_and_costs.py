"""Spaces, architectures and their exact costs, without building a network: python examples/01_spaces_and_costs.py"""

from search_spaces.catalog import get_architecture, get_space
from search_spaces.cost import cost, trf
from search_spaces.randomness import rng_for

space = get_space("crnas.resnet50.stages")
print(f"{space.name}: {space.size} allocations, for example:")
for number in range(3):
    architecture = space.sample(rng_for(0, number))
    print(f"  {architecture.genes['blocks']}  {cost(architecture, (800, 1088)).macs / 1e9:.2f} GMAC")

for name in ("resnet50", "scr_resnet50"):
    architecture = get_architecture(name)
    found = cost(architecture, (800, 1088))
    print(f"{name}: {found.params:,} parameters, {found.macs:,} MACs, receptive fields {trf(architecture)}")
