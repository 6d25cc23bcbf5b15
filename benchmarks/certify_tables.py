"""Public tables of trained networks as search spaces with scores to look up, for ``certify.py`` beside it.

Each table is a search space of the toolkit and a mapping from architecture to what was measured of it, so that every
controller searches it through its real contract and in seconds. Networks that stand in a table twice are one
architecture, with the mean of what was measured.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import numpy as np

from search_spaces.architecture import Architecture, Genes, Value
from search_spaces.errors import InvalidArchitecture
from search_spaces.genes import Choice, Gene
from search_spaces.space import SearchSpace

MACRO = "nas_bench_macro"
ACCEL = "accel_nasbench"
FILES = {MACRO: "nas_bench_macro/nas-bench-macro_cifar10.json", ACCEL: "accel_nasbench/accel_nasbench.json"}


@dataclass(frozen=True)
class PublicTable:
    """A space, and what was measured of its architectures.

    Args:
        space: where to search.
        scores: digest -> accuracy in percent.
        costs: digest -> measured costs by name (``macs``, ``params``, latencies in ms); the smaller the better.
    """

    space: SearchSpace
    scores: Mapping[str, float]
    costs: Mapping[str, Mapping[str, float]]

    @cached_property
    def best(self) -> float:
        """The highest accuracy of the table."""
        return max(self.scores.values())


class CodeSpace(SearchSpace):
    """Networks written as a code: one choice after another.

    Args:
        name: of the space.
        genes: name -> options.
        baseline: the code of a hand-made network.
    """

    def __init__(
        self, name: str, genes: Mapping[str, tuple[int, ...]], baseline: Sequence[int] | None = None
    ) -> None:
        self.name = name
        self._genes: dict[str, Gene] = {gene: Choice(options) for gene, options in genes.items()}
        self._baseline = tuple(baseline or (options[0] for options in genes.values()))
        # Thousands of searches meet the same few thousand architectures.
        self._made: dict[tuple[Value, ...], Architecture] = {}

    @property
    def genes(self) -> Mapping[str, Gene]:
        """One choice a digit of the code."""
        return self._genes

    @property
    def baseline(self) -> Architecture:
        """As given."""
        return self.architecture(dict(zip(self._genes, self._baseline, strict=True)))

    def architecture(self, values: Mapping[str, Any]) -> Architecture:
        """See :class:`SearchSpace`."""
        return self.of_code(tuple(self.check_values(values).values()))

    def of_code(self, code: tuple[Value, ...]) -> Architecture:
        """The architecture of a code that is known to be valid."""
        if code not in self._made:
            made = Architecture(family=self.name, settings=Genes({}), genes=Genes({"code": code}))
            self._made[code] = made
        return self._made[code]

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """See :class:`SearchSpace`."""
        code = architecture.genes.get("code")
        if architecture.family != self.name or not isinstance(code, tuple):
            raise InvalidArchitecture(f"{self.name}: {architecture} is not one of its architectures")
        if self._made.get(code) is architecture:
            return dict(zip(self._genes, code, strict=True))
        return self.check_values(dict(zip(self._genes, code, strict=False)))


class PoolSpace(CodeSpace):
    """The few networks of a far larger space that were trained; any code stands for the nearest of them.

    Nearest is by the number of genes that differ; of several at the same distance, the first of the table. So every
    code decodes, as the contract of a space wants, and a mutation moves on to one of the nearest *other* networks.

    Args:
        name: of the space.
        genes: name -> options.
        pool: the codes that were trained, each once; the first is the baseline.
    """

    def __init__(
        self, name: str, genes: Mapping[str, tuple[int, ...]], pool: Sequence[tuple[int, ...]]
    ) -> None:
        self._pool = list(pool)
        self._offsets = np.cumsum([0, *(len(options) for options in genes.values())])
        self._options = [{option: place for place, option in enumerate(one)} for one in genes.values()]
        self._codes = np.zeros(
            (len(self._pool), int(self._offsets[-1])), dtype=np.float32
        )  # one-hot, (N, options)
        for row, code in zip(self._codes, self._pool, strict=True):
            row[self._columns(code)] = 1.0
        self._place = {code: place for place, code in enumerate(self._pool)}
        super().__init__(name, genes, self._pool[0])

    @property
    def distinct(self) -> int:
        """The networks of the pool."""
        return len(self._pool)

    def of_code(self, code: tuple[Value, ...]) -> Architecture:
        """The nearest network of the pool."""
        if code not in self._place:
            code = self._pool[int(self._distances(code).argmin())]
        return super().of_code(code)

    def values(self, architecture: Architecture) -> dict[str, Value]:
        """See :class:`SearchSpace`."""
        values = super().values(architecture)
        if tuple(values.values()) not in self._place:
            raise InvalidArchitecture(f"{self.name}: {architecture} was not trained; it is not in the table")
        return values

    def enumerate(self) -> Iterator[Architecture]:
        """The pool, in the order of the table."""
        return (super(PoolSpace, self).of_code(code) for code in self._pool)

    def sample(self, rng: Random) -> Architecture:
        """Uniformly of the pool; codes stand for networks with unequal chances."""
        return super().of_code(rng.choice(self._pool))

    def mutate(self, architecture: Architecture, rng: Random, rate: float | None = None) -> Architecture:
        """As in any space, and on to one of the nearest other networks."""
        values = self.values(architecture)
        moved = [] if rate is None else [name for name in self._genes if rng.random() < rate]
        for name in moved or [rng.choice(list(self._genes))]:
            values[name] = self._genes[name].mutate(values[name], rng)
        # Drawn, unlike in of_code: a network would else have one way out of it only.
        distances = self._distances(tuple(values.values()))
        distances[self._place[self._code(architecture)]] = len(values) + 1
        nearest = np.flatnonzero(distances == distances.min())
        return super().of_code(self._pool[int(rng.choice(nearest.tolist()))])

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """The nearest other networks, as many as are one step away in the whole space (gene sizes less one)."""
        wanted = sum(gene.size - 1 for gene in self._genes.values())
        order = np.argsort(self._distances(self._code(architecture)), kind="stable")[1 : wanted + 1]
        return (super(PoolSpace, self).of_code(self._pool[int(place)]) for place in order)

    def _code(self, architecture: Architecture) -> tuple[Value, ...]:
        return tuple(self.values(architecture).values())

    def _columns(self, code: Sequence[Value]) -> list[int]:
        """The column of each digit among the options of all genes."""
        return [
            int(offset) + at[digit]
            for offset, at, digit in zip(self._offsets, self._options, code, strict=False)
        ]

    def _distances(self, code: tuple[Value, ...]) -> np.ndarray:
        """Genes that differ from each network of the pool, (N,)."""
        wanted = np.zeros(self._codes.shape[1], dtype=np.float32)
        wanted[self._columns(code)] = 1.0
        return len(code) - self._codes @ wanted


def macro_table(folder: Path, seeds: Sequence[int] = (0, 1, 2)) -> PublicTable:
    """NAS-Bench-Macro (Su et al. 2021, "Prioritized Architecture Sampling with Monto-Carlo Tree Search").

    All 3^8 = 6 561 networks of eight blocks, each an identity (0), an inverted residual of expansion 3 and kernel 3 (1)
    or of expansion 6 and kernel 5 (2), on CIFAR-10.

    Args:
        folder: of the public tables.
        seeds: of the three trainings, over which accuracy is averaged.
    """
    rows = json.loads((folder / FILES[MACRO]).read_text(encoding="utf-8"))
    space = CodeSpace(MACRO, {f"block{place}": (0, 1, 2) for place in range(8)}, (1,) * 8)
    scores, costs = {}, {}
    for code, row in rows.items():
        digest = space.of_code(tuple(map(int, code))).digest
        scores[digest] = fmean(row["test_acc"][seed] for seed in seeds)
        costs[digest] = {"macs": float(row["flops"]), "params": float(row["params"])}
    return PublicTable(space, scores, costs)


ACCEL_COSTS = {"macs": "macs_m", "params": "params_m", "latency_zcu102": "latency_zcu102"}


def accel_table(folder: Path) -> PublicTable:
    """Accel-NASBench (Ahmad et al. 2024): networks of MnasNet's space on ImageNet under a short recipe, one seed.

    Seven blocks of expansion, kernel, layers and squeeze-and-excitation (0 or 1); the table holds about five thousand
    of these networks, so the space is a :class:`PoolSpace`. Costs: multiply-adds and parameters in millions, latency in
    ms on a ZCU102. Rows without one of them are left out.

    Args:
        folder: of the public tables.
    """
    data = json.loads((folder / FILES[ACCEL]).read_text(encoding="utf-8"))
    columns = {name: place for place, name in enumerate(data["columns"])}
    wanted = ("val_top1", *ACCEL_COSTS.values())
    found: dict[tuple[int, ...], list[tuple[float, ...]]] = {}
    for row in data["rows"]:
        measured = [row[columns[name]] for name in wanted]
        if None not in measured:
            code = tuple(int(digit) for block in row[columns["code"]] for digit in block)
            found.setdefault(code, []).append(tuple(measured))
    kinds = ("expansion", "kernel", "layers", "se")
    genes = {
        f"block{place // 4}.{kinds[place % 4]}": tuple(sorted({code[place] for code in found}))
        for place in range(28)
    }
    space = PoolSpace(ACCEL, genes, list(found))
    scores, costs = {}, {}
    for architecture, rows in zip(space.enumerate(), found.values(), strict=True):
        means = [fmean(column) for column in zip(*rows, strict=True)]
        scores[architecture.digest] = means[0]
        costs[architecture.digest] = dict(zip(ACCEL_COSTS, means[1:], strict=True))
    return PublicTable(space, scores, costs)
