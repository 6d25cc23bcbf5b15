"""From a recipe's ``space`` section to the two spaces of CR-NAS. Torch-free."""

from dataclasses import replace

from nas.recipe import SpaceRecipe
from search_spaces.architecture import Architecture
from search_spaces.catalog import get_space
from search_spaces.crnas.dilations import DilationSpace
from search_spaces.crnas.stages import StageSpace
from search_spaces.errors import ConfigError, InvalidArchitecture
