"""Every family of networks, in one plain dict. Importing this does not import torch."""

from search_spaces.architecture import Architecture
from search_spaces.crnas.families import MOBILENETV2, RESNET
from search_spaces.errors import InvalidArchitecture
from search_spaces.family import Family
from search_spaces.spinenet.family import MOBILE_SPINENET, SPINENET

FAMILIES: dict[str, Family] = {
    family.name: family for family in (RESNET, MOBILENETV2, SPINENET, MOBILE_SPINENET)
}
"""What ``Architecture.family`` may say, and who answers."""


def family_of(architecture: Architecture) -> Family:
    """Who builds this architecture.

    Raises:
        InvalidArchitecture: an unknown family.
    """
    if architecture.family not in FAMILIES:
        raise InvalidArchitecture(
            f"unknown family {architecture.family!r}; allowed are {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[architecture.family]
