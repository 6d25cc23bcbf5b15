"""Reinforcement learning: a policy picks architectures and is moved towards those that score well.

Du et al. 2020 (SpineNet), section 5.1, search with a recurrent network trained as in Zoph and Le 2017, "Neural
architecture search with reinforcement learning": it picks the order of the blocks without replacement, the
parents of each block, its level and its type. Their paper gives neither its size nor the algorithm's settings.
Here the policy is the smallest one in which a pick can depend on every earlier one
(:class:`nas.controllers.policy.Policy`), and the defaults below are ours.
"""

import math
from itertools import count
from typing import Literal

import numpy as np

from nas.controllers.policy import Floats, Policy
from nas.controllers.staged import Staged, Stages
from search_spaces.architecture import Architecture
from search_spaces.errors import ConfigError
from search_spaces.randomness import rng_for
from search_spaces.space import SearchSpace

CLIP = 0.2
EPOCHS = 4


class PolicyGradient(Staged):
    """REINFORCE or PPO over masked picks.

    The policy draws a batch of candidates, waits for their scores, learns from them and draws the next batch, so
    up to ``batch`` trials can run beside each other, and what it learns does not depend on the order in which
    they finish. A candidate drawn again is not scored again: it counts with the score it has, and costs no trial.
    Where that is so of a whole batch, a candidate drawn uniformly among the untried is scored beside it, which the
    policy does not learn from; so a policy that has settled leaves the rest of the budget to random search. Candidates
    without a score (failed, pruned) teach nothing.

    The advantage of a score is its distance from the moving average of the scores before, in units of their moving
    spread about it, so that the learning rate means the same for any proxy.

    Args:
        space: where to search; its genes are decided in their order.
        seed: with the batch's number it decides each draw.
        budget: number of trials, failed ones included.
        algorithm: ``reinforce`` takes one step of gradient ascent on each batch; ``ppo`` takes several, while
            probabilities stay near those that the batch was drawn with.
        batch: draws between two updates.
        learning_rate: of plain gradient ascent.
        entropy: weight of the entropy of each pick in the objective; it keeps the policy from settling early.
        decay: of the moving average and spread, a batch; 0 knows the last batch only.
        epochs: of ``ppo``: steps on each batch; :data:`EPOCHS` by default.
        clip: of ``ppo``: a step gains nothing by changing a probability by more than this share; :data:`CLIP` by
            default.
    """

    kind = "policy gradient"

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        budget: int,
        algorithm: Literal["reinforce", "ppo"] = "reinforce",
        batch: int = 10,
        learning_rate: float = 1.0,
        entropy: float = 0.05,
        decay: float = 0.8,
        epochs: int | None = None,
        clip: float | None = None,
    ) -> None:
        super().__init__(space, seed=seed, budget=budget)
        if algorithm not in ("reinforce", "ppo"):
            raise ConfigError(f"algorithm: found {algorithm!r}; allowed are 'reinforce' and 'ppo'")
        if batch < 1:
            raise ConfigError(f"batch: found {batch}; an update needs at least 1 draw")
        if not 0.0 < learning_rate < math.inf:
            raise ConfigError(f"learning_rate: found {learning_rate}; allowed are numbers above 0")
        if not 0.0 <= entropy < math.inf:
            raise ConfigError(f"entropy: found {entropy}; allowed are numbers from 0")
        if not 0.0 <= decay < 1.0:
            raise ConfigError(f"decay: found {decay}; allowed are numbers from 0 to below 1")
        for name, value in (("epochs", epochs), ("clip", clip)):
            if value is not None and algorithm == "reinforce":
                raise ConfigError(
                    f"{name}: found {value}; reinforce has none, set algorithm to 'ppo' or leave it out"
                )
        if epochs is not None and epochs < 1:
            raise ConfigError(f"epochs: found {epochs}; ppo needs at least 1 step a batch")
        if clip is not None and not clip > 0.0:
            raise ConfigError(f"clip: found {clip}; allowed are numbers above 0")
        self.algorithm, self.batch, self.learning_rate = algorithm, batch, learning_rate
        self.entropy, self.decay = entropy, decay
        ppo = algorithm == "ppo"
        self.epochs = (EPOCHS if epochs is None else epochs) if ppo else 1
        self.clip = (CLIP if clip is None else clip) if ppo else None

    def stages(self) -> Stages:
        """One batch after another, each from the policy that the scores before have made."""
        policy, baseline = Policy(self.space.genes), _Baseline(self.decay)
        known: dict[bytes, tuple[str, Architecture]] = {}  # by picks: a settled policy repeats itself
        seen: set[str] = set()
        for number in count():
            draws = policy.draw(rng_for(self.seed, "policy", number), self.batch)
            drawn = []
            for columns in draws.columns:
                picks = columns.tobytes()
                if picks not in known:
                    candidate = self.space.architecture(policy.values(columns))
                    known[picks] = candidate.digest, candidate
                drawn.append(known[picks])
            stage = dict(drawn)
            if stage.keys() <= seen:
                other = self._draw(seen, "beside", number)
                if other is None:
                    return
                stage[other.digest] = other
            seen.update(stage)
            sent = yield stage
            scores = [sent[digest] for digest, _ in drawn]
            scored = [row for row, score in enumerate(scores) if score is not None]
            if scored:
                policy.improve(
                    draws[scored],
                    baseline.advantages(np.array([scores[row] for row in scored], dtype=np.float64)),
                    learning_rate=self.learning_rate,
                    entropy=self.entropy,
                    epochs=self.epochs,
                    clip=self.clip,
                )


class _Baseline:
    """Moving average of the scores, and of their squared distance from it."""

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._mean: float | None = None
        self._square = 0.0

    def advantages(self, scores: Floats) -> Floats:
        """Of a batch; the average is that of the batches before, or of this one where it is the first."""
        first = self._mean is None
        mean = float(scores.mean()) if self._mean is None else self._mean
        distances = scores - mean
        keep = 0.0 if first else self._decay
        self._square = keep * self._square + (1.0 - keep) * float((distances**2).mean())
        self._mean = keep * mean + (1.0 - keep) * float(scores.mean())
        return distances / math.sqrt(self._square) if self._square > 0.0 else np.zeros_like(distances)
