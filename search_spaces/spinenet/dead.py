"""Dead blocks: intermediate blocks from which nothing reads, under the rule of the authors' released code.

An output block also takes in an unread block of its own level, but only where both have the same number of
channels (Du et al. 2020, arXiv 1912.05027, section 3.3, and the code): a bottleneck has four times the channels
of a residual block, so an unread block of the other type, or at a level without an output, leads nowhere.
"""

import random
from dataclasses import replace

from search_spaces.architecture import Architecture, Genes
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.space import SearchSpace
from search_spaces.spinenet.family import GraphFamily


def dead_blocks(architecture: Architecture) -> tuple[int, ...]:
    """Places of the intermediate blocks that nothing reads and no output takes in, ascending.

    The published rule is applied, whatever ``settings.unconnected`` says. Blocks that only dead blocks read are
    not listed (:meth:`~search_spaces.spinenet.family.GraphFamily.dead` lists these too); there are some only where
    there is one that nothing reads.

    Raises:
        InvalidArchitecture: not a scale-permuted network, or an invalid one.
    """
    settings = Genes({**architecture.settings, "unconnected": "published"})
    shape = _family(architecture).shape(replace(architecture, settings=settings))
    read = {place for block in shape.blocks for place in (*block.parents, *block.merged)}
    places = range(len(shape.stem), len(shape.stem) + len(shape.blocks))
    return tuple(
        place
        for place, block in zip(places, shape.blocks, strict=True)
        if not block.output and place not in read
    )


def why_dead(architecture: Architecture) -> str | None:
    """The sentence that rejects a network with dead blocks, or None where it has none."""
    dead = dead_blocks(architecture)
    if not dead:
        return None
    nodes = _family(architecture).graph(architecture).nodes
    found = ", ".join(f"block {place} (level {nodes[place].level}, {nodes[place].kind})" for place in dead)
    return (
        f"dead: nothing reads {found}, and no output block of that level and type takes "
        f"{'it' if len(dead) == 1 else 'them'} in; choose dead: connect or allow to score such networks"
    )


def dead_share(space: SearchSpace, draws: int, rng: random.Random) -> float:
    """Share of uniform draws from a space of scale-permuted networks that have a dead block."""
    return sum(bool(dead_blocks(space.sample(rng))) for _ in range(draws)) / draws


def _family(architecture: Architecture) -> GraphFamily:
    family = family_of(architecture)
    if not isinstance(family, GraphFamily):
        raise InvalidArchitecture(
            f"found a network of the family {family.name}; allowed are scale-permuted ones"
        )
    return family
