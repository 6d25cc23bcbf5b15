"""A search space names its genes and says which network their values describe; the rest is inherited."""

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from search_spaces.architecture import Architecture, Candidate, Genes, Prefix, Scalar, Value, digest_of
from search_spaces.errors import InvalidArchitecture
from search_spaces.gene import Gene, Parameter


class SearchSpace(ABC):
    """What can be built, as an ordered set of independent genes.

    Parameters of a gene are named after it (``"d1.0"``) or after it and their suffix (``"blocks.0"``).

    Attributes:
        name: under which the space is listed, for example ``"crnas.resnet18.stages"``.
    """

    name: str

    @property
    @abstractmethod
    def genes(self) -> Mapping[str, Gene]:
        """The genes by name, in the order in which a greedy search decides them."""

    @property
    @abstractmethod
    def baseline(self) -> Architecture:
        """The hand-made member of the space that a search has to beat."""

    @abstractmethod
    def architecture(self, values: Mapping[str, Any]) -> Architecture:
        """The network that a value for each gene describes.

        Raises:
            InvalidArchitecture: see :meth:`check_values`.
        """

    @abstractmethod
    def values(self, architecture: Architecture) -> dict[str, Value]:
        """The value of each gene; inverse of :meth:`architecture`.

        Raises:
            InvalidArchitecture: an architecture that is not in this space.
        """

    def check_values(self, values: Mapping[str, Any]) -> dict[str, Value]:
        """Canonical values in the order of the genes.

        Raises:
            InvalidArchitecture: genes missing or unknown, or a value that a gene does not allow.
        """
        if set(values) != set(self.genes):
            missing = [name for name in self.genes if name not in values]
            unknown = [name for name in values if name not in self.genes]
            raise InvalidArchitecture(
                f"{self.name}: a complete candidate needs a value for each gene; "
                f"missing are {missing}, unknown are {unknown}"
            )
        return self._checked(values)

    def _checked(self, values: Mapping[str, Any]) -> dict[str, Value]:
        checked = {}
        for name, gene in self.genes.items():
            if name in values:
                try:
                    checked[name] = gene.validate(values[name])
                except InvalidArchitecture as error:
                    raise InvalidArchitecture(f"{self.name}: {name}: {error}") from error
        return checked

    @property
    def digest(self) -> str:
        """Stable key of what the space contains: its name, genes and baseline."""
        genes = {name: repr(gene) for name, gene in self.genes.items()}
        return digest_of([self.name, list(genes.items()), self.baseline.to_dict()])

    @property
    def size(self) -> int:
        """Exact number of values of the genes; of architectures too, where no two values describe one."""
        return math.prod(gene.size for gene in self.genes.values())

    @property
    def distinct(self) -> int | None:
        """Exact number of different architectures; None where it is not known.

        A space in which several values describe one architecture gives its own count, and draws are uniform
        over the values.
        """
        return self.size

    @property
    def limits(self) -> str | None:
        """What :meth:`limit` rejects, in two or three words; None for a space that rejects nothing."""
        return None

    def limit(self, architecture: Architecture) -> str | None:
        """Why a member is not to be scored, as a sentence; None where nothing speaks against it."""
        del architecture
        return None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """Every parameter of the encoding, in the order of the genes."""
        return {
            _parameter(name, suffix): parameter
            for name, gene in self.genes.items()
            for suffix, parameter in gene.parameters.items()
        }

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        try:
            self.values(architecture)
        except InvalidArchitecture:
            return False
        return True

    def validate(self, architecture: Architecture) -> Architecture:
        """The architecture in canonical form.

        Raises:
            InvalidArchitecture: it is not in this space; says why.
        """
        return self.architecture(self.values(architecture))

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, in lexicographic order of the genes."""
        # Nested by hand: itertools.product would hold every value of a large gene at once.
        return (self.architecture(values) for values in self._enumerated(list(self.genes)))

    def _enumerated(self, names: Sequence[str]) -> Iterator[dict[str, Value]]:
        if not names:
            yield {}
            return
        for value in self.genes[names[0]].enumerate():
            for rest in self._enumerated(names[1:]):
                yield {names[0]: value, **rest}

    def sample(self, rng: random.Random) -> Architecture:
        """Draw an architecture uniformly."""
        return self.architecture({name: gene.sample(rng) for name, gene in self.genes.items()})

    def mutate(
        self, architecture: Architecture, rng: random.Random, rate: float | None = None
    ) -> Architecture:
        """Move genes to one of their neighbours each.

        Args:
            architecture: a member of this space.
            rng: decides which genes and where to.
            rate: probability of each gene to move; at least one moves in any case. Without it
                exactly one gene moves.

        Returns:
            Another architecture, or the same where the space has only one.
        """
        values = self.values(architecture)
        movable = [name for name, gene in self.genes.items() if gene.size > 1]
        if not movable:
            return self.architecture(values)
        moved = [] if rate is None else [name for name in movable if rng.random() < rate]
        for name in moved or [rng.choice(movable)]:
            values[name] = self.genes[name].mutate(values[name], rng)
        return self.architecture(values)

    def crossover(self, a: Architecture, b: Architecture, rng: random.Random) -> Architecture:
        """Cross two architectures over, gene by gene."""
        first, second = self.values(a), self.values(b)
        return self.architecture(
            {name: gene.crossover(first[name], second[name], rng) for name, gene in self.genes.items()}
        )

    def neighbours(self, architecture: Architecture) -> Iterator[Architecture]:
        """Every architecture that differs in one gene by one smallest step."""
        values = self.values(architecture)
        for name, gene in self.genes.items():
            for value in gene.neighbours(values[name]):
                yield self.architecture({**values, name: value})

    def encode(self, architecture: Architecture) -> dict[str, Scalar]:
        """The canonical parameters of an architecture."""
        return self._encoded(self.values(architecture))

    def _encoded(self, values: Mapping[str, Value]) -> dict[str, Scalar]:
        return {
            _parameter(name, suffix): scalar
            for name, value in values.items()
            for suffix, scalar in self.genes[name].encode(value).items()
        }

    def decode(self, params: Mapping[str, Scalar]) -> Architecture:
        """The architecture that parameters stand for; every combination in range stands for one.

        Raises:
            InvalidArchitecture: parameters missing, unknown or out of range.
        """
        candidate = self.candidate_from(params)
        if isinstance(candidate, Architecture):
            return candidate
        missing = [name for name in self.parameters if name not in params]
        raise InvalidArchitecture(f"{self.name}: parameters {missing} are missing; give all to decode")

    def prefix(self, values: Sequence[Any]) -> Prefix:
        """A candidate of which only the first genes are decided.

        Args:
            values: of the first genes in order, fewer than the space has.

        Raises:
            InvalidArchitecture: too many values, or one that its gene does not allow.
        """
        names = list(self.genes)
        if len(values) >= len(names):
            raise InvalidArchitecture(
                f"{self.name}: a prefix decides fewer than {len(names)} genes; found {len(values)} values. "
                "Use candidate() or architecture() for a complete one"
            )
        decided = dict(zip(names, values, strict=False))
        return Prefix(space=self.name, genes=Genes(self._checked(decided)))

    def candidate(self, values: Sequence[Any]) -> Candidate:
        """The candidate whose first genes have these values: an architecture once all are decided."""
        if len(values) == len(self.genes):
            return self.architecture(dict(zip(self.genes, values, strict=True)))
        return self.prefix(values)

    def decided(self, candidate: Candidate) -> dict[str, Value]:
        """Values of the decided genes, in order: all of an architecture, the first few of a prefix.

        Raises:
            InvalidArchitecture: a candidate of another space.
        """
        if isinstance(candidate, Architecture):
            return self.values(candidate)
        names = list(self.genes)[: len(candidate.genes)]
        if candidate.space != self.name or set(candidate.genes) != set(names):
            raise InvalidArchitecture(
                f"{self.name}: found {candidate} of space {candidate.space!r} deciding "
                f"{list(candidate.genes)}; a prefix of this space decides {names}"
            )
        return self._checked(candidate.genes)

    def complete(self, prefix: Prefix, rng: random.Random) -> Architecture:
        """Decide the open genes uniformly at random; what is decided stays."""
        values = self.decided(prefix)
        rest = {name: gene.sample(rng) for name, gene in self.genes.items() if name not in values}
        return self.architecture({**values, **rest})

    def encode_candidate(self, candidate: Candidate) -> dict[str, Scalar]:
        """The parameters of the decided genes, and only those."""
        return self._encoded(self.decided(candidate))

    def candidate_from(self, params: Mapping[str, Scalar]) -> Candidate:
        """The candidate that parameters stand for; inverse of :meth:`encode_candidate`.

        Raises:
            InvalidArchitecture: unknown parameters, values out of range, or parameters that decide
                other genes than the first few.
        """
        allowed = list(self.parameters)
        unknown = sorted(set(params).difference(allowed))
        if unknown:
            raise InvalidArchitecture(f"{self.name}: parameters {unknown} are unknown; allowed are {allowed}")
        decided = {name: own for name in self.genes if (own := self._own(name, params))}
        if list(decided) != list(self.genes)[: len(decided)]:
            raise InvalidArchitecture(
                f"{self.name}: found genes {list(decided)}; a prefix decides the first genes without a gap"
            )
        return self.candidate([self._decoded(name, own) for name, own in decided.items()])

    def _own(self, name: str, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Suffix -> value of the parameters that belong to one gene."""
        names = {suffix: _parameter(name, suffix) for suffix in self.genes[name].parameters}
        return {suffix: params[full] for suffix, full in names.items() if full in params}

    def _decoded(self, name: str, params: Mapping[str, Scalar]) -> Value:
        try:
            return self.genes[name].decode(params)
        except InvalidArchitecture as error:
            raise InvalidArchitecture(f"{self.name}: {name}: {error}") from error


def _parameter(gene: str, suffix: str) -> str:
    return f"{gene}.{suffix}" if suffix else gene
