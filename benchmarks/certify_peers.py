"""Searchers of Syne Tune and NePS as controllers, for ``certify.py`` beside it.

Each is asked and told through the toolkit's own ask-and-tell interface and runs with its defaults. A gene is a choice
without an order, as in our own space: what both toolkits have for categories. Syne Tune is told to maximise, NePS
minimises and is told the negative score. A candidate that is proposed again is told again.

Both draw from the process-wide generators as well as from their own, some before every first fit. All of them are
seeded for every proposal by (seed, its number), so the same seed proposes the same; NePS's evolution, which orders its
population by the clock, is told the number of trials as the time.

**NePS's evolution** of version 0.17.0 is random search: a trial names its values by a path behind a prefix, while its
mutation and its crossover look for the path without one, find nothing of the parent and draw anew; so it is under
``neps.run`` too. It runs as it comes and, as ``neps, evolution mended``, with the prefix taken off by NePS's own
converter.

Neither package is a dependency; where they are missing their arms and the tests of the adapters are. Measured with
``pip install syne-tune==0.16.0 neural-pipeline-search==0.17.0 botorch==0.12.0 gpytorch==1.13 pandas==2.3.3 xgboost``.

Left out is Syne Tune's ``BOTorch``: on the macro table it proposed the best of its first three networks over and over.
"""

import importlib.util
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from certify_tables import PublicTable

from nas.controllers.base import best_architecture
from nas.trials import History
from search_spaces.architecture import Architecture
from search_spaces.genes import Choice
from search_spaces.randomness import seed_for

TOOLKITS = {"NePS": "neps", "Syne Tune": "syne_tune"}
"""Name -> module; arms exist for those that are installed."""
PACKAGES = {"NePS": "neural-pipeline-search", "Syne Tune": "syne-tune"}
METRIC = "accuracy"


class Peer(ABC):
    """A searcher that keeps its own state, for one search from its beginning.

    Args:
        table: whose space is searched; every gene is a choice.
        seed: of all generators that are drawn from.
    """

    def __init__(self, table: PublicTable, seed: int) -> None:
        self.space, self.seed = table.space, seed
        genes = table.space.genes.values()
        # A toolkit may want attributes or scalars: genes are told by their place, options by theirs.
        self.sizes = {f"gene{place}": gene.size for place, gene in enumerate(genes)}
        self._options = [gene.options for gene in genes if isinstance(gene, Choice)]
        assert len(self._options) == len(self.sizes), "every gene is a choice"
        self._told = 0
        self._asked: str | None = None
        self._seed_all("begin")
        self.begin()

    def ask(self, history: History) -> Architecture:
        """Tell what came of the last proposal, and ask for the next."""
        for record in history[self._told :]:
            assert record.digest == self._asked and record.value is not None, "one that it proposed"
            self.tell(record.value)
        self._told = len(history)
        self._seed_all(self._told)
        places = self.propose()
        values = {
            gene: options[places[name]]
            for gene, options, name in zip(self.space.genes, self._options, self.sizes, strict=True)
        }
        proposed = self.space.architecture(values)
        self._asked = proposed.digest
        return proposed

    def winner(self, history: History) -> Architecture | None:
        """The first of the best."""
        return best_architecture(history)

    def _seed_all(self, path: int | str) -> None:
        seed = seed_for(self.seed, "peer", path) % 2**32  # numpy's take 32 bits
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the toolkits draw from the global one
        torch.manual_seed(seed)

    @abstractmethod
    def begin(self) -> None:
        """Make the toolkit's searcher."""

    @abstractmethod
    def propose(self) -> Mapping[str, int]:
        """The places of the options that it wants next."""

    @abstractmethod
    def tell(self, value: float) -> None:
        """Give it the score of its last proposal."""


class SyneTune(Peer):
    """One of Syne Tune's single-fidelity schedulers, through its ``AskTellScheduler``.

    Args:
        table: to search.
        seed: of the search.
        scheduler: name of a class of ``syne_tune.optimizer.baselines``.
    """

    def __init__(self, table: PublicTable, seed: int, *, scheduler: str) -> None:
        self._scheduler = scheduler
        super().__init__(table, seed)

    def begin(self) -> None:
        """See :class:`Peer`."""
        from syne_tune.config_space import choice
        from syne_tune.optimizer import baselines
        from syne_tune.optimizer.schedulers.ask_tell_scheduler import AskTellScheduler

        scheduler = getattr(baselines, self._scheduler)(
            {name: choice(list(range(size))) for name, size in self.sizes.items()},
            metric=METRIC,
            do_minimize=False,
            random_seed=seed_for(self.seed, "syne_tune") % 2**31,
        )
        self._search = AskTellScheduler(base_scheduler=scheduler)

    def propose(self) -> Mapping[str, int]:
        """See :class:`Peer`."""
        self._trial = self._search.ask()
        found: Mapping[str, int] = self._trial.config
        return found

    def tell(self, value: float) -> None:
        """See :class:`Peer`."""
        self._search.tell(self._trial, {METRIC: value})


class Neps(Peer):
    """One of NePS's optimizers, through its ``AskAndTell``.

    Args:
        table: to search.
        seed: of the search.
        optimizer: name of a function of ``neps.algorithms``.
        mended: whether trials name their values as its evolution looks for them.
    """

    def __init__(self, table: PublicTable, seed: int, *, optimizer: str, mended: bool = False) -> None:
        self._optimizer, self._mended = optimizer, mended
        super().__init__(table, seed)

    def begin(self) -> None:
        """See :class:`Peer`."""
        import neps

        genes = {name: neps.Categorical(tuple(range(size))) for name, size in self.sizes.items()}
        space = type("Code", (neps.PipelineSpace,), genes)()
        self._search = neps.AskAndTell(getattr(neps.algorithms, self._optimizer)(space))

    def propose(self) -> Mapping[str, int]:
        """See :class:`Peer`."""
        self._trial = self._search.ask()
        # Optimizers of NePS's own spaces name a parameter by its path: "...Resolvable.gene0::categorical__3".
        paths = {
            key.split("::")[0].rsplit(".", 1)[-1]: int(value) for key, value in self._trial.config.items()
        }
        return {name: paths[name] for name in self.sizes}

    def tell(self, value: float) -> None:
        """See :class:`Peer`."""
        self._search.tell(self._trial, -float(value), time_end=float(len(self._search.trials)))
        if self._mended:
            from neps.space.neps_spaces.neps_space import NepsCompatConverter

            named = NepsCompatConverter.from_neps_config(self._trial.config)
            self._trial.config = dict(named.predefined_samplings)


Make = Callable[[PublicTable, int], Peer]


def _syne_tune(scheduler: str) -> Make:
    return lambda table, seed: SyneTune(table, seed, scheduler=scheduler)


def _neps(optimizer: str, *, mended: bool = False) -> Make:
    return lambda table, seed: Neps(table, seed, optimizer=optimizer, mended=mended)


QUICK: dict[str, dict[str, Make]] = {
    "NePS": {
        "neps, evolution": _neps("neps_regularized_evolution"),
        "neps, evolution mended": _neps("neps_regularized_evolution", mended=True),
    },
    "Syne Tune": {"syne_tune, evolution": _syne_tune("REA"), "syne_tune, kde": _syne_tune("TPE")},
}
"""Toolkit -> arms that take milliseconds for a proposal."""
SLOW: dict[str, dict[str, Make]] = {
    "Syne Tune": {"syne_tune, bore": _syne_tune("BORE"), "syne_tune, cqr": _syne_tune("CQR")},
}
"""Toolkit -> arms that fit a model for every proposal, which takes most of a second."""
SLOWEST: dict[str, dict[str, Make]] = {"NePS": {"neps, bayesian": _neps("bayesian_optimization")}}
"""Toolkit -> arms whose model takes seconds, and longer with everything evaluated."""
NAMES = tuple(name for kind in (QUICK, SLOW, SLOWEST) for arms in kind.values() for name in arms)
"""All of them, installed or not."""


def missing() -> list[str]:
    """The toolkits that are not installed."""
    return [name for name, module in TOOLKITS.items() if importlib.util.find_spec(module) is None]


def installed(arms: Mapping[str, Mapping[str, Make]]) -> dict[str, Make]:
    """Those of :data:`QUICK`, :data:`SLOW` or :data:`SLOWEST` whose toolkit is here."""
    absent = missing()
    return {
        name: make for toolkit, own in arms.items() if toolkit not in absent for name, make in own.items()
    }


def versions() -> dict[str, Any]:
    """Of the toolkits that are installed."""
    from importlib.metadata import version

    absent = missing()
    return {name: version(package) for name, package in PACKAGES.items() if name not in absent}
