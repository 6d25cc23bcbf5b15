"""Weight-sharing networks for CR-NAS: one over block counts, one over dilations.

Liang et al. 2020 (arXiv 1912.11234), sections 3.2 and 3.3: every training step sets one path, drawn
uniformly, and only its weights run and learn. The blocks are those of ``resnet.py`` and ``mobilenet.py``,
so a path computes exactly what the stand-alone network computes.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Literal, cast

import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, Genes
from search_spaces.crnas.anatomy import ANATOMIES, Anatomy
from search_spaces.crnas.path_memory import PathMemory
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.family import ChainFamily
from search_spaces.layer import layer_costs

Sharing = Literal["independent", "prefix"]


@dataclass(frozen=True)
class Part:
    """A piece of the active path.

    Args:
        name: of the module in the stand-alone network.
        module: of the supernet.
        level: of the feature map it completes, if it does.
    """

    name: str
    module: nn.Module
    level: str | None = None


class Choice(nn.Module):
    """Several modules in the place of one; ``active`` says which one runs."""

    def __init__(self, options: dict[int, nn.Module]) -> None:
        super().__init__()
        self.options = nn.ModuleDict({str(key): option for key, option in options.items()})
        self.active = next(iter(self.options))

    def forward(self, x: Tensor) -> Tensor:
        """What the active option computes."""
        out: Tensor = self.options[self.active](x)
        return out


class Supernet(nn.Module, ABC):
    """A backbone in which one path at a time is active.

    Attributes:
        levels: name -> (channels, stride) of what ``forward`` returns, the same for every path.
        memory: what the beginnings of paths have computed, while candidates are scored; None: everything is computed.
    """

    memory: PathMemory | None = None

    def __init__(self, architecture: Architecture) -> None:
        """Set up what all paths share: levels, stem and tail, taken from any member architecture."""
        super().__init__()
        self._family = family_of(architecture)
        self._anatomy: Anatomy = ANATOMIES[architecture.family](architecture.settings)
        self._settings = architecture.settings
        self.levels: dict[str, tuple[int, int]] = {
            name: (level.channels, level.stride) for name, level in self._family.levels(architecture).items()
        }
        stem = self._anatomy.stem()
        self._stem_names = tuple(stem)
        self.stem = nn.ModuleList(stem.values())
        self.tail = nn.ModuleList(self._anatomy.tail())
        self._active: tuple[Part, ...] = ()
        self._macs: dict[Hashable, int] = {}

    @cached_property
    def every_choice(self) -> tuple[Choice, ...]:
        """All in it, looked for once: a search asks for every batch, and a supernet has thousands of modules."""
        return tuple(module for module in self.modules() if isinstance(module, Choice))

    @abstractmethod
    def blocks(self, architecture: Architecture) -> list[list[nn.Module]]:
        """The blocks of each stage on this path; choices inside them are set.

        Raises:
            InvalidArchitecture: an architecture that is no path of this supernet.
        """

    def parts(self, architecture: Architecture) -> tuple[Part, ...]:
        """Everything on a path in execution order; choices inside it are set.

        Raises:
            InvalidArchitecture: an architecture that is no path of this supernet.
        """
        self._family.validate(architecture)
        if (architecture.family, architecture.settings) != (self._family.name, self._settings):
            raise InvalidArchitecture(
                f"cannot take a path: {architecture.family} with {dict(architecture.settings)} is not the "
                f"network of this supernet, {self._family.name} with {dict(self._settings)}"
            )
        stages = [*self.blocks(architecture), list(self.tail)]
        counts = cast(tuple[int, ...], architecture.genes["blocks"])
        parts = [Part(name, layer) for name, layer in zip(self._stem_names, self.stem, strict=True)]
        last = len(self.levels) - 1
        for stage, (names, chain) in enumerate(zip(self._anatomy.names(counts), stages, strict=True)):
            parts += [Part(name, module) for name, module in zip(names, chain, strict=True)]
            if stage < last:
                parts[-1] = Part(parts[-1].name, parts[-1].module, tuple(self.levels)[stage])
        parts[-1] = Part(parts[-1].name, parts[-1].module, tuple(self.levels)[last])
        return tuple(parts)

    @property
    def remembers(self) -> bool:
        """Whether the next pass begins behind the images, which it then does not look at."""
        return self.memory is not None and self.memory.resume() is not None

    def set_path(self, architecture: Architecture) -> None:
        """Make this architecture the one that ``forward`` computes.

        Raises:
            InvalidArchitecture: an architecture that is no path of this supernet.
        """
        self._active = self.parts(architecture)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (N, 3, H, W) -> level name -> feature map, along the path last set."""
        assert self._active, "call set_path before forward"
        done, x, maps = 0, images, dict[str, Tensor]()
        if self.memory is not None and (held := self.memory.resume()) is not None:
            done, x, maps = held
        for length, part in enumerate(self._active[done:], start=done + 1):
            x = part.module(x)
            if part.level is not None:
                maps[part.level] = x
            if self.memory is not None:
                self.memory.keep(length, x, maps)
        return maps

    def beginnings(self, architecture: Architecture, blocks: int | None = None) -> list[Hashable]:
        """Keys of the first parts of a path, as :meth:`PathMemory.scoring` takes them; the path set stays.

        Args:
            architecture: the path.
            blocks: so many of its blocks are the same in all batches of a candidate; None: all.
        """
        key, found = tuple[Hashable, ...](), list[Hashable]()
        with _ChoicesKept(self):
            for part in self.parts(architecture)[: None if blocks is None else len(self.stem) + blocks]:
                choices = tuple(one.active for one in part.module.modules() if isinstance(one, Choice))
                # The same block ends a stage on one path and stands inside it on another.
                key = (*key, (id(part.module), part.level, choices))
                found.append(key)
        return found

    def macs(self, architecture: Architecture, input_size: tuple[int, int], *, behind: int = 0) -> int:
        """Multiply-adds for one image of what comes behind the first parts of a path.

        Args:
            architecture: the path.
            input_size: (height, width) px.
            behind: so many parts are not counted.
        """
        assert isinstance(self._family, ChainFamily), "a path is a chain"
        # Dilations cost nothing, and a search asks for every batch.
        key = (architecture.genes["blocks"], input_size, behind)
        if key not in self._macs:
            with _ChoicesKept(self):
                names = [part.name for part in self.parts(architecture)[:behind]]
            self._macs[key] = sum(
                spent.macs
                for layer, spent in layer_costs(self._family.layers(architecture), input_size)
                if not any(layer.name == name or layer.name.startswith(f"{name}.") for name in names)
            )
        return self._macs[key]

    def active_modules(self, architecture: Architecture) -> tuple[nn.Module, ...]:
        """Every module without children that runs on this path; the path set stays what it was."""
        with _ChoicesKept(self):
            return tuple(
                leaf for part in self.parts(architecture) for _, leaf in _running_leaves(part.module, "")
            )

    def slice(self, architecture: Architecture) -> dict[str, Tensor]:
        """Copies of a path's weights, named so that the stand-alone network loads them strictly."""
        with _ChoicesKept(self):
            return {
                f"{part.name}.{name}.{key}" if name else f"{part.name}.{key}": value.detach().clone()
                for part in self.parts(architecture)
                for name, leaf in _running_leaves(part.module, "")
                for key, value in leaf.state_dict().items()
            }


class StageSupernet(Supernet):
    """Every allowed number of blocks in every stage.

    Args:
        family: ``"crnas.resnet"`` or ``"crnas.mobilenetv2"``.
        settings: of the family.
        branches: for each stage, the numbers of blocks to choose from.
        sharing: ``"independent"`` gives every number its own chain of blocks (the paper's figure 2);
            ``"prefix"`` keeps one chain a stage, of which ``t`` blocks are the first ``t`` (of each width
            where a stage has two), a cheaper variant of ours.
        seed: of the weights; without it they come from torch's global generator.

    Raises:
        InvalidArchitecture: settings, branches or sharing that cannot be used.
    """

    def __init__(
        self,
        *,
        family: str,
        settings: Genes,
        branches: Sequence[Sequence[int]],
        sharing: Sharing = "independent",
        seed: int | None = None,
    ) -> None:
        table = _checked_branches(family, settings, branches)
        if sharing not in ("independent", "prefix"):
            raise InvalidArchitecture(f"sharing: found {sharing!r}; allowed are 'independent' and 'prefix'")
        super().__init__(_plain(family, settings, tuple(counts[0] for counts in table)))
        self.branches = table
        self.sharing = sharing
        self.stages = nn.ModuleList()
        inputs = self._anatomy.stem_channels()
        for stage, counts in enumerate(self.branches):
            make = self._independent if sharing == "independent" else self._prefix
            self.stages.append(make(stage, inputs, counts))
            inputs = self._anatomy.widths(stage, counts[0])[-1]
        if seed is not None:
            self._anatomy.initialise(self, torch.Generator().manual_seed(seed))

    def blocks(self, architecture: Architecture) -> list[list[nn.Module]]:
        """See :meth:`Supernet.blocks`."""
        counts = cast(tuple[int, ...], architecture.genes["blocks"])
        if set(cast(tuple[int, ...], architecture.genes["dilations"])) != {1}:
            raise InvalidArchitecture(
                f"cannot take the path of {architecture}: a stage supernet has dilation 1 only"
            )
        for stage, (count, allowed) in enumerate(zip(counts, self.branches, strict=True)):
            if count not in allowed:
                raise InvalidArchitecture(
                    f"cannot take the path of {architecture}: {count} blocks in stage {stage + 1}; "
                    f"allowed are {list(allowed)}"
                )
        return [list(self._branch(stage, count)) for stage, count in enumerate(counts)]

    def _branch(self, stage: int, count: int) -> Iterator[nn.Module]:
        chains = cast(nn.ModuleDict, self.stages[stage])
        if self.sharing == "independent":
            yield from cast(nn.ModuleList, chains[str(count)])
            return
        for width, run in groupby(self._anatomy.widths(stage, count)):
            yield from list(cast(nn.ModuleList, chains[str(width)]))[: len(list(run))]

    def _independent(self, stage: int, inputs: int, counts: Sequence[int]) -> nn.ModuleDict:
        stride = self._anatomy.strides[stage]
        return nn.ModuleDict(
            {
                str(count): nn.ModuleList(
                    self._anatomy.chain(inputs, self._anatomy.widths(stage, count), stride)
                )
                for count in counts
            }
        )

    def _prefix(self, stage: int, inputs: int, counts: Sequence[int]) -> nn.ModuleDict:
        longest: dict[int, int] = {}
        for count in counts:
            for width, run in groupby(self._anatomy.widths(stage, count)):
                longest[width] = max(longest.get(width, 0), len(list(run)))
        chains, stride = nn.ModuleDict(), self._anatomy.strides[stage]
        for width, length in longest.items():
            chains[str(width)] = nn.ModuleList(self._anatomy.chain(inputs, [width] * length, stride))
            inputs, stride = width, 1
        return chains


class DilationSupernet(Supernet):
    """One choice of convolution and normalisation for each dilation of every block; the rest is shared.

    Args:
        base: the architecture whose dilations are open; its own dilations are ignored.
        choices: the dilations of every block.
        seed: of the weights; without it they come from torch's global generator.

    Raises:
        InvalidArchitecture: a base or choices that cannot be used.
    """

    def __init__(
        self, base: Architecture, *, choices: Sequence[int] = (1, 2, 3), seed: int | None = None
    ) -> None:
        if not choices or len(set(choices)) != len(choices):
            raise InvalidArchitecture(f"choices: found {list(choices)}; allowed are distinct dilations")
        family_of(base).validate(base)
        counts = cast(tuple[int, ...], base.genes["blocks"])
        plain = _plain(base.family, base.settings, counts)
        for dilation in choices:
            family_of(base).validate(_with_dilation(plain, dilation))
        super().__init__(plain)
        self.choices, self.counts = tuple(choices), counts
        self.stages = nn.ModuleList()
        inputs = self._anatomy.stem_channels()
        for stage, count in enumerate(self.counts):
            widths = self._anatomy.widths(stage, count)
            chains = [self._anatomy.chain(inputs, widths, self._anatomy.strides[stage]) for _ in self.choices]
            self.stages.append(nn.ModuleList(self._merged(options) for options in zip(*chains, strict=True)))
            inputs = widths[-1]
        if seed is not None:
            self._anatomy.initialise(self, torch.Generator().manual_seed(seed))

    def blocks(self, architecture: Architecture) -> list[list[nn.Module]]:
        """See :meth:`Supernet.blocks`."""
        counts = cast(tuple[int, ...], architecture.genes["blocks"])
        dilations = cast(tuple[int, ...], architecture.genes["dilations"])
        if counts != self.counts or not set(dilations) <= set(self.choices):
            raise InvalidArchitecture(
                f"cannot take the path of {architecture}: this supernet has blocks {list(self.counts)} "
                f"and dilations {list(self.choices)}"
            )
        stages = [list(cast(nn.ModuleList, stage)) for stage in self.stages]
        for block, dilation in zip((block for stage in stages for block in stage), dilations, strict=True):
            for module in block.modules():
                if isinstance(module, Choice):
                    module.active = str(dilation)
        return stages

    def inherit(self, state: dict[str, Tensor]) -> None:
        """Start from a stand-alone network's weights; every dilation of a block gets the same copy.

        Args:
            state: of the base architecture, as :meth:`Supernet.slice` of a stage supernet gives it.
        """
        for dilation in self.choices:
            architecture = _with_dilation(_plain(self._family.name, self._settings, self.counts), dilation)
            with _ChoicesKept(self):
                for part in self.parts(architecture):
                    for name, leaf in _running_leaves(part.module, ""):
                        prefix = f"{part.name}.{name}." if name else f"{part.name}."
                        leaf.load_state_dict({key: state[prefix + key] for key in leaf.state_dict()})

    def _merged(self, options: Sequence[nn.Module]) -> nn.Module:
        """The first block, with a choice where its dilated convolution and normalisation were."""
        block = options[0]
        for path in cast(tuple[str, str], block.dilated):
            found = {
                dilation: option.get_submodule(path)
                for dilation, option in zip(self.choices, options, strict=True)
            }
            for dilation, module in found.items():
                if isinstance(module, nn.Conv2d):
                    module.dilation = module.padding = (dilation, dilation)
            block.set_submodule(path, Choice(found))
        return block


class _ChoicesKept:
    """Leaves every choice as it was before the ``with``."""

    def __init__(self, supernet: Supernet) -> None:
        self._choices = supernet.every_choice

    def __enter__(self) -> None:
        self._before = [choice.active for choice in self._choices]

    def __exit__(self, *_: object) -> None:
        for choice, active in zip(self._choices, self._before, strict=True):
            choice.active = active


def _running_leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Modules without children, by their name in the stand-alone block; of a choice, the active option."""
    if isinstance(module, Choice):
        yield from _running_leaves(module.options[module.active], name)
        return
    children = list(module.named_children())
    if not children:
        yield name, module
    for child, inner in children:
        yield from _running_leaves(inner, f"{name}.{child}" if name else child)


def _checked_branches(
    family: str, settings: Genes, branches: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    table = tuple(tuple(counts) for counts in branches)
    if len(table) != 4 or any(not counts or len(set(counts)) != len(counts) for counts in table):
        raise InvalidArchitecture(
            f"branches: found {[list(counts) for counts in table]}; allowed are four lists of distinct block "
            f"counts, one a stage"
        )
    smallest = [min(counts) for counts in table]
    for stage, counts in enumerate(table):
        for count in counts:
            _plain(family, settings, (*smallest[:stage], count, *smallest[stage + 1 :]))
    return table


def _plain(family: str, settings: Genes, blocks: tuple[int, ...]) -> Architecture:
    genes = Genes({"blocks": blocks, "dilations": (1,) * sum(blocks)})
    architecture = Architecture(family=family, settings=settings, genes=genes)
    family_of(architecture).validate(architecture)
    return architecture


def _with_dilation(architecture: Architecture, dilation: int) -> Architecture:
    blocks = cast(tuple[int, ...], architecture.genes["blocks"])
    genes = Genes({"blocks": blocks, "dilations": (dilation,) * sum(blocks)})
    return Architecture(family=architecture.family, settings=architecture.settings, genes=genes)
