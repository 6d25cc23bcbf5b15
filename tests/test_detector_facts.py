"""``nas describe --detector``: published totals from the command line, and nothing is built for them."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from nas.cli import app
from nas.detector_facts import published_form
from search_spaces.family import Level
from trainers.detectors.cost import HEADS


def described(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["describe", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)["detector"]
    return found


# network, detector, input, categories, GMAC as printed by Liang et al. 2020 and Du et al. 2020, tolerance
PUBLISHED = [
    ("resnet18", "faster_rcnn", "800x1088", 80, 147.7, 0.015),
    ("scr_resnet50", "faster_rcnn", "800x1088", 80, 192.7, 0.015),
    ("resnet101", "mask_rcnn", "800x1088", 80, 325.9, 0.015),
    ("resnet50", "retinanet", "640x640", 91, 96.8, 0.005),
    ("spinenet49", "retinanet", "896x896", 91, 167.4, 0.005),
    ("spinenet190", "retinanet", "1280x1280", 91, 1885.0, 0.005),
    ("spinenet49s", "mask_rcnn", "640x640", 90, 60.2, 0.01),
    ("spinenet143", "mask_rcnn", "1280x1280", 90, 498.8, 0.01),
]


@pytest.mark.parametrize(("network", "detector", "size", "classes", "gmac", "within"), PUBLISHED)
def test_published_totals(
    network: str, detector: str, size: str, classes: int, gmac: float, within: float
) -> None:
    found = described(network, "--detector", detector, "--input", size, "--classes", str(classes))
    assert found["macs"] == pytest.approx(gmac * 1e9, rel=within)
    parts = found["parts"]
    assert isinstance(parts, dict)
    for what in ("params", "macs", "activations"):
        assert found[what] == sum(part[what] for part in parts.values())
    assert "backbone" in parts and str(found["rule"]).startswith("multiply-adds of convolutions")


def test_the_rule_says_how_many_regions_were_counted() -> None:
    liang = described("resnet50", "--detector", "mask_rcnn", "--input", "800x1088")
    assert liang["regions"] == {"boxes": 2000, "masks": 128}
    assert "2,000 regions through the box head, 128 through the mask head" in str(liang["rule"])
    du = described("spinenet49", "--detector", "mask_rcnn", "--input", "640x640")
    assert du["regions"] == {"boxes": 1000, "masks": 100}
    assert described("resnet50", "--detector", "fcos")["regions"] is None


@pytest.mark.parametrize("name", HEADS)
def test_every_detector_of_the_catalog_can_be_described(name: str) -> None:
    for network in ("resnet18", "mobilenetv2", "spinenet49s", "spinenet49_mobile"):
        assert described(network, "--detector", name, "--input", "256x384")["name"] == name


def test_one_stage_reads_p3_to_p7() -> None:
    plain = {f"c{level}": Level(64 * level, 2**level) for level in range(2, 6)}
    form = published_form("fcos", plain)[0]
    assert (form.levels, form.extra_levels, form.head_convs) == (("c3", "c4", "c5"), 2, 4)
    fine = published_form("fcos", {"only": Level(8, 4)})[0]
    assert (fine.levels, fine.extra_levels, fine.pyramid) == (("only",), 2, "fpn")
    coarse = published_form("retinanet", {"a": Level(8, 64), "b": Level(16, 256)})[0]
    assert (coarse.levels, coarse.extra_levels) == (("a", "b"), 0)


def test_people_read_a_table() -> None:
    result = CliRunner().invoke(app, ["describe", "resnet18", "--detector", "faster_rcnn"])
    assert "box head" in result.stdout and "2,000 regions" in " ".join(result.stdout.split())


def test_mistakes_end_in_a_sentence() -> None:
    for arguments, words in (
        (["--detector", "faster"], "--detector: found 'faster'; allowed are fcos, faster_rcnn"),
        (["--detector", "fcos", "--classes", "0"], "--classes: found 0; allowed is 1 or more"),
    ):
        result = CliRunner().invoke(app, ["describe", "resnet18", *arguments])
        assert result.exit_code == 2 and words in result.stderr


def test_nothing_is_built() -> None:
    program = (
        "import sys\n"
        "from nas.detector_facts import description_with_detector\n"
        "description_with_detector('resnet50', '800x1088', 'mask_rcnn', 80)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
