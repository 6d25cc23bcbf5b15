"""Genes' parameter descriptions as Optuna's distributions."""

from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search_spaces.genes import Categorical, Integer, Parameter


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """The Optuna distribution with exactly the values of ``parameter``."""
    if isinstance(parameter, Categorical):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, Integer):
        return IntDistribution(parameter.low, parameter.high)
    return FloatDistribution(parameter.low, parameter.high)


def distributions_of(parameters: Mapping[str, Parameter]) -> dict[str, BaseDistribution]:
    """Distributions of a space's parameters (``SearchSpace.parameters``), in their order."""
    return {name: distribution_of(parameter) for name, parameter in parameters.items()}
