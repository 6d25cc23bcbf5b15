"""The spaces of CR-NAS: exact sizes, members, budgets, and a message for every bad input."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from search_spaces.architecture import Architecture, Genes
from search_spaces.catalog import FAMILIES, SPACES, ZOO, get_architecture, get_space
from search_spaces.cost import cost
from search_spaces.crnas.dilations import DilationSpace
from search_spaces.crnas.stages import BRANCHES, MOBILENETV2_BRANCHES, RESNET_BRANCHES, StageSpace
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of
from search_spaces.genes import Choice, Composition

RESNET18 = ZOO["resnet18"]
SMALL_BRANCHES = ((1, 2, 3, 4),) * 4


def changed(base: Architecture, settings: Mapping[str, Any] | None = None, **genes: Any) -> Architecture:
    return replace(
        base,
        settings=Genes({**base.settings, **(settings or {})}),
        genes=Genes({**base.genes, **genes}),
    )


def allocation(*blocks: Any, base: Architecture = RESNET18) -> Architecture:
    return changed(base, blocks=blocks, dilations=(1,) * int(sum(blocks)))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("crnas.resnet18.stages", 9),
        ("crnas.resnet50.stages", 153),
        ("crnas.resnet101.stages", 374),
        ("crnas.resnext50.stages", 153),
        ("crnas.resnext101.stages", 374),
        ("crnas.mobilenetv2.stages", 45),
        ("crnas.resnet18.dilations", 3**8),
        ("crnas.resnet50.dilations", 3**16),
        ("crnas.resnet101.dilations", 3**33),
        ("crnas.resnext50.dilations", 3**16),
        ("crnas.resnext101.dilations", 3**33),
        ("crnas.mobilenetv2.dilations", 3**15),
    ],
)
def test_sizes_are_exact(name: str, size: int) -> None:
    space = get_space(name)
    assert space.size == size
    assert space.name == name


def test_the_catalog_is_what_is_scripted_against() -> None:
    networks = ("resnet18", "resnet50", "resnet101", "resnext50", "resnext101", "mobilenetv2")
    assert {name for name in SPACES if name.startswith("crnas.")} == {
        f"crnas.{name}.{level}" for name in networks for level in ("stages", "dilations")
    }
    assert set(networks) | {"scr_resnet18", "scr_resnet50", "scr_resnet101"} <= set(ZOO)
    assert {"crnas.resnet", "crnas.mobilenetv2"} <= set(FAMILIES)


def test_the_nine_allocations_of_eight_blocks() -> None:
    space = get_space("crnas.resnet18.stages")
    found = ["".join(map(str, cast(tuple[int, ...], a.genes["blocks"]))) for a in space.enumerate()]
    assert found == ["1124", "1133", "1223", "1232", "1322", "2123", "2132", "2222", "3122"]


def test_branches_have_ten_counts_a_stage_and_307_blocks() -> None:
    assert [len(counts) for counts in RESNET_BRANCHES] == [10] * 4
    assert [sum(counts) for counts in RESNET_BRANCHES] == [55, 55, 110, 87]


@pytest.mark.parametrize("budget", [8, 16, 33])
def test_stage_spaces_hold_what_brute_force_finds(budget: int) -> None:
    network = {8: "resnet18", 16: "resnet50", 33: "resnet101"}[budget]
    expected = [tau for tau in itertools.product(*RESNET_BRANCHES) if sum(tau) == budget]
    assert [a.genes["blocks"] for a in get_space(f"crnas.{network}.stages").enumerate()] == expected


def test_a_free_table_of_branches() -> None:
    space = StageSpace("mine", RESNET18, SMALL_BRANCHES, 8)
    assert space.size == 31
    assert space.branches == SMALL_BRANCHES
    assert len(list(space.enumerate())) == 31


def test_published_reallocations_are_members() -> None:
    for name in ("resnet18", "resnet50", "resnet101"):
        assert ZOO[f"scr_{name}"] in get_space(f"crnas.{name}.stages")
        assert ZOO[name] in get_space(f"crnas.{name}.stages")


@pytest.mark.parametrize("name", ["crnas.resnet18.stages", "crnas.resnet50.stages", "crnas.resnext50.stages"])
def test_equal_blocks_are_equal_macs(name: str) -> None:
    space = get_space(name)
    macs = {cost(architecture).macs for architecture in itertools.islice(space.enumerate(), 20)}
    assert macs == {cost(space.baseline).macs}


def test_mobilenetv2_keeps_its_macs_within_half_a_percent() -> None:
    space = get_space("crnas.mobilenetv2.stages")
    base = cost(space.baseline).macs
    assert base == 299494272
    inside = {a.genes["blocks"]: cost(a).macs for a in space.enumerate()}
    assert all(abs(macs - base) <= 0.005 * base for macs in inside.values())
    # Additivity of the stages, on which the count of 45 rests: every allocation outside really is outside.
    gene = space.genes["blocks"]
    assert isinstance(gene, Composition)
    for tau in itertools.islice(itertools.product(*MOBILENETV2_BRANCHES), 0, None, 97):
        macs = cost(allocation(*tau, base=space.baseline)).macs
        assert macs == gene.cost(tau)
        assert (abs(macs - base) <= 0.005 * base) == (tau in inside)


def test_a_wider_tolerance_holds_more() -> None:
    base = ZOO["mobilenetv2"]
    sizes = [
        StageSpace("m", base, BRANCHES[base.family], None, tolerance=share).size for share in (0, 0.005, 0.02)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 1
    assert sizes[2] > 45


def test_a_window_of_macs_serves_resnets_too() -> None:
    assert StageSpace("r", RESNET18, RESNET_BRANCHES, None).size == 9


def test_spaces_keep_the_settings_of_their_baseline() -> None:
    small = changed(RESNET18, {"widths": (16, 32, 64, 128), "stem": "small"})
    space = StageSpace("small", small, SMALL_BRANCHES, 8)
    assert all(a.settings == small.settings for a in space.enumerate())
    assert RESNET18 not in space
    dilated = DilationSpace("small", allocation(1, 1, 2, 4, base=small))
    assert all(a.settings == small.settings for a in itertools.islice(dilated.enumerate(), 5))


@pytest.mark.parametrize("name", SPACES)
def test_every_family_accepts_what_its_spaces_hold(name: str) -> None:
    for architecture in itertools.islice(get_space(name).enumerate(), 50):
        family_of(architecture).validate(architecture)


def test_a_gene_for_every_block_in_the_order_of_the_network() -> None:
    space = DilationSpace("d", ZOO["scr_resnet18"])
    assert list(space.genes) == ["d1.0", "d2.0", "d3.0", "d3.1", "d4.0", "d4.1", "d4.2", "d4.3"]
    assert set(space.genes.values()) == {Choice((1, 2, 3))}
    values = dict(zip(space.genes, (1, 1, 1, 2, 1, 2, 2, 3), strict=True))
    architecture = space.architecture(values)
    assert architecture.genes["dilations"] == (1, 1, 1, 2, 1, 2, 2, 3)
    assert architecture.genes["blocks"] == (1, 1, 2, 4)
    assert space.values(architecture) == values
    assert cost(architecture) == cost(ZOO["scr_resnet18"])


def resnet18_stages() -> StageSpace:
    return StageSpace("crnas.resnet18.stages", RESNET18, RESNET_BRANCHES, 8)


def resnet18_dilations() -> DilationSpace:
    return DilationSpace("crnas.resnet18.dilations", RESNET18)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (allocation(2, 2, 4), "blocks: found .* with 3 parts; allowed are 4"),
        (allocation(2, 2, 2, 1, 1), "blocks: found .* with 5 parts; allowed are 4"),
        (allocation(2, 2, 2, 2.0), "blocks: found .*2.0.*; allowed is a list of integers"),
        (changed(RESNET18, blocks=("2", 2, 2, 2)), "blocks: found .*; allowed is a list of integers"),
        (changed(RESNET18, blocks=8), "blocks: found 8; allowed is a list of integers"),
        (allocation(1, 1, 4, 2), r"blocks: found 4 in part 3 of \[1, 1, 4, 2\]; allowed are 2, 3, 5"),
        (allocation(0, 2, 3, 3), "blocks: found 0 in part 1"),
        (allocation(3, 4, 6, 3), "blocks: .* with sum 16; allowed is sum 8"),
        (changed(RESNET18, dilations=(1,) * 7), "found dilations .*; allowed is 1 for each"),
        (changed(RESNET18, dilations=(1,) * 7 + (2,)), "found dilations .*; allowed is 1 for each"),
        (ZOO["mobilenetv2"], "found family 'crnas.mobilenetv2'; this space has 'crnas.resnet' only"),
        (changed(RESNET18, {"block": "bottleneck"}), "found settings .*'bottleneck'"),
        (replace(RESNET18, version=2), "found version 2; this space has 1 only"),
        (replace(RESNET18, genes=Genes({"blocks": (2, 2, 2, 2)})), r"found genes \['blocks'\]; needed are"),
    ],
)
def test_what_is_not_in_a_stage_space_says_why(architecture: Architecture, message: str) -> None:
    space = resnet18_stages()
    assert architecture not in space
    with pytest.raises(InvalidArchitecture, match=f"crnas.resnet18.stages: {message}"):
        space.validate(architecture)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (changed(RESNET18, dilations=(1,) * 7), "found dilations .*; needed is one for each of the 8 blocks"),
        (changed(RESNET18, dilations=(1,) * 9), "found dilations .*; needed is one for each of the 8 blocks"),
        (changed(RESNET18, dilations=2), "found dilations 2; needed is one for each"),
        (changed(RESNET18, dilations=(1,) * 7 + (4,)), "d4.1: found 4; allowed are 1, 2, 3"),
        (changed(RESNET18, dilations=(0,) + (1,) * 7), "d1.0: found 0; allowed are 1, 2, 3"),
        (changed(RESNET18, dilations=(1,) * 7 + (2.0,)), "d4.1: found 2.0; allowed are 1, 2, 3"),
        (allocation(1, 1, 2, 4), r"found blocks \(1, 1, 2, 4\); this space has \(2, 2, 2, 2\) only"),
        (ZOO["resnet50"], "found settings"),
    ],
)
def test_what_is_not_in_a_dilation_space_says_why(architecture: Architecture, message: str) -> None:
    space = resnet18_dilations()
    assert architecture not in space
    with pytest.raises(InvalidArchitecture, match=f"crnas.resnet18.dilations: {message}"):
        space.validate(architecture)


def test_macs_outside_the_window_are_named() -> None:
    space = get_space("crnas.mobilenetv2.stages")
    with pytest.raises(
        InvalidArchitecture, match=r"with MACs at 224x224 \d+; allowed is MACs .* from 297996801 to"
    ):
        space.validate(allocation(2, 3, 8, 3, base=space.baseline))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: StageSpace("s", RESNET18, RESNET_BRANCHES, 5),
            "s: branches: no allocation with sum 5 exists; the parts allow .* Sums reach from 6 to 60",
        ),
        (
            lambda: StageSpace("s", RESNET18, SMALL_BRANCHES[:3], 8),
            "branches: found 3 stages; needed are four",
        ),
        (
            lambda: StageSpace("s", RESNET18, ((0, 2), *SMALL_BRANCHES[1:]), 8),
            r"branches: found \[0, 2\] for stage 1; allowed are counts of at least 1",
        ),
        (lambda: StageSpace("s", RESNET18, ((), *SMALL_BRANCHES[1:]), 8), r"branches: part 1 allows \[\]"),
        (lambda: StageSpace("s", RESNET18, ((2, 1), *SMALL_BRANCHES[1:]), 8), "ascending, each once"),
        (
            lambda: StageSpace("s", RESNET18, ((2, 2.5), *SMALL_BRANCHES[1:]), 8),
            "branches: .*list of integers",
        ),
        (lambda: StageSpace("s", RESNET18, ((2, 1), *SMALL_BRANCHES[1:]), None), "ascending, each once"),
        (
            lambda: StageSpace("s", RESNET18, SMALL_BRANCHES, 9),
            "with sum 8; allowed is sum 9. That is the baseline",
        ),
        (
            lambda: StageSpace("s", RESNET18, ((1, 3, 4), *SMALL_BRANCHES[1:]), 8),
            "found 2 in part 1 .* That is the baseline, which must be in the space",
        ),
        (
            lambda: StageSpace("s", changed(RESNET18, {"block": "basik"}), SMALL_BRANCHES, 8),
            "settings.block: found 'basik'; allowed are basic, bottleneck",
        ),
        (
            lambda: StageSpace("s", ZOO["mobilenetv2"], MOBILENETV2_BRANCHES, None, tolerance=-0.1),
            "tolerance -0.1: allowed is from 0 to below 1",
        ),
        (
            lambda: StageSpace("s", replace(RESNET18, family="crnas.vgg"), SMALL_BRANCHES, 8),
            "unknown family 'crnas.vgg'; allowed are crnas.mobilenetv2, crnas.resnet",
        ),
        (lambda: DilationSpace("d", changed(RESNET18, dilations=(1,) * 7)), "found 7 for blocks"),
        (lambda: DilationSpace("d", allocation(2, 2, 4)), "allowed are four block counts"),
    ],
)
def test_spaces_that_cannot_be_say_why(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidArchitecture, match=message):
        make()


def test_inputs_below_32_pixels_are_refused() -> None:
    with pytest.raises(InvalidArchitecture, match="at least 32 px"):
        cost(RESNET18, (31, 224))


def test_unknown_names_name_the_nearest() -> None:
    with pytest.raises(
        InvalidArchitecture, match=r"unknown space 'crnas.resnet18.stage'; did you mean crnas.resnet18.stages"
    ):
        get_space("crnas.resnet18.stage")
    with pytest.raises(InvalidArchitecture, match="unknown architecture 'resnet_18'; did you mean resnet18"):
        get_architecture("resnet_18")
    with pytest.raises(InvalidArchitecture, match=r"Allowed are .*mobilenetv2"):
        get_architecture("zzz")
    with pytest.raises(
        InvalidArchitecture, match="'cr_resnet50' is not in the zoo: its dilations exist only"
    ):
        get_architecture("cr_resnet50")


def test_spaces_and_costs_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from search_spaces.catalog import SPACES, get_space\n"
        "from search_spaces.cost import cost\n"
        "from search_spaces.randomness import rng_for\n"
        "for name in SPACES:\n"
        "    cost(get_space(name).sample(rng_for(0, name)))\n"
        "wrong = {'torch', 'torchvision', 'numpy', 'optuna'} & set(sys.modules)\n"
        "sys.exit(f'imported {wrong}' if wrong else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
