"""``nas data import``: what a person typed, read and handed to the importer."""

from pathlib import Path
from typing import Literal

from nas.config import parse_yaml
from search_spaces.errors import ConfigError
from trainers.data.found import ImportOptions
from trainers.data.importing import Imported, import_data


def import_folder(
    source: Path,
    to: Path,
    *,
    format: str,
    classes: str | None = None,
    images: Path | None = None,
    columns: str | None = None,
    normalised: bool = False,
    first_pixel: int | None = None,
    train: str | None = None,
    val: str | None = None,
    val_share: float = 0.2,
    seed: int = 0,
    link: bool = False,
    on_bad: str = "error",
) -> Imported:
    """As :func:`~trainers.data.importing.import_data`, from texts.

    Args:
        source: folder or file.
        to: new folder.
        format: ``coco``, ``voc``, ``yolo`` or ``csv``.
        classes: ``cat,dog``, a text file with a name a line, or a YAML file with ``names``.
        images: see :class:`~trainers.data.found.ImportOptions`.
        columns: ``image=file,class=type``.
        normalised: see there.
        first_pixel: see there.
        train: ``trainval`` or several names with commas.
        val: the same.
        val_share: see :func:`~trainers.data.importing.import_data`.
        seed: see there.
        link: see there.
        on_bad: ``error`` or ``skip``.

    Raises:
        ConfigError: a text that cannot be read.
        DataError: see :func:`~trainers.data.importing.import_data`.
    """
    return import_data(
        source,
        to,
        format=format,
        options=ImportOptions(
            classes=None if classes is None else class_names(classes),
            images=images,
            columns={} if columns is None else _pairs(columns),
            normalised=normalised,
            first_pixel=first_pixel,
        ),
        train=_words(train),
        val=_words(val),
        val_share=val_share,
        seed=seed,
        link=link,
        on_bad=_on_bad(on_bad),
    )


def class_names(text: str) -> tuple[str, ...]:
    """Names from a list with commas, or from a file.

    Raises:
        ConfigError: the file cannot be read or holds none.
    """
    path = Path(text)
    if not path.is_file():
        names = _words(text)
    else:
        try:
            content = path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise ConfigError(f"--classes: {path}: cannot be read as text ({error})") from error
        if path.suffix in (".yaml", ".yml"):
            data = parse_yaml(content, name=str(path))
            named = data.get("names") if isinstance(data, dict) else data
            listed = list(named.values()) if isinstance(named, dict) else named
            if not isinstance(listed, list):
                raise ConfigError(f"--classes: {path}: needs `names`, a list of names")
            names = tuple(map(str, listed))
        else:
            names = tuple(line.strip() for line in content.splitlines() if line.strip())
    if not names:
        raise ConfigError(
            f"--classes: found no name in {text!r}; allowed are a,b,c or a file with a name a line"
        )
    return names


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _pairs(text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in _words(text):
        role, sign, name = word.partition("=")
        if not sign or not name:
            raise ConfigError(f"--columns: found {word!r}; allowed is ROLE=NAME, for example image=file")
        pairs[role.strip()] = name.strip()
    return pairs


def _on_bad(text: str) -> Literal["error", "skip"]:
    if text == "error":
        return "error"
    if text == "skip":
        return "skip"
    raise ConfigError(f"--on-bad: found {text!r}; allowed are error and skip")
