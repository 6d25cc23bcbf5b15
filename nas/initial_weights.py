"""Weights that a backbone's training begins with: a bundle's, a file's, torchvision's, or another allocation's."""

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from nas.training_files import stored_backbone
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.crnas.remapping import block_sources
from search_spaces.crnas.zoo import ZOO
from search_spaces.errors import ConfigError, InvalidArchitecture, RunError

TORCHVISION = {
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "resnext50": "resnext50_32x4d",
    "resnext101": None,
    "mobilenetv2": "mobilenet_v2",
}
"""Hand-made network of the zoo -> torchvision's name for it; None where torchvision has no weights (its
resnext101 are 32x8d and 64x4d)."""
IMAGENET = {"imagenet": "IMAGENET1K_V1", "imagenet_v2": "IMAGENET1K_V2"}
"""What a recipe says -> which of torchvision's weights."""

# Layers behind the backbone in torchvision's classifiers.
_HEADS = ("fc.", "classifier.")
# Keys under which training scripts put the network's own state.
_NESTED = ("model", "state_dict")
_COUNTER = "num_batches_tracked"
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class InitialWeights:
    """Tensors that a backbone begins with; those it has beside them stay freshly drawn.

    Args:
        tensors: by their names in the network.
        origin: where they come from, for a person.
        blocks: block of the network -> block whose weights it has, where another allocation was mapped into it.
        fresh: names of the tensors that stay freshly drawn.
    """

    tensors: Mapping[str, Tensor] = field(repr=False)
    origin: str
    blocks: Mapping[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of names and values, 16 hexadecimal digits."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            found.update(name.encode() + tensor.numpy().tobytes())
        return found.hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """What a result says of them, ready for JSON."""
        return {
            "origin": self.origin,
            "digest": self.digest,
            "tensors": len(self.tensors),
            "blocks": dict(self.blocks),
            "fresh": list(self.fresh),
        }

    def sentence(self) -> str:
        """How much of the network has weights, and what has none."""
        total = len(self.tensors) + len(self.fresh)
        rest = f"; freshly drawn: {', '.join(self.fresh)}" if self.fresh else ""
        return f"initial weights from {self.origin}: {len(self.tensors)} of {total} tensors{rest}"

    def load(self, body: torch.nn.Module) -> None:
        """Put them into the network that they were made for."""
        missing, unexpected = body.load_state_dict(self.tensors, strict=False)
        # torch does not count missing counters of batches as missing.
        assert not unexpected and set(missing) <= set(self.fresh), "made for another network"


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """Weights as found, and of which network they are where that is written beside them."""

    weights: dict[str, Tensor]
    origin: str
    architecture: Architecture | None


def initial_weights(
    init: str, *, remap: bool, bundle: str, architecture: Architecture
) -> InitialWeights | None:
    """What ``init`` and ``remap`` of a training recipe mean for a network.

    Args:
        init: see :class:`nas.recipes.train_job.TrainJobRecipe`.
        remap: the weights may be of another allocation of the network.
        bundle: what was named on the command line, for ``init: bundle``.
        architecture: of the network that is trained.

    Returns:
        None for ``scratch``.

    Raises:
        ConfigError: no such word, or nothing at the path; no weights at torchvision for this network; or a network
            into which no blocks can be mapped.
        RunError: weights that cannot be read or fetched, or of another network.
    """
    if init == "scratch":
        return None
    if init == "bundle":
        if not Path(bundle).is_dir():
            raise ConfigError(
                f"init: found 'bundle', but {bundle} is no folder with weights; allowed for a network by its name are "
                "scratch, imagenet, imagenet_v2 and a path to weights: --set init=scratch"
            )
        stored = _of_folder(Path(bundle), what="bundle")
    elif init in IMAGENET:
        stored = _of_torchvision(init, architecture)
    else:
        stored = _of_path(Path(init))
    wanted = _drawn(architecture)
    found = _remapped(stored, architecture, wanted) if remap else _strict(stored, wanted)
    # As the network holds them, so that a file of half precision means the same on every machine.
    tensors = {name: one.detach().to(wanted[name].dtype).contiguous() for name, one in found.tensors.items()}
    broken = [name for name, one in tensors.items() if not bool(torch.isfinite(one).all())]
    if broken:
        raise RunError(f"init: {found.origin}: {_some(broken)} hold NaN or infinity; take other weights")
    return replace(found, tensors=tensors)


def _of_folder(folder: Path, *, what: str) -> _Stored:
    architecture, weights = stored_backbone(folder)
    if weights is None:
        raise RunError(
            f"init: {what}, but {folder} has no weights; export a run that retrained its winner, or set "
            "init to scratch"
        )
    return _Stored(weights=weights, origin=str(folder), architecture=architecture)


def _of_path(path: Path) -> _Stored:
    if path.is_dir():
        return _of_folder(path, what=str(path))
    if not path.is_file():
        raise ConfigError(
            f"init: found {str(path)!r}, and there is nothing at that path; allowed are scratch, bundle, "
            f"{', '.join(IMAGENET)}, a .pth, .pt or .safetensors file in torchvision's names, a bundle, or a directory "
            "of nas train or nas pretrain"
        )
    return _Stored(weights=read_state(path), origin=str(path), architecture=None)


def read_state(path: Path) -> dict[str, Tensor]:
    """A network's tensors from a file in torchvision's names; its classifier is left out.

    Args:
        path: ``.safetensors``, or what ``torch.save`` wrote: a state, or one under the key ``model`` or
            ``state_dict``. Nothing in it is run.

    Raises:
        RunError: a damaged file, or one that holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise RunError(
            f"init: {path} cannot be read as weights: it is damaged, or holds more than tensors and plain data, which "
            "may run code; save network.state_dict() alone"
        ) from error
    # A damaged file of torch's older form ends in whatever error its bytes lead to.
    except Exception as error:
        raise RunError(f"init: {path} cannot be read as weights ({_first_line(error)})") from error
    for key in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(one, Tensor) for one in state.values()):
        raise RunError(f"init: {path} holds no state of a network; save network.state_dict()")
    return _without_head(state)


def _of_torchvision(init: str, architecture: Architecture) -> _Stored:
    name = _hand_made(architecture)
    known = TORCHVISION.get(name or "")
    if name is None or known is None:
        have = ", ".join(one for one, there in TORCHVISION.items() if there)
        raise ConfigError(
            f"init: found {init!r}, but torchvision has no ImageNet weights for {name or architecture.family} with "
            f"these settings; it has some for {have}. Name a file: init=FILE"
        )
    from torchvision.models import get_model_weights

    every = {one.name: one for one in get_model_weights(known)}
    wanted = IMAGENET[init]
    if wanted not in every:
        raise ConfigError(f"init: found {init!r}, but of {known} torchvision has {', '.join(every)} only")
    weights = every[wanted]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise RunError(
            f"init: {init}: {weights.url} cannot be fetched ({_first_line(error)}). Fetch it elsewhere and name the "
            "file: init=FILE"
        ) from error
    return _Stored(
        weights=_without_head(state), origin=f"torchvision {known} {wanted}", architecture=ZOO[name]
    )


def _hand_made(architecture: Architecture) -> str | None:
    """The hand-made network of the zoo with these settings, of several the one nearest in depth."""

    def settings(one: Architecture) -> dict[str, Any]:
        # The released variants of the stem differ in their pooling; one of other tensors is seen when loading.
        return {key: value for key, value in one.settings.items() if key != "stem"}

    alike = [
        name
        for name in TORCHVISION
        if ZOO[name].family == architecture.family and settings(ZOO[name]) == settings(architecture)
    ]
    return min(alike, key=lambda name: abs(_depth(ZOO[name]) - _depth(architecture)), default=None)


def _depth(architecture: Architecture) -> int:
    blocks = architecture.genes["blocks"]
    assert isinstance(blocks, tuple)
    return sum(int(str(count)) for count in blocks)


def _without_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one for name, one in state.items() if not name.startswith(_HEADS)}


def _drawn(architecture: Architecture, device: str = "cpu") -> dict[str, Tensor]:
    """The network's own tensors: which names and shapes there are."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        return dict(family_of(architecture).build(architecture).state_dict())


def _strict(stored: _Stored, wanted: Mapping[str, Tensor]) -> InitialWeights:
    """All tensors of the network, and no other.

    Raises:
        RunError: names what is missing, too many or of another shape.
    """
    given = _with_counters(stored.weights, wanted)
    problems = []
    if missing := [name for name in wanted if name not in given]:
        problems.append(f"{_some(missing)} missing")
    if unknown := [name for name in given if name not in wanted]:
        problems.append(f"{_some(unknown)} unknown to the network")
    misfits = [
        f"{name} {list(given[name].shape)} and not {list(one.shape)}"
        for name, one in wanted.items()
        if name in given and given[name].shape != one.shape
    ]
    if misfits:
        problems.append(f"of another shape: {_some(misfits)}")
    if problems:
        raise RunError(
            f"init: the weights of {stored.origin} are of another network: {'; '.join(problems)}. For weights of "
            "another allocation of the same network set remap=true"
        )
    return InitialWeights(tensors=given, origin=stored.origin)


def _remapped(stored: _Stored, architecture: Architecture, wanted: Mapping[str, Tensor]) -> InitialWeights:
    """Block by block, and what lies before and after the blocks; a block is taken whole or not at all.

    Raises:
        ConfigError: networks between which no blocks are mapped, or no block whose tensors have equal shapes.
        RunError: nobody knows of which allocation the weights are.
    """
    try:
        source = stored.architecture or _recognised(stored, architecture)
        blocks = block_sources(source, architecture)
    except (ConfigError, InvalidArchitecture) as error:
        raise ConfigError(f"remap: {error}") from error
    given = _with_counters(stored.weights, _drawn(source))
    tensors: dict[str, Tensor] = {}
    taken: dict[str, str] = {}
    for block, other in blocks.items():
        own = {name: one for name, one in wanted.items() if name.startswith(f"{block}.")}
        theirs = {
            block + name.removeprefix(other): one
            for name, one in given.items()
            if name.startswith(f"{other}.")
        }
        if _shapes(own) == _shapes(theirs):
            tensors |= theirs
            taken[block] = other
    if not taken:
        raise ConfigError(
            f"remap: no block of {stored.origin} has tensors of the shapes that this network needs; take weights of "
            "a network of the same widths"
        )
    inside = tuple(f"{block}." for block in block_sources(architecture, architecture))
    for name, one in wanted.items():
        if not name.startswith(inside) and name in given and given[name].shape == one.shape:
            tensors[name] = given[name]
    return InitialWeights(
        tensors=tensors,
        origin=stored.origin,
        blocks=taken,
        fresh=tuple(name for name in wanted if name not in tensors),
    )


def _recognised(stored: _Stored, architecture: Architecture) -> Architecture:
    """Of which network a file's tensors are, where no description lies beside them.

    Raises:
        RunError: of none that is known here.
    """
    kin = [one for one in ZOO.values() if one.family == architecture.family]
    own = [replace(one, settings=architecture.settings) for one in kin]
    found = {name: tuple(one.shape) for name, one in stored.weights.items() if one.dim() == 4}
    for one in (architecture, *kin, *own):
        if _kernels(one) == found:
            return one
    raise RunError(
        f"remap: {stored.origin} does not say of which network it is, and it is none of the zoo; name a bundle or a "
        "directory of nas train, which say it"
    )


def _kernels(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    # Without memory, for there are a dozen of them to look at.
    return {name: tuple(one.shape) for name, one in _drawn(architecture, "meta").items() if one.dim() == 4}


def _with_counters(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the counters of batches, which the older of torchvision's files lack; they are read by nobody."""
    missing = [name for name in wanted if name.endswith(_COUNTER) and name not in given]
    return {**given, **{name: torch.zeros_like(wanted[name]) for name in missing}}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in tensors.items()}


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{rest}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
