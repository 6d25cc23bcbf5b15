"""Every logger by name, and the package that it needs."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nas.loggers.base import RunLogger
from nas.loggers.mlflow import MLflowLogger
from nas.loggers.tensorboard import TensorBoardLogger
from nas.loggers.wandb import WandbLogger
from search_spaces.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One logger.

    Args:
        package: that it imports when it begins, by the name under which pip installs it too.
        make: the logger, at no cost.
    """

    package: str
    make: Callable[[], RunLogger]


LOGGERS: dict[str, Entry] = {
    "tensorboard": Entry(package="tensorboard", make=TensorBoardLogger),
    "mlflow": Entry(package="mlflow", make=MLflowLogger),
    "wandb": Entry(package="wandb", make=WandbLogger),
}


def require_packages(names: Sequence[str]) -> None:
    """Find out before anything is spent whether the loggers can be had.

    Raises:
        ConfigError: a package is not installed; one line for each.
    """
    missing = [(name, LOGGERS[name].package) for name in names if not _installed(LOGGERS[name].package)]
    if missing:
        raise ConfigError(
            "\n".join(
                f"loggers: found {name}, but the package {package} is not installed; install it with: "
                f"pip install {package}, or take {name} out of the list"
                for name, package in missing
            )
        )


def _installed(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None
