"""Where an architecture named on the command line comes from. Torch-free."""

import json
from pathlib import Path

from nas.config import read_yaml
from nas.export.manifest import ARCHITECTURE, MANIFEST, read_manifest, verify
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of, get_architecture
from search_spaces.errors import InvalidArchitecture, RunError
from search_spaces.targets import home_of

_DESCRIPTIONS = ("winner.yaml", ARCHITECTURE, "training.yaml")


def read_architecture(source: str) -> Architecture:
    """A name of the zoo, a ``winner.yaml`` or ``architecture.json``, a bundle, or a directory of a run or training.

    Raises:
        RunError: a folder or file without an architecture in it, or one of a bundle that was changed.
        InvalidArchitecture: an unknown name, or an architecture that its family refuses.
    """
    path = Path(source)
    if path.is_dir():
        found = [path / name for name in _DESCRIPTIONS if (path / name).exists()]
        if not found:
            raise RunError(
                f"{path} holds neither {' nor '.join(_DESCRIPTIONS)}, so it is no finished search, no bundle and no "
                "training"
            )
        path = found[0]
    if path.name == ARCHITECTURE and (path.parent / MANIFEST).exists():
        # All of it, for its own family is code.
        verify(path.parent, read_manifest(path.parent))
    if not path.is_file():
        return get_architecture(source)
    if path.suffix == ".json":
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path}: is not valid JSON: {error}") from error
    else:
        data = read_yaml(path)
    try:
        architecture = Architecture.from_dict(data.get("architecture", data)).at(home_of(path.parent))
        family_of(architecture).validate(architecture)
    except (AttributeError, TypeError, ValueError) as error:
        raise InvalidArchitecture(f"{path}: holds no architecture: {error}") from error
    return architecture
