"""What can be built: draw networks from a space, change them, write them as numbers: python examples/02_sample.py

All spaces: nas spaces
"""

from search_spaces.catalog import SPACES, get_space
from search_spaces.randomness import rng_for

for name in SPACES:
    print(
        f"{name}: {get_space(name).size:.4g} networks"
        if get_space(name).size > 10**6
        else f"{name}: {get_space(name).size}"
    )

space = get_space("crnas.resnet50.stages")
# Whoever draws brings the generator: the same seed gives the same networks in every process.
rng = rng_for(1, "example")
first, second = space.sample(rng), space.sample(rng)
print("drawn       ", first.genes["blocks"], second.genes["blocks"])
print("mutated     ", space.mutate(first, rng).genes["blocks"])
print("crossed over", space.crossover(first, second, rng).genes["blocks"])
print("next to it  ", [one.genes["blocks"] for one in space.neighbours(first)][:4])

# Any optimiser of numbers can drive a space: every combination in range stands for a valid network.
params = space.encode(first)
print("as numbers  ", params)
assert space.decode(params) == first
