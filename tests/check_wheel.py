"""Checks a built wheel: exactly the packages nas, search_spaces and trainers at its top level."""

import sys
import zipfile
from pathlib import Path

EXPECTED = {"nas", "search_spaces", "trainers"}


def check(dist: Path) -> str:
    """Return a sentence about the newest wheel of ``dist``; exit with 1 when its top level is wrong."""
    wheels = sorted(dist.glob("vertebra-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        sys.exit(f"no wheel in {dist}: run `make wheel`")
    names = zipfile.ZipFile(wheels[-1]).namelist()
    found = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if found != EXPECTED:
        sys.exit(f"{wheels[-1].name}: top level {sorted(found)}; it must be {sorted(EXPECTED)}")
    untyped = [package for package in EXPECTED if f"{package}/py.typed" not in names]
    if untyped:
        sys.exit(f"{wheels[-1].name}: py.typed is missing from {untyped}")
    return f"{wheels[-1].name}: {len(names)} files, top level {sorted(found)}"


if __name__ == "__main__":
    print(check(Path(sys.argv[1])))
