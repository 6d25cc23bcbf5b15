"""A path through a supernet is the stand-alone network, and only what it touches learns."""

import copy
import random

import pytest
import torch
from torch import Tensor, nn

from search_spaces.architecture import Architecture, Genes
from search_spaces.crnas.supernet import Choice, DilationSupernet, StageSupernet, Supernet
from search_spaces.errors import InvalidArchitecture
from search_spaces.families import family_of

BASIC = Genes(
    {"block": "basic", "widths": [8, 8, 16, 16], "stem": "small", "groups": 1, "width_per_group": 64}
)
GROUPED = Genes(
    {
        "block": "bottleneck",
        "widths": [16, 16, 16, 32],
        "stem": "imagenet",
        "groups": 2,
        "width_per_group": 16,
    }
)
MOBILE = Genes({"stem": "imagenet", "width_multiplier": 0.25})
FAMILIES = [
    ("crnas.resnet", BASIC, ((1, 2, 3), (1, 2), (1, 3), (2, 4))),
    ("crnas.resnet", GROUPED, ((1, 2), (1, 2), (2, 3), (1, 2))),
    ("crnas.mobilenetv2", MOBILE, ((1, 2), (1, 2), (2, 3, 7), (1, 3))),
]
Table = tuple[tuple[int, ...], ...]


def network(
    family: str, settings: Genes, blocks: tuple[int, ...], dilations: tuple[int, ...] = ()
) -> Architecture:
    genes = Genes({"blocks": blocks, "dilations": dilations or (1,) * sum(blocks)})
    return Architecture(family=family, settings=settings, genes=genes)


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def stage_paths(family: str, settings: Genes, branches: Table, count: int) -> list[Architecture]:
    rng = random.Random(0)
    return [network(family, settings, tuple(rng.choice(counts) for counts in branches)) for _ in range(count)]


def dilation_paths(base: Architecture, count: int) -> list[Architecture]:
    rng = random.Random(1)
    blocks = base.genes["blocks"]
    assert isinstance(blocks, tuple)
    total = sum(blocks)  # type: ignore[arg-type]
    return [
        network(base.family, base.settings, blocks, tuple(rng.choice((1, 2, 3)) for _ in range(total)))  # type: ignore[arg-type]
        for _ in range(count)
    ]


def supernets() -> list[tuple[str, Supernet, list[Architecture]]]:
    made: list[tuple[str, Supernet, list[Architecture]]] = []
    for family, settings, branches in FAMILIES:
        for sharing in ("independent", "prefix"):
            supernet = StageSupernet(
                family=family,
                settings=settings,
                branches=branches,
                sharing=sharing,  # type: ignore[arg-type]
                seed=3,
            )
            made.append((f"{family} {sharing}", supernet, stage_paths(family, settings, branches, 3)))
        base = network(family, settings, tuple(counts[-1] for counts in branches))
        made.append((f"{family} dilations", DilationSupernet(base, seed=4), dilation_paths(base, 3)))
    return made


@pytest.mark.parametrize("index", range(9))
@pytest.mark.parametrize("training", [True, False])
def test_a_path_equals_its_sliced_stand_alone_network(index: int, training: bool) -> None:
    _, supernet, paths = supernets()[index]
    for path in paths:
        supernet.train(True)
        supernet.set_path(path)
        supernet(images(1))  # running statistics that are not their initial ones
        alone = family_of(path).build(path)
        alone.load_state_dict(supernet.slice(path), strict=True)
        supernet.train(training)
        alone.train(training)
        theirs, ours = supernet(images()), alone(images())
        assert list(theirs) == list(ours) == ["c2", "c3", "c4", "c5"]
        for level, expected in ours.items():
            assert torch.allclose(theirs[level], expected, atol=1e-6)
            assert theirs[level].shape[1] == supernet.levels[level][0]
        assert supernet.levels == alone.levels
        # Training mode moved the statistics of both alike.
        assert_equal(supernet.slice(path), alone.state_dict())


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.allclose(value, other[key], atol=1e-6) for key, value in one.items())


@pytest.mark.parametrize("index", range(9))
def test_one_step_moves_only_the_active_weights(index: int) -> None:
    _, supernet, paths = supernets()[index]
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    names = {module: name for name, module in supernet.named_modules()}
    for path in paths:  # later steps find momentum of the earlier paths
        before = {key: value.clone() for key, value in supernet.state_dict().items()}
        supernet.set_path(path)
        supernet.train()
        optimizer.zero_grad(set_to_none=True)
        torch.stack([level.square().mean() for level in supernet(images()).values()]).sum().backward()
        optimizer.step()
        moved = {key for key, value in supernet.state_dict().items() if not torch.equal(value, before[key])}
        active = {names[module] for module in supernet.active_modules(path)}
        assert {key.rpartition(".")[0] for key in moved} <= active
        statistics = {key for key in before if key.endswith("num_batches_tracked")}
        assert {key.rpartition(".")[0] for key in moved & statistics} == {
            name for name in active if isinstance(supernet.get_submodule(name), nn.BatchNorm2d)
        }
        reached = {key for key in moved if key.endswith("weight")}
        assert reached == {f"{name}.weight" for name in active if f"{name}.weight" in before}


@pytest.mark.parametrize("index", range(9))
def test_every_weight_belongs_to_some_path_and_is_stored_once(index: int) -> None:
    _, supernet, _ = supernets()[index]
    state = supernet.state_dict()
    assert len({value.data_ptr() for value in state.values() if value.numel()}) == len(state)
    family, settings, branches = FAMILIES[index // 3]
    if index % 3 == 2:
        blocks = tuple(counts[-1] for counts in branches)
        paths = [network(family, settings, blocks, (dilation,) * sum(blocks)) for dilation in (1, 2, 3)]
    else:
        deepest = max(len(counts) for counts in branches)
        paths = [
            network(family, settings, tuple(counts[min(index, len(counts) - 1)] for counts in branches))
            for index in range(deepest)
        ]
    reached = {module for path in paths for module in supernet.active_modules(path)}
    assert {module for module in supernet.modules() if list(module.parameters(recurse=False))} <= reached


def test_prefix_sharing_uses_the_first_blocks_of_one_chain() -> None:
    family, settings, branches = FAMILIES[0]
    supernet = StageSupernet(family=family, settings=settings, branches=branches, sharing="prefix")
    short = supernet.slice(network(family, settings, (1, 1, 1, 2)))
    long = supernet.slice(network(family, settings, (3, 2, 3, 4)))
    assert short.keys() < long.keys()
    assert all(torch.equal(value, long[key]) for key, value in short.items())


def test_independent_branches_share_no_block() -> None:
    family, settings, branches = FAMILIES[0]
    supernet = StageSupernet(family=family, settings=settings, branches=branches)
    shared = {
        module
        for module in supernet.active_modules(network(family, settings, (1, 1, 1, 2)))
        if module in set(supernet.active_modules(network(family, settings, (3, 2, 3, 4))))
    }
    assert shared == {module for layer in supernet.stem for module in layer.modules()}


def test_a_dilation_chooses_one_convolution_and_shares_the_rest() -> None:
    family, settings, _ = FAMILIES[1]
    base = network(family, settings, (1, 1, 1, 1))
    supernet = DilationSupernet(base, seed=0)
    one, two = (supernet.slice(network(family, settings, (1, 1, 1, 1), (1, 1, d, 1))) for d in (1, 2))
    differing = {key for key, value in one.items() if not torch.equal(value, two[key])}
    assert differing == {"layer3.0.conv2.weight"}  # the fresh statistics beside it are equal
    choices = [module for module in supernet.modules() if isinstance(module, Choice)]
    assert len(choices) == 2 * 4
    for dilation in (1, 2, 3):
        supernet.set_path(network(family, settings, (1, 1, 1, 1), (dilation,) * 4))
        shapes = {level: found.shape for level, found in supernet(images()).items()}
        assert shapes == {
            level: (2, channels, 64 // stride, 96 // stride)
            for level, (channels, stride) in supernet.levels.items()
        }


def test_slicing_and_asking_leave_the_path_as_it_was() -> None:
    base = network("crnas.resnet", BASIC, (1, 1, 1, 1))
    supernet = DilationSupernet(base, seed=0).eval()
    supernet.set_path(network("crnas.resnet", BASIC, (1, 1, 1, 1), (3, 2, 3, 2)))
    before = supernet(images())
    supernet.slice(base)
    supernet.active_modules(base)
    supernet.inherit(supernet.slice(base))
    supernet.load_state_dict(DilationSupernet(base, seed=0).state_dict())
    after = supernet(images())
    assert all(torch.equal(found, after[level]) for level, found in before.items())


def test_a_slice_is_a_copy() -> None:
    base = network("crnas.resnet", BASIC, (1, 1, 1, 1))
    supernet = DilationSupernet(base)
    for value in supernet.slice(base).values():
        value.zero_()
    assert supernet.slice(base)["conv1.weight"].abs().sum() > 0


def test_a_dilation_supernet_inherits_the_winner_of_the_stages() -> None:
    family, settings, branches = FAMILIES[0]
    winner = network(family, settings, (2, 1, 3, 2))
    weights = StageSupernet(family=family, settings=settings, branches=branches, seed=5).slice(winner)
    supernet = DilationSupernet(winner, seed=6)
    supernet.inherit(weights)
    for dilation in (1, 2, 3):
        path = network(family, settings, (2, 1, 3, 2), (dilation,) * 8)
        assert_equal(supernet.slice(path), weights)


def test_the_seed_alone_decides_the_weights() -> None:
    family, settings, branches = FAMILIES[2]
    one, same, other = (
        StageSupernet(family=family, settings=settings, branches=branches, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(value, same[key]) for key, value in one.items())
    assert any(not torch.equal(value, other[key]) for key, value in one.items())


def test_a_deep_copy_has_its_own_path() -> None:
    base = network("crnas.resnet", BASIC, (1, 1, 1, 1))
    supernet = DilationSupernet(base, seed=0).eval()
    supernet.set_path(base)
    before = supernet(images())
    twin = copy.deepcopy(supernet)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    twin.set_path(network("crnas.resnet", BASIC, (1, 1, 1, 1), (2, 2, 2, 2)))
    assert all(torch.equal(found, before[level]) for level, found in supernet(images()).items())
    assert all(found.abs().max() == 0 for found in twin(images()).values())


def test_foreign_paths_are_named() -> None:
    family, settings, branches = FAMILIES[0]
    stages = StageSupernet(family=family, settings=settings, branches=branches)
    dilations = DilationSupernet(network(family, settings, (1, 1, 1, 1)), choices=(1, 2))
    with pytest.raises(InvalidArchitecture, match=r"4 blocks in stage 1; allowed are \[1, 2, 3\]"):
        stages.set_path(network(family, settings, (4, 1, 1, 2)))
    with pytest.raises(InvalidArchitecture, match="dilation 1 only"):
        stages.set_path(network(family, settings, (1, 1, 1, 2), (1, 1, 1, 2, 1)))
    with pytest.raises(InvalidArchitecture, match="is not the network of this supernet"):
        stages.set_path(network(family, GROUPED, (1, 1, 1, 2)))
    with pytest.raises(InvalidArchitecture, match=r"dilations \[1, 2\]"):
        dilations.set_path(network(family, settings, (1, 1, 1, 1), (1, 1, 1, 3)))
    with pytest.raises(InvalidArchitecture, match=r"blocks \[1, 1, 1, 1\]"):
        dilations.set_path(network(family, settings, (1, 1, 1, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branches": ((1,), (1,), (1,))}, "four lists"),
        ({"branches": ((1,), (1,), (), (1,))}, "four lists"),
        ({"branches": ((1, 1), (1,), (1,), (1,))}, "distinct"),
        ({"branches": ((0, 1), (1,), (1,), (1,))}, r"blocks\[0\].*found 0"),
        ({"branches": ((1, 0), (1,), (1,), (1,))}, r"blocks\[0\].*found 0"),
        ({"sharing": "some"}, "'independent' and 'prefix'"),
        ({"family": "crnas.vgg"}, r"crnas\.vgg"),
    ],
)
def test_bad_supernets_are_named(change: dict[str, object], message: str) -> None:
    family, settings, branches = FAMILIES[0]
    arguments: dict[str, object] = {"family": family, "settings": settings, "branches": branches, **change}
    with pytest.raises(InvalidArchitecture, match=message):
        StageSupernet(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("choices", [(), (1, 1), (1, 4)])
def test_bad_choices_are_named(choices: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArchitecture, match="allowed are"):
        DilationSupernet(network("crnas.resnet", BASIC, (1, 1, 1, 1)), choices=choices)
