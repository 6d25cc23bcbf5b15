"""``nas describe --detector``: published totals from the command line, and nothing is built for them."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nas.cli import app
from nas.detector_facts import published_form
from search_spaces.architecture import Genes
from search_spaces.crnas.zoo import ZOO as RESNETS
from search_spaces.families import family_of
from search_spaces.family import Level
from search_spaces.spinenet.zoo import ZOO as SPINENETS
from search_spaces.spinenet.zoo import with_settings
from trainers.detectors.cost import HEADS


def described(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["describe", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)["detector"]
    return found


# network, detector, input, categories, M parameters and GMAC as printed, tolerance of each
Row = tuple[str, str, str, int, float | None, float, float, float]
LIANG: list[Row] = [
    # Table 1, then table 3 of Liang et al. 2020, which print no parameters; normalisation and activations, which we do
    # not count, are the rest. Reallocated networks are compared with what the tables give with their dilations.
    *(
        (network, "faster_rcnn", "800x1088", 80, None, gmac, 0.0, 0.015)
        for network, gmac in (
            ("mobilenetv2", 121.1),
            ("resnet18", 147.7),
            ("scr_resnet18", 147.6),
            ("resnet50", 192.5),
            ("scr_resnet50", 192.7),
            ("resnet101", 257.3),
            ("scr_resnet101", 257.5),
            ("resnext50", 195.4),
            ("resnext101", 260.7),
        )
    ),
    *(
        (network, "mask_rcnn", "800x1088", 80, None, gmac, 0.0, 0.015)
        for network, gmac in (
            ("mobilenetv2", 189.5),
            ("resnet50", 261.2),
            ("scr_resnet50", 261.0),
            ("resnet101", 325.9),
            ("scr_resnet101", 325.8),
        )
    ),
]
DU: list[Row] = [
    # Of Du et al. 2020 and their code. "wide" is SpineNet-49S with the endpoints of 256 that its printed totals have.
    ("wide", "retinanet", "640x640", 91, 12.0, 33.8, 0.005, 0.005),
    ("spinenet49", "retinanet", "640x640", 91, 28.5, 85.4, 0.005, 0.005),
    ("spinenet49", "retinanet", "896x896", 91, 28.5, 167.4, 0.005, 0.005),
    ("spinenet96", "retinanet", "1024x1024", 91, 43.0, 265.4, 0.005, 0.005),
    ("spinenet143", "retinanet", "1280x1280", 91, 66.9, 524.4, 0.005, 0.005),
    ("spinenet190", "retinanet", "1280x1280", 91, 163.6, 1885.0, 0.005, 0.005),
    ("resnet50", "retinanet", "640x640", 91, 34.0, 96.8, 0.005, 0.005),
    ("resnet101", "retinanet", "1024x1024", 91, 53.1, 325.9, 0.005, 0.005),
    ("resnet152", "retinanet", "1280x1280", 91, 68.7, 630.5, 0.005, 0.005),
    # Printed as 1.0 B, so anything from 0.95 on; its sisters' totals were not found in print.
    ("spinenet49_mobile", "retinanet", "384x384", 91, 2.34, 1.0, 0.005, 0.05),
    ("spinenet49s", "mask_rcnn", "640x640", 90, 13.9, 60.2, 0.005, 0.01),
    ("spinenet49", "mask_rcnn", "640x640", 90, 40.8, 216.1, 0.005, 0.01),
    ("spinenet96", "mask_rcnn", "1024x1024", 90, 55.2, 315.0, 0.005, 0.01),
    ("spinenet143", "mask_rcnn", "1280x1280", 90, 79.2, 498.8, 0.005, 0.01),
    ("spinenet190", "mask_rcnn", "1536x1536", 90, 168.2, 1685.7, 0.005, 0.01),
]
NOT_IN_THE_ZOO = {
    "wide": with_settings(SPINENETS["spinenet49s"], {"endpoint": 256}),
    "resnet152": replace(RESNETS["resnet50"], genes=Genes({"blocks": (3, 8, 36, 3), "dilations": (1,) * 50})),
}


@pytest.mark.parametrize(
    ("network", "detector", "size", "classes", "params", "gmac", "params_within", "within"), [*LIANG, *DU]
)
def test_published_totals(
    network: str,
    detector: str,
    size: str,
    classes: int,
    params: float | None,
    gmac: float,
    params_within: float,
    within: float,
    tmp_path: Path,
) -> None:
    source = network
    if network in NOT_IN_THE_ZOO:
        source = str(tmp_path / "architecture.json")
        Path(source).write_text(json.dumps(NOT_IN_THE_ZOO[network].to_dict()))
    found = described(source, "--detector", detector, "--input", size, "--classes", str(classes))
    assert found["macs"] == pytest.approx(gmac * 1e9, rel=within)
    if params is not None:
        assert found["params"] == pytest.approx(params * 1e6, rel=params_within)
    parts = found["parts"]
    assert isinstance(parts, dict)
    for what in ("params", "macs", "activations"):
        assert found[what] == sum(part[what] for part in parts.values())
    assert "backbone" in parts and str(found["rule"]).startswith("multiply-adds of convolutions")


@pytest.mark.parametrize(
    ("network", "detector", "form"),
    [
        ("spinenet49", "mask_rcnn", (4, None, 4, None, 1024)),
        ("spinenet49s", "mask_rcnn", (4, None, 4, None, 512)),
        ("spinenet190", "mask_rcnn", (7, 384, 7, 384, 1024)),
        ("spinenet190", "cascade_rcnn", (7, 384, 4, None, 1024)),
    ],
)
def test_heads_of_regions_are_those_of_the_authors(
    network: str, detector: str, form: tuple[int, int | None, int, int | None, int]
) -> None:
    architecture = SPINENETS[network]
    levels = family_of(architecture).levels(architecture)
    found = published_form(detector, architecture, levels)[0]
    assert form == (
        found.box_convs,
        found.head_channels,
        found.mask_convs,
        found.mask_channels,
        found.box_head,
    )
    assert found.head_convs == 1, "before the proposals"


def test_mobile_spinenets_have_separable_towers() -> None:
    for network, width in (
        ("spinenet49_mobile", 48),
        ("spinenet49s_mobile", 40),
        ("spinenet49xs_mobile", 24),
    ):
        form = described(network, "--detector", "retinanet")["form"]
        assert isinstance(form, dict)
        assert (form["fpn_channels"], form["head_channels"], form["head_convs"]) == (width, None, 4)
        assert form["head_separable"]


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
    form = published_form("fcos", RESNETS["resnet18"], plain)[0]
    assert (form.levels, form.extra_levels, form.head_convs) == (("c3", "c4", "c5"), 2, 4)
    fine = published_form("fcos", RESNETS["resnet18"], {"only": Level(8, 4)})[0]
    assert (fine.levels, fine.extra_levels, fine.pyramid) == (("only",), 2, "fpn")
    coarse = published_form("retinanet", RESNETS["resnet18"], {"a": Level(8, 64), "b": Level(16, 256)})[0]
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
