"""The cost model against every row of the public tables whose network our families can express.

The tables were counted by others on built networks: pycls' own arithmetic, and fvcore in timm's benchmarks. Both
count whole classifiers and more than the multiplications; what they add to ours is written out here. Which rows
are taken is decided by the network's layers (``test_hook_counter.py`` compares them where timm can build the
network) and never by what the table says: whoever is not taken is listed with the reason.
"""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from search_spaces.architecture import Architecture, Genes
from search_spaces.cost import Cost, cost
from search_spaces.families import family_of

CLASSES = 1000
DEPTHS = {
    "18": (2, 2, 2, 2),
    "26": (2, 2, 2, 2),
    "34": (3, 4, 6, 3),
    "50": (3, 4, 6, 3),
    "101": (3, 4, 23, 3),
    "152": (3, 8, 36, 3),
    "200": (3, 24, 36, 3),
}


def resnet(depth: str, groups: int = 1, width_per_group: int = 64) -> Architecture:
    settings = {
        "block": "basic" if depth in ("18", "34") else "bottleneck",
        "widths": (64, 128, 256, 512),
        "stem": "imagenet",
        "groups": groups,
        "width_per_group": width_per_group,
    }
    blocks = DEPTHS[depth]
    return Architecture(
        family="crnas.resnet",
        settings=Genes(settings),
        genes=Genes({"blocks": blocks, "dilations": (1,) * sum(blocks)}),
    )


def mobilenet(multiplier: float) -> Architecture:
    return Architecture(
        family="crnas.mobilenetv2",
        settings=Genes({"stem": "imagenet", "width_multiplier": multiplier}),
        genes=Genes({"blocks": (2, 3, 7, 3), "dilations": (1,) * 15}),
    )


# timm's name -> the network, then names that older tables have for it.
OURS: dict[str, tuple[Architecture, str]] = {
    "resnet18": (resnet("18"), "gluon_resnet18_v1b ssl_resnet18 swsl_resnet18"),
    "resnet26": (resnet("26"), ""),
    "resnet34": (resnet("34"), "gluon_resnet34_v1b tv_resnet34"),
    "resnet50": (resnet("50"), "gluon_resnet50_v1b tv_resnet50 ssl_resnet50 swsl_resnet50"),
    "resnet101": (resnet("101"), "gluon_resnet101_v1b tv_resnet101"),
    "resnet152": (resnet("152"), "gluon_resnet152_v1b tv_resnet152"),
    "resnet200": (resnet("200"), ""),
    "wide_resnet50_2": (resnet("50", width_per_group=128), ""),
    "wide_resnet101_2": (resnet("101", width_per_group=128), ""),
    "resnext50_32x4d": (
        resnet("50", 32, 4),
        "gluon_resnext50_32x4d tv_resnext50_32x4d ssl_resnext50_32x4d swsl_resnext50_32x4d",
    ),
    "resnext101_32x4d": (
        resnet("101", 32, 4),
        "gluon_resnext101_32x4d ssl_resnext101_32x4d swsl_resnext101_32x4d",
    ),
    "resnext101_32x8d": (
        resnet("101", 32, 8),
        "ig_resnext101_32x8d ssl_resnext101_32x8d swsl_resnext101_32x8d",
    ),
    "resnext101_32x16d": (
        resnet("101", 32, 16),
        "ig_resnext101_32x16d ssl_resnext101_32x16d swsl_resnext101_32x16d",
    ),
    "resnext101_32x32d": (resnet("101", 32, 32), "ig_resnext101_32x32d"),
    "ig_resnext101_32x48d": (resnet("101", 32, 48), ""),
    "resnext101_64x4d": (resnet("101", 64, 4), "gluon_resnext101_64x4d"),
    "mobilenetv2_035": (mobilenet(0.35), ""),
    "mobilenetv2_050": (mobilenet(0.5), ""),
    "mobilenetv2_075": (mobilenet(0.75), ""),
    "mobilenetv2_100": (mobilenet(1.0), ""),
    "mobilenetv2_140": (mobilenet(1.4), ""),
}
NETWORKS = {name: one for key, (one, more) in OURS.items() for name in (key, *more.split())}

# Rows named after ResNet, ResNeXt or MobileNetV2 that are other networks: reason -> names.
LEFT_OUT = {
    "squeeze-and-excitation, channel attention or selective kernels in its blocks": """
        eca_resnet33ts eca_resnext26ts ecaresnet101d ecaresnet101d_pruned ecaresnet200d ecaresnet269d ecaresnet26t
        ecaresnet50d ecaresnet50d_pruned ecaresnet50t ecaresnetlight ecaresnext26t_32x4d ecaresnext50t_32x4d
        gcresnet33ts gcresnet50t gcresnext26ts gcresnext50ts gluon_seresnext101_32x4d gluon_seresnext101_64x4d
        gluon_seresnext50_32x4d legacy_seresnet101 legacy_seresnet152 legacy_seresnet18 legacy_seresnet34
        legacy_seresnet50 legacy_seresnext101_32x4d legacy_seresnext26_32x4d legacy_seresnext50_32x4d
        resnetrs101 resnetrs152 resnetrs200 resnetrs270 resnetrs350 resnetrs420 resnetrs50 seresnet101 seresnet152
        seresnet152d seresnet18 seresnet200d seresnet269d seresnet33ts seresnet34 seresnet50 seresnet50t
        seresnetaa50d seresnext101_32x4d seresnext101_32x8d seresnext101_64x4d seresnext101d_32x8d
        seresnext26d_32x4d seresnext26t_32x4d seresnext26tn_32x4d seresnext26ts seresnext50_32x4d
        seresnextaa101d_32x8d seresnextaa201d_32x8d skresnet18 skresnet34 skresnet50 skresnet50d skresnext50_32x4d
        tresnet_l tresnet_l_448 tresnet_m tresnet_m_448 tresnet_v2_l tresnet_xl tresnet_xl_448""",
    "a self-attention or lambda layer in its blocks or before its classifier": """
        bat_resnext26ts lambda_resnet26rpt_256 lambda_resnet26t lambda_resnet50ts resnet101_clip resnet50_clip
        resnet50x16_clip resnet50x4_clip resnet50x64_clip vit_base_resnet26d_224 vit_base_resnet50d_224
        vit_small_resnet26d_224 vit_small_resnet50d_s16_224""",
    "split attention": """
        resnest101e resnest14d resnest200e resnest269e resnest26d resnest50d resnest50d_1s4x24d resnest50d_4s2x40d""",
    "a stem of three or four convolutions (C, D, S, T and Q variants)": """
        gluon_resnet101_v1c gluon_resnet101_v1d gluon_resnet101_v1s gluon_resnet152_v1c gluon_resnet152_v1d
        gluon_resnet152_v1s gluon_resnet50_v1c gluon_resnet50_v1d gluon_resnet50_v1s resnet101_clip_gap resnet101c
        resnet101d resnet101s resnet10t resnet14t resnet152c resnet152d resnet152s resnet18d resnet200d resnet26d
        resnet26t resnet32ts resnet33ts resnet34d resnet50_clip_gap resnet50_mlp resnet50c resnet50d resnet50s
        resnet50t resnet50x16_clip_gap resnet50x4_clip_gap resnet50x64_clip_gap resnet51q resnet61q resnetaa101d
        resnetaa34d resnetaa50d resnetblur101d resnetblur50d resnext26ts resnext50d_32x4d test_resnet""",
    "pooling that smooths in place of a stride": "resnetaa50 resnetblur18 resnetblur50",
    "other normalisation than batch normalisation": """
        nf_ecaresnet101 nf_ecaresnet26 nf_ecaresnet50 nf_resnet101 nf_resnet26 nf_resnet50 nf_seresnet101
        nf_seresnet26 nf_seresnet50 resnet50_gn""",
    "normalisation before the convolutions (the second version of ResNet)": """
        resnetv2_101 resnetv2_101d resnetv2_101x1_bit resnetv2_101x1_bitm resnetv2_101x3_bit resnetv2_101x3_bitm
        resnetv2_152 resnetv2_152d resnetv2_152x2_bit resnetv2_152x2_bit_teacher resnetv2_152x2_bit_teacher_384
        resnetv2_152x2_bitm resnetv2_152x4_bit resnetv2_152x4_bitm resnetv2_18 resnetv2_18d resnetv2_34
        resnetv2_34d resnetv2_50 resnetv2_50d resnetv2_50d_evob resnetv2_50d_evos resnetv2_50d_frn
        resnetv2_50d_gn resnetv2_50t resnetv2_50x1_bit resnetv2_50x1_bit_distilled resnetv2_50x1_bitm
        resnetv2_50x3_bit resnetv2_50x3_bitm""",
    "stages split in two, or blocks of Inception": """
        cspresnet50 cspresnet50d cspresnet50w cspresnext50 ens_adv_inception_resnet_v2 inception_resnet_v2""",
    "a last convolution that keeps its 1280 channels while the others are widened": "mobilenetv2_110d mobilenetv2_120d",
}
OTHERS = {name: reason for reason, names in LEFT_OUT.items() for name in names.split()}
NAMED = re.compile(r"resne[tx]|resnest|mobilenetv2")


def test_no_row_is_left_out_unseen(shared_data: Path) -> None:
    """Every row with one of the three names is either compared or listed with a reason, and both lists are used up."""
    assert not NETWORKS.keys() & OTHERS.keys()
    named = {row["model"].partition(".")[0] for file in _timm(shared_data) for row in _rows(file)}
    assert {name for name in named if NAMED.search(name)} == NETWORKS.keys() | OTHERS.keys()


def test_parameters_multiply_adds_and_activations_are_timms(shared_data: Path) -> None:
    """Printed to two digits after the point, in millions and milliards."""
    compared, whole, off = 0, 0, []
    for file in _timm(shared_data):
        for row in _rows(file):
            name = row["model"].partition(".")[0]
            if name not in NETWORKS:
                continue
            compared += 1
            printed = [float(row["param_count"])]
            side = int(row["infer_img_size"] if "infer_img_size" in row else row["img_size"])
            ours = _as_fvcore(NETWORKS[name], side)
            found = [ours.params / 1e6]
            # The table of accuracies has parameters only; some rows of the others have no counts.
            if row.get("infer_gmacs"):
                whole += 1
                printed += [float(row["infer_gmacs"]), float(row["infer_macts"])]
                found += [ours.macs / 1e9, ours.activations / 1e6]
            if any(abs(ours - theirs) > 0.005 + 1e-9 for ours, theirs in zip(found, printed, strict=True)):
                off.append((file.name, row["model"], side, found, printed))
    assert not off
    assert (compared, whole) == (258, 135)


PYCLS = {
    "R-50-1x64d": resnet("50"),
    "R-101-1x64d": resnet("101"),
    "R-152-1x64d": resnet("152"),
    "X-50-32x4d": resnet("50", 32, 4),
    "X-101-32x4d": resnet("101", 32, 4),
    "X-152-32x4d": resnet("152", 32, 4),
}
PYCLS_LEFT_OUT = {
    "three stages, for images of 32 px": "R-56 R-110 V-56",
    "squeeze-and-excitation": "EN-B0 EN-B1 EN-B2 EN-B3 EN-B4 EN-B5",
    "a stem of one convolution, and bottlenecks that do not widen": "RegNetX RegNetY",
}


def test_all_three_counts_are_pycls_to_the_digit(shared_data: Path) -> None:
    """It counts the classifier's bias as additions, and the cells that a pooling writes as activations."""
    file = _tables(shared_data) / "pycls_complexity" / "model_complexity.json"
    table: dict[str, dict[str, int]] = json.loads(file.read_text(encoding="utf-8"))
    del table["date-created"]
    others = {name for names in PYCLS_LEFT_OUT.values() for name in names.split()}
    compared = 0
    for path, printed in table.items():
        name = path.rpartition("/")[2].split("_")[0]
        if name not in PYCLS:
            assert name in others or name.split("-")[0] in others, path
            continue
        compared += 1
        whole = _with_classifier(PYCLS[name], 224)
        pooled = 64 * 56 * 56
        assert printed == {
            "params": whole.params,
            "flops": whole.macs + CLASSES,
            "acts": whole.activations + pooled,
        }, path
    assert compared == 30


def _with_classifier(architecture: Architecture, side: int) -> Cost:
    inputs = family_of(architecture).levels(architecture)["c5"].channels
    linear = Cost(params=(inputs + 1) * CLASSES, macs=inputs * CLASSES, activations=CLASSES)
    return cost(architecture, (side, side)) + linear


def _as_fvcore(architecture: Architecture, side: int) -> Cost:
    """Its count adds 2 for each element that a batch normalisation writes, and 1 for each that is averaged at the end.

    Behind every convolution of both families stands a normalisation, so those elements are the activations.
    """
    c5 = family_of(architecture).levels(architecture)["c5"]
    averaged = c5.channels * (-(-side // c5.stride)) ** 2
    return _with_classifier(architecture, side) + Cost(
        macs=2 * cost(architecture, (side, side)).activations + averaged
    )


def _tables(shared_data: Path) -> Path:
    folder = shared_data.parent / "tables"
    if not folder.is_dir():
        pytest.skip(f"needs shared data; {folder} is no folder")
    return folder


def _timm(shared_data: Path) -> list[Path]:
    files = sorted((_tables(shared_data) / "timm_results").glob("*.csv"))
    assert len(files) == 4
    return files


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)
