"""The winner as files that run without the toolkit, each compared: python examples/06_export.py [DIR]

After examples/04_search.py. The same on the command line: nas export runs/examples/search --to runs/examples/bundle
"""

import sys
from pathlib import Path

from nas.export.formats import read_report
from nas.methods.exporting import export

if __name__ == "__main__":
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
    bundle = export(str(directory / "search"), directory / "bundle", ["all"])
    found = read_report(bundle)
    for one in found["artefacts"]:
        worst = max((check["difference"] for check in one["checks"]), default=0.0)
        print(
            f"{one['file']}: {one['holds']}, {one['bytes']:,} bytes, for {one['accepts']}; off by {worst:.1e} at most"
        )
    for sentence in found["left_out"]:
        print("left out:", sentence)
    print((bundle / "README.md").read_text(encoding="utf-8").splitlines()[0])
