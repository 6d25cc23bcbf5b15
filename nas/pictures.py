"""Pictures that a person names: found, decoded upright, refused with one sentence each where they cannot be.

They are resized as the pictures of a training set are, by the same functions; only their orientation is always heeded.
In a training set it is where the annotations state the size of the turned picture.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from search_spaces.errors import DataError
from trainers.data.coco import DAMAGED, to_rgb

PIXELS = 89_478_485
"""Of a picture at most where Pillow's own limit is switched off; the same number."""
OnBad = Literal["error", "skip"]
_SHOWN = 20
# EPS would be run, for it is a program, by Ghostscript; of the others Pillow knows the names alone.
_NOT_DECODED = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pictures of some files and folders.

    Attributes:
        pictures: that can be decoded, in order.
        skipped: why others are left out, one sentence each.
        others: files of the folders that are no pictures by their names.
    """

    pictures: tuple[Path, ...]
    skipped: tuple[str, ...]
    others: int


def find_pictures(sources: Sequence[Path], on_bad: OnBad = "error") -> Found:
    """Every picture of these files and folders, decoded once so that nothing is spent in vain.

    Args:
        sources: files are taken by their content, whatever they are called; of folders all files, those of folders
            within them too, that have the suffix of a picture.
        on_bad: ``error`` stops where one cannot be used, ``skip`` leaves it out.

    Raises:
        DataError: all that cannot be used, one a line; or there is none.
    """
    suffixes = {end for end, form in Image.registered_extensions().items() if form in forms()}
    named: dict[Path, None] = {}
    problems: list[str] = []
    others = 0
    for source in sources:
        if not source.is_dir():
            named[source] = None
            continue
        files = sorted(path for path in source.rglob("*") if path.is_file())
        chosen = [path for path in files if path.suffix.lower() in suffixes]
        others += len(files) - len(chosen)
        if not chosen:
            problems.append(f"{source}: the folder holds no picture")
        named |= dict.fromkeys(chosen)
    pictures = []
    for path in named:
        try:
            open_upright(path)
        except DataError as error:
            problems.append(str(error))
        else:
            pictures.append(path)
    if problems and (on_bad == "error" or not pictures):
        lines = [f"{len(problems)} of {len(problems) + len(pictures)} cannot be used:"]
        lines += [f"  {one}" for one in problems[:_SHOWN]]
        lines += [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        lines += ["leave them out with: --on-bad skip"] if pictures else []
        raise DataError("\n".join(lines))
    return Found(pictures=tuple(pictures), skipped=tuple(problems), others=others)


def forms() -> tuple[str, ...]:
    """Formats of pictures that Pillow decodes itself."""
    Image.init()
    return tuple(form for form in Image.OPEN if form not in _NOT_DECODED)


def open_upright(path: Path) -> Image.Image:
    """A picture in RGB, turned as its EXIF orientation says.

    Raises:
        DataError: names the file: it is missing, empty, no picture, cut short, damaged or too large.
    """
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: is empty")
        with warnings.catch_warnings():
            # Below, at the same number of pixels, it is an error.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=forms())
        with opened as image:
            limit = Image.MAX_IMAGE_PIXELS or PIXELS
            width, height = image.size
            if width * height > limit:
                raise DataError(_too_large(path, f"{width}x{height} px are {width * height:,} pixels"))
            return to_rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise DataError(_too_large(path, str(error).partition(",")[0])) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is no picture that Pillow knows") from error
    except DataError:
        raise
    except OSError as error:
        reason = error.strerror or f"it is damaged or cut short ({error})"
        raise DataError(f"{path}: cannot be read: {reason}") from error
    except DAMAGED as error:
        raise DataError(f"{path}: cannot be decoded ({error})") from error


def _too_large(path: Path, what: str) -> str:
    limit = Image.MAX_IMAGE_PIXELS or PIXELS
    return f"{path}: {what}; allowed are {limit:,}, for more may be meant to fill the memory. Make it smaller"
