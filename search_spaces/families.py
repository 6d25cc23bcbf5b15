"""Every family of networks, in one plain dict, and those of a person's own file. Torch-free."""

from functools import cache

from search_spaces.architecture import Architecture
from search_spaces.crnas.families import MOBILENETV2, RESNET
from search_spaces.errors import ConfigError, InvalidArchitecture
from search_spaces.family import Family
from search_spaces.spinenet.family import MOBILE_SPINENET, SPINENET
from search_spaces.targets import load_subclass

FAMILIES: dict[str, Family] = {
    family.name: family for family in (RESNET, MOBILENETV2, SPINENET, MOBILE_SPINENET)
}
"""What ``Architecture.family`` may say, and who answers; beside these, any target of a :class:`Family`."""


def family_of(architecture: Architecture) -> Family:
    """Who builds this architecture.

    Raises:
        InvalidArchitecture: an unknown family.
    """
    if architecture.family in FAMILIES:
        return FAMILIES[architecture.family]
    if ":" not in architecture.family:
        raise InvalidArchitecture(
            f"unknown family {architecture.family!r}; allowed are {', '.join(sorted(FAMILIES))}, and "
            "my_file.py:MyFamily"
        )
    try:
        return _made(load_subclass(architecture.family, Family, "family of networks"))
    except ConfigError as error:
        raise InvalidArchitecture(f"family: {error}") from error


@cache
def _made(kind: type[Family]) -> Family:
    try:
        return kind()
    except TypeError as error:
        raise InvalidArchitecture(
            f"family: {kind.__name__}() cannot be made without arguments: {error}"
        ) from error
