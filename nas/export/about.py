"""What a bundle says of itself in data: licence, costs, scores. The model card says it to people."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any

from trainers.data.detection_set import NOT_STATED


@dataclass(frozen=True, kw_only=True)
class About:
    """Beside network and weights.

    Args:
        licence: of the training data, as the data state it.
        data: name of the set, digests of its splits.
        search: what the search has cost, None for a network that was not searched.
        training: what one training of the weights has cost: seed, seconds, images seen.
        scores: role (``winner``, ``baseline``) -> what :func:`spread` gives.
    """

    licence: str = NOT_STATED
    data: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def spread(by_seed: Mapping[int, float]) -> dict[str, Any]:
    """AP of equal trainings under several seeds: mean, standard deviation over seeds (None for one), each."""
    values = list(by_seed.values())
    return {
        "metric": "AP on val, 0 to 1",
        "mean": fmean(values),
        "standard_deviation": stdev(values) if len(values) > 1 else None,
        "by_seed": {str(seed): value for seed, value in sorted(by_seed.items())},
    }
