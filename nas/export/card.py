"""The model card of a bundle: what the network is, its scores, its data, its cost, how to use it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from search_spaces.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says beside the architecture; an empty part is left out of the text.

    Args:
        title: one line (``"Winner of CR-NAS on digits"``).
        verdict: the sentence of the report (``"No better than the baseline, keep the baseline."``).
        scores: name of a number -> text (``{"AP": "41.3 ± 0.7 over 6 seeds"}``).
        cost: name of a phase -> text (``{"stages": "182 s, 31 candidates"}``).
        facts: parameters, MACs, input size and the like -> text.
        levels: level -> (channels, stride).
        data: name of the data set, and its digest.
        command: what wrote this bundle, so that it can be repeated.
        versions: library -> version.
        weights_note: what the weights are (``"slice of the supernet, not trained to completion"``).
    """

    title: str
    verdict: str = ""
    scores: Mapping[str, str] = field(default_factory=dict)
    cost: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    weights_note: str = ""


_USE = """## How to use it

`backbone.py` needs Python 3.11 and torch, nothing else:

```python
import torch
from backbone import build{load}

backbone = {call}
features = backbone(torch.zeros(1, 3, 224, 224))   # dict: level -> feature map
print({{level: tuple(map.shape) for level, map in features.items()}}, backbone.levels)
```

Images enter as RGB from 0 to 1, less (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225), as in the toolkit's
detectors. `backbone.levels` gives channels and stride of every level, which is what a feature pyramid needs.
With the toolkit: `nas train BUNDLE RECIPE` trains a detector around it.
"""
_DETECTOR = """The whole trained detector is here too (`detector.json`, `detector.safetensors`):
`nas predict BUNDLE PICTURES --out DIR` draws what it finds, `nas.export.bundle.load_detector` loads it.
"""


def card_text(architecture: Architecture, card: Card, *, weights: bool, detector: bool = False) -> str:
    """The card as Markdown; ``weights`` and ``detector`` say whether the bundle holds those."""
    parts = [f"# {card.title}\n"]
    if card.verdict:
        parts.append(f"**{card.verdict}**\n")
    parts.append(
        _table(
            "Network",
            {"architecture": f"`{architecture}`", "digest": f"`{architecture.digest}`", **card.facts},
            heads=("", ""),
        )
    )
    if card.levels:
        lines = "".join(
            f"| {name} | {channels} | {stride} |\n" for name, (channels, stride) in card.levels.items()
        )
        parts.append(f"| level | channels | stride |\n|---|---|---|\n{lines}")
    parts.append(
        _USE.format(
            load=", load" if weights else "",
            call='load("weights.safetensors")' if weights else "build()",
        )
    )
    parts += [_DETECTOR] if detector else []
    note = card.weights_note or ("" if weights else "none; the network starts from random weights")
    if note:
        parts.append(f"Weights: {note}.\n" if not note.endswith(".") else f"Weights: {note}\n")
    parts.append(_table("Scores", card.scores, heads=("metric", "value")))
    parts.append(_table("Cost of the search", card.cost, heads=("phase", "spent")))
    parts.append(_table("Data", card.data, heads=("", "")))
    if card.command:
        parts.append(f"## How it was made\n\n```\n{card.command}\n```\n")
    parts.append(_table("Versions", card.versions, heads=("library", "version")))
    return "\n".join(part for part in parts if part)


def _table(title: str, rows: Mapping[str, str], *, heads: tuple[str, str]) -> str:
    if not rows:
        return ""
    lines = "".join(f"| {_cell(name)} | {_cell(value)} |\n" for name, value in rows.items())
    return f"## {title}\n\n| {heads[0]} | {heads[1]} |\n|---|---|\n{lines}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
