"""Evolution: aging (Real et al. 2019) and by generations with DetNAS's settings (Chen et al. 2019)."""

from collections.abc import Callable, Sequence
from random import Random

from nas.controllers.base import Done, best_architecture, digests, wait_or_done
from nas.controllers.random import RETRIES, draw_new
from nas.trials import History, Record
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace


class AgingEvolution:
    """Regularized evolution: the best of a random sample has a child, the oldest member dies.

    Real et al. 2019, "Regularized evolution for image classifier architecture search", algorithm 1. A child
    that was tried before is drawn again, at last at random, so no candidate is scored twice.

    Args:
        space: where to search.
        seed: with the trial's number it decides each draw.
        budget: number of trials, failed ones included.
        population: how many of the latest scored candidates are alive; the first ones are random.
        sample: how many of them compete to be the parent.
        mutation: probability that a gene changes; at least one always does.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        budget: int,
        population: int = 50,
        sample: int = 10,
        mutation: float = 0.1,
    ) -> None:
        _at_least("budget", budget, 1)
        _at_least("population", population, 1)
        _at_least("sample", sample, 1)
        _probability("mutation", mutation)
        if sample > population:
            raise ConfigError(f"sample: found {sample}; at most the population, {population}, can compete")
        self.space, self.seed, self.budget = space, seed, budget
        self.population, self.sample, self.mutation = population, sample, mutation

    def ask(self, history: History) -> Architecture | Done | None:
        """A random candidate, later a mutant of a good one; never one that was tried."""
        if len(history) >= self.budget:
            return wait_or_done(history)
        alive = _scored(history)[-self.population :]
        if len(history) < self.population or not alive:
            return draw_new(self.space, self.seed, history) or wait_or_done(history)
        rng = rng_for(self.seed, "evolve", len(history))
        rivals = rng.sample(alive, min(self.sample, len(alive)))
        parent = _architecture(max(rivals, key=_fitness))
        return _new_child(
            lambda: self.space.mutate(parent, rng, self.mutation), self.space, self.seed, history
        )

    def winner(self, history: History) -> Architecture | None:
        """The first of the best, dead or alive."""
        return best_architecture(history)


class GenerationalEvolution:
    """Evolution by generations, as DetNAS and Single Path One-Shot search their supernets.

    The first generation is random. Each later one holds ``mutants`` mutations and ``crossovers`` crossings
    of the ``keep`` best candidates so far; what is left is random. The defaults are those of
    ``megvii-model/DetNAS`` (``distributed_arch_search/arch_search_config.py``). A generation begins when
    the scores of the one before are in.

    Args:
        space: where to search.
        seed: with the trial's number it decides each draw.
        budget: number of trials, failed ones included; ``population * generations`` by default.
        population: candidates a generation.
        generations: how many there are.
        keep: parents of the next generation.
        mutants: mutations a generation.
        crossovers: crossings a generation.
        mutation: probability that a gene changes; at least one always does.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        budget: int | None = None,
        population: int = 50,
        generations: int = 20,
        keep: int = 10,
        mutants: int = 20,
        crossovers: int = 20,
        mutation: float = 0.1,
    ) -> None:
        _at_least("population", population, 1)
        _at_least("generations", generations, 1)
        _at_least("keep", keep, 1)
        _at_least("mutants", mutants, 0)
        _at_least("crossovers", crossovers, 0)
        _probability("mutation", mutation)
        if budget is not None:
            _at_least("budget", budget, 1)
        if mutants + crossovers > population:
            raise ConfigError(
                f"mutants + crossovers: found {mutants} + {crossovers}; together at most the population, "
                f"{population}"
            )
        self.space, self.seed = space, seed
        self.budget = population * generations if budget is None else budget
        self.population, self.keep = population, keep
        self.mutants, self.crossovers, self.mutation = mutants, crossovers, mutation

    def ask(self, history: History) -> Architecture | Done | None:
        """The next member of the current generation; None while the one before still runs."""
        if len(history) >= self.budget:
            return wait_or_done(history)
        generation, place = divmod(len(history), self.population)
        before = history[: generation * self.population]
        if any(not record.finished for record in before):
            return None
        # Sorted stably: of equals the earlier is the parent.
        parents = sorted(_scored(before), key=_fitness, reverse=True)[: self.keep]
        if not parents or place >= self.mutants + self.crossovers:
            return draw_new(self.space, self.seed, history) or wait_or_done(history)
        rng = rng_for(self.seed, "evolve", len(history))
        breed = self._mutant if place < self.mutants else self._crossing
        return _new_child(lambda: breed(parents, rng), self.space, self.seed, history)

    def winner(self, history: History) -> Architecture | None:
        """The first of the best."""
        return best_architecture(history)

    def _mutant(self, parents: Sequence[Record], rng: Random) -> Architecture:
        return self.space.mutate(_architecture(rng.choice(parents)), rng, self.mutation)

    def _crossing(self, parents: Sequence[Record], rng: Random) -> Architecture:
        return self.space.crossover(
            _architecture(rng.choice(parents)), _architecture(rng.choice(parents)), rng
        )


def _new_child(
    breed: Callable[[], Architecture], space: SearchSpace, seed: int, history: History
) -> Architecture | Done | None:
    seen = digests(history)
    for _ in range(RETRIES):
        child = breed()
        if child.digest not in seen:
            return child
    return draw_new(space, seed, history) or wait_or_done(history)


def _scored(history: History) -> list[Record]:
    return [record for record in history if record.value is not None]


def _fitness(record: Record) -> float:
    assert record.value is not None, f"trial {record.number} has no score"
    return record.value


def _architecture(record: Record) -> Architecture:
    assert isinstance(record.candidate, Architecture), "evolution proposes whole architectures only"
    return record.candidate


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name}: found {value}; evolution needs at least {least}")


def _probability(name: str, value: float) -> None:
    if not 0.0 < value <= 1.0:
        raise ConfigError(f"{name}: found {value}; a probability above 0 and at most 1")
