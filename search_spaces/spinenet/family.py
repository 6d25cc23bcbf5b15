"""The two families of scale-permuted networks: blocks of ResNet (SpineNet) and of MobileNet (Mobile SpineNet).

Du et al. 2020 (arXiv 1912.05027), section 3 and appendix A. Importing this file does not import torch.
"""

from abc import abstractmethod
from itertools import pairwise
from typing import Any, Literal, cast

from search_spaces.architecture import Architecture, Value, digest_of
from search_spaces.errors import InvalidArchitecture
from search_spaces.family import Cost, Family, Level, check_identity, check_keys
from search_spaces.spinenet.costs import (
    BASE_WIDTHS,
    MOBILE_STEM,
    MOBILE_WIDTHS,
    MobileShape,
    Shape,
    SpineNetShape,
    costs_by_part,
    spinenet_width,
)
from search_spaces.spinenet.fields import level_fields
from search_spaces.spinenet.graph import LOWEST, OUTPUT_LEVELS, Graph, Kind, Node, check
from search_spaces.spinenet.wiring import UNCONNECTED, Unconnected, dead_places, wire

TYPES: tuple[Kind, ...] = ("bottleneck", "residual")
OUTPUTS = len(OUTPUT_LEVELS)


class GraphFamily(Family):
    """What both families share: genes ``levels`` and ``parents``, one entry for each permuted block.

    The last five blocks are the outputs. ``parents`` holds two different earlier places in ascending order; a
    single one is read too, because damaged graphs of the ablations have such blocks.
    """

    @abstractmethod
    def graph(self, architecture: Architecture, window: int | None = None) -> Graph:
        """The graph of an architecture, stem blocks first.

        Args:
            architecture: a member of this family.
            window: an intermediate block may read only so many of the places before it; None: any.

        Raises:
            InvalidArchitecture: see :meth:`validate`; or a parent outside the window.
        """

    @abstractmethod
    def shape(self, architecture: Architecture) -> Shape:
        """The wired network with its widths, all that costs and drawings need."""

    def dead(self, architecture: Architecture) -> tuple[int, ...]:
        """Places from which no output can be reached after the unconnected-block rule, ascending."""
        shape = self.shape(architecture)
        return dead_places(shape.blocks, len(shape.stem))

    def text(self, architecture: Architecture) -> str:
        """Levels and types, outputs after a bar, and a key of the parents, which would not fit.

        ``2,4,3,4,6,4,5,7,5,5|5,4,3,7,6 BRBBRBRRBB|BBBBB parents 3a1f`` for 15 blocks, B a bottleneck and R a
        residual block; equal keys, four hexadecimal digits of a digest, mean equal parents but for chance.
        """
        genes = architecture.genes
        levels = cast(tuple[int, ...], genes["levels"])
        types = "".join(kind[0].upper() for kind in cast(tuple[str, ...], genes.get("types", ())))
        inner, outputs = (",".join(map(str, part)) for part in (levels[:-OUTPUTS], levels[-OUTPUTS:]))
        parts = [f"{inner}|{outputs}"]
        parts += [f"{types[:-OUTPUTS]}|{types[-OUTPUTS:]}"] if types else []
        return " ".join([*parts, f"parents {digest_of(genes['parents'])[:4]}"])

    def validate(self, architecture: Architecture) -> None:
        """Check every setting and gene; see :meth:`Family.validate`."""
        self.graph(architecture)

    def cost_by_stage(self, architecture: Architecture, input_size: tuple[int, int]) -> dict[str, Cost]:
        """Cost of conv1, stem, blocks, resamples and endpoints; see :meth:`Family.cost_by_stage`."""
        return costs_by_part(self.shape(architecture), input_size)

    def fields(self, architecture: Architecture) -> dict[str, int]:
        """Level name -> side of the largest field; the gates of mobile blocks are left out."""
        return level_fields(self.shape(architecture))

    def levels(self, architecture: Architecture) -> dict[str, Level]:
        """Channels and stride of p3 to p7."""
        self.validate(architecture)
        endpoint = cast(int, architecture.settings["endpoint"])
        return {f"p{level}": Level(endpoint, 2**level) for level in OUTPUT_LEVELS}


class SpineNetFamily(GraphFamily):
    """SpineNet: ``settings`` stem, filter_size_scale, alpha, repeats, endpoint, activation, pool, unconnected.

    Genes are levels, types and parents.
    """

    name = "spinenet"
    module = "search_spaces.spinenet.network"
    network = "SpineNet"
    settings = (
        "stem",
        "filter_size_scale",
        "alpha",
        "repeats",
        "endpoint",
        "activation",
        "pool",
        "unconnected",
    )
    genes = ("levels", "types", "parents")

    def graph(self, architecture: Architecture, window: int | None = None) -> Graph:
        """The checked graph; see :meth:`GraphFamily.graph`."""
        check_identity(self, architecture)
        settings = architecture.settings
        check_keys("settings", settings, self.settings)
        stem = _stem(settings["stem"])
        scale = _positive_float("settings.filter_size_scale", settings["filter_size_scale"])
        narrowest = int(BASE_WIDTHS[LOWEST] * scale)
        _check_channels("settings.filter_size_scale", scale, narrowest)
        alpha = _positive_float("settings.alpha", settings["alpha"])
        _check_channels("settings.alpha", alpha, int(narrowest * alpha))
        _positive("settings.repeats", settings["repeats"])
        _positive("settings.endpoint", settings["endpoint"])
        _one_of("settings.activation", settings["activation"], ("relu", "swish"))
        _one_of("settings.pool", settings["pool"], ("single", "chain"))
        _one_of("settings.unconnected", settings["unconnected"], UNCONNECTED)
        check_keys("genes", architecture.genes, self.genes)
        levels = _levels(architecture.genes["levels"])
        types = architecture.genes["types"]
        if not isinstance(types, tuple) or not all(one in TYPES for one in types):
            raise InvalidArchitecture(f"types: found {types!r}; allowed is a list of {' and '.join(TYPES)}")
        _check_length("types", types, levels)
        parents = _parents(architecture.genes["parents"], levels)
        return _graph(stem, "bottleneck", levels, cast(tuple[Kind, ...], types), parents, window)

    def shape(self, architecture: Architecture) -> SpineNetShape:
        """The wired network with its widths."""
        graph, settings = self.graph(architecture), architecture.settings
        scale = cast(float, settings["filter_size_scale"])
        widths = [spinenet_width(node.level, node.kind, scale) for node in graph.nodes]
        return SpineNetShape(
            stem=cast(tuple[int, ...], settings["stem"]),
            blocks=wire(graph, widths, cast(Unconnected, settings["unconnected"])),
            scale=scale,
            repeats=cast(int, settings["repeats"]),
            endpoint=cast(int, settings["endpoint"]),
            alpha=cast(float, settings["alpha"]),
            pool=cast(Literal["single", "chain"], settings["pool"]),
        )

    def arguments(self, architecture: Architecture) -> dict[str, Any]:
        """Keyword arguments of :class:`search_spaces.spinenet.network.SpineNet`."""
        shape = self.shape(architecture)
        return {
            "stem": shape.stem,
            "blocks": tuple((one.level, one.kind, one.parents, one.merged) for one in shape.blocks),
            "filter_size_scale": shape.scale,
            "alpha": shape.alpha,
            "repeats": shape.repeats,
            "endpoint": shape.endpoint,
            "activation": architecture.settings["activation"],
            "pool": shape.pool,
        }


class MobileSpineNetFamily(GraphFamily):
    """Mobile SpineNet: ``settings`` filter_size_scale, repeats, endpoint, activation, gate, unconnected.

    Genes are levels and parents; all blocks are inverted bottlenecks and the stem is fixed.
    """

    name = "spinenet.mobile"
    module = "search_spaces.spinenet.mobile"
    network = "MobileSpineNet"
    settings = ("filter_size_scale", "repeats", "endpoint", "activation", "gate", "unconnected")
    genes = ("levels", "parents")

    def graph(self, architecture: Architecture, window: int | None = None) -> Graph:
        """The checked graph; see :meth:`GraphFamily.graph`."""
        check_identity(self, architecture)
        settings = architecture.settings
        check_keys("settings", settings, self.settings)
        scale = _positive_float("settings.filter_size_scale", settings["filter_size_scale"])
        _check_channels("settings.filter_size_scale", scale, int(MOBILE_WIDTHS[0] * scale))
        _positive("settings.repeats", settings["repeats"])
        _positive("settings.endpoint", settings["endpoint"])
        _one_of("settings.activation", settings["activation"], ("swish", "hswish"))
        _one_of("settings.gate", settings["gate"], ("sigmoid", "hard_sigmoid"))
        _one_of("settings.unconnected", settings["unconnected"], UNCONNECTED)
        check_keys("genes", architecture.genes, self.genes)
        levels = _levels(architecture.genes["levels"])
        parents = _parents(architecture.genes["parents"], levels)
        kind: Kind = "mbconv"
        return _graph(MOBILE_STEM, "mbconv", levels, (kind,) * len(levels), parents, window)

    def shape(self, architecture: Architecture) -> MobileShape:
        """The wired network with its widths."""
        graph, settings = self.graph(architecture), architecture.settings
        scale = cast(float, settings["filter_size_scale"])
        widths = [int(MOBILE_WIDTHS[node.level] * scale) for node in graph.nodes]
        return MobileShape(
            stem=MOBILE_STEM,
            blocks=wire(graph, widths, cast(Unconnected, settings["unconnected"])),
            scale=scale,
            repeats=cast(int, settings["repeats"]),
            endpoint=cast(int, settings["endpoint"]),
        )

    def arguments(self, architecture: Architecture) -> dict[str, Any]:
        """Keyword arguments of :class:`search_spaces.spinenet.mobile.MobileSpineNet`."""
        shape = self.shape(architecture)
        return {
            "blocks": tuple((one.level, one.parents, one.merged) for one in shape.blocks),
            "filter_size_scale": shape.scale,
            "repeats": shape.repeats,
            "endpoint": shape.endpoint,
            "activation": architecture.settings["activation"],
            "gate": architecture.settings["gate"],
        }


SPINENET = SpineNetFamily()
MOBILE_SPINENET = MobileSpineNetFamily()


def _graph(
    stem: tuple[int, ...],
    stem_kind: Kind,
    levels: tuple[int, ...],
    kinds: tuple[Kind, ...],
    parents: tuple[tuple[int, ...], ...],
    window: int | None,
) -> Graph:
    first = len(levels) - OUTPUTS
    chain = tuple(Node(level, stem_kind) for level in stem)
    permuted = tuple(
        Node(level, kind, read, index >= first)
        for index, (level, kind, read) in enumerate(zip(levels, kinds, parents, strict=True))
    )
    graph = Graph((*chain, *permuted), len(stem))
    if all(len(read) == 2 for read in parents):
        return check(graph, window=window)
    # The rules speak of two parents; a damaged block passes with any second one beside its own.
    whole = tuple(
        Node(node.level, node.kind, (node.parents[0], _other(node.parents[0], place)), node.output)
        if len(node.parents) == 1
        else node
        for place, node in enumerate(graph.nodes)
    )
    check(Graph(whole, graph.stem), window=window)
    return graph


def _other(parent: int, place: int) -> int:
    return place - 1 if parent != place - 1 else place - 2


def _stem(value: Value) -> tuple[int, ...]:
    steps_are_small = (
        isinstance(value, tuple)
        and len(value) > 0
        and all(isinstance(level, int) for level in value)
        and value[0] == 2
        and all(0 <= after - before <= 1 for before, after in pairwise(value))  # type: ignore[operator]
    )
    if not steps_are_small or value[-1] > 5:  # type: ignore[index, operator]
        raise InvalidArchitecture(
            f"settings.stem: found {value!r}; allowed are levels from 2 to 5 that begin with 2 and stay or rise "
            f"by one from block to block"
        )
    return cast(tuple[int, ...], value)


def _levels(value: Value) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(isinstance(level, int) for level in value):
        raise InvalidArchitecture(f"levels: found {value!r}; allowed is a list of integers, one a block")
    if len(value) < OUTPUTS:
        raise InvalidArchitecture(
            f"levels: found {len(value)} blocks; needed are at least the {OUTPUTS} outputs, which come last"
        )
    return cast(tuple[int, ...], value)


def _parents(value: Value, levels: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    if not isinstance(value, tuple):
        raise InvalidArchitecture(f"parents: found {value!r}; allowed is a list of pairs, one a block")
    _check_length("parents", value, levels)
    for pair in value:
        if (
            not isinstance(pair, tuple)
            or len(pair) not in (1, 2)
            or not all(isinstance(one, int) for one in pair)
        ):
            raise InvalidArchitecture(
                f"parents: found {pair!r}; allowed are two earlier blocks, as integers (one in a damaged graph)"
            )
        # (3, 5) and (5, 3) would be one network with two digests.
        if len(pair) == 2 and pair[0] > pair[1]:  # type: ignore[operator]
            raise InvalidArchitecture(f"parents: found {list(pair)}; allowed is the smaller first")
    return cast(tuple[tuple[int, ...], ...], value)


def _check_length(where: str, found: tuple[Value, ...], levels: tuple[int, ...]) -> None:
    if len(found) != len(levels):
        raise InvalidArchitecture(
            f"{where}: found {len(found)} for {len(levels)} levels; needed is one for each block"
        )


def _one_of(where: str, value: Value, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidArchitecture(f"{where}: found {value!r}; allowed are {', '.join(allowed)}")


def _positive(where: str, value: Value) -> None:
    if not isinstance(value, int) or value < 1:
        raise InvalidArchitecture(f"{where}: found {value!r}; allowed are integers from 1")


def _positive_float(where: str, value: Value) -> float:
    # 1 and 1.0 would be one network with two digests.
    if not isinstance(value, float) or not 0 < value < float("inf"):
        raise InvalidArchitecture(
            f"{where}: found {value!r}; allowed are positive numbers written with a point, as 1.0"
        )
    return value


def _check_channels(where: str, value: float, channels: int) -> None:
    if channels < 1:
        raise InvalidArchitecture(
            f"{where}: found {value!r}; allowed are numbers that leave the narrowest map a channel"
        )
