"""From a run directory to ``report.json`` and ``report.html``."""

import datetime
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nas.agreement import agreements
from nas.choosing import mean_ranks, naswot_of
from nas.config import dump_yaml
from nas.latency import LATENCY, quartiles
from nas.methods.budgeting import Allowance
from nas.methods.catalog import baseline_of, method_of
from nas.methods.costs import phase_costs, table_costs
from nas.methods.fields import erf_levels
from nas.methods.hand_made import Rival, detector_cost, hand_made
from nas.methods.ranking import check_ranking, read_ranking
from nas.methods.retraining import failures_of, job_recipe, results_of, training_directory
from nas.methods.truth import TRUTH, rank_run
from nas.pareto import cost_of
from nas.progress import RunProgress
from nas.proxies.erf import calibrate_bn_on_noise, measure_erf, noise
from nas.proxies.tabular import read_table
from nas.report.data import (
    Box,
    Contender,
    CurvePoint,
    DataFacts,
    DetectionSample,
    ErfLevel,
    ErfReport,
    LevelFacts,
    Metrics,
    ReportData,
    Reproduction,
    SeedResult,
    Split,
    Trial,
)
from nas.report.measure import measure_latency, measure_memory
from nas.report.page import write_report as write_page
from nas.report.pictures import jpeg
from nas.report.rank_report import read_reports
from nas.run import MEMBER, Run, environment
from nas.show import (
    allocation_chosen_by,
    cost_objective,
    histories,
    own_proxy,
    pareto_front,
    several_supernets,
    short_text,
    state_of,
)
from nas.study import History, Record, Study
from nas.training import trained_detector
from search_spaces.architecture import Architecture
from search_spaces.catalog import family_of
from search_spaces.cost import cost
from search_spaces.randomness import rng_for, seed_for
from trainers.data.catalog import open_split
from trainers.data.detection_set import DetectionSet
from trainers.data.stored import Say
from trainers.detectors.detector import Detector

ERF_CANVAS = 256
"""Side of the square noise image in px: large enough for the deepest field of small networks."""
SAMPLES = 6


def write_report(run: Run, progress: RunProgress, *, check: int = 0, truth: Path | None = None) -> Path:
    """Write the page with everything the run holds by now.

    Args:
        run: finished or not; what is missing is named on the page with the command that makes it.
        progress: listens to the trainings of ``check``, and hears of pictures that are decoded into a file.
        check: train this many allocations alone for a short time first, and rank the proxy against them.
        truth: a table of networks trained alone, which the page compares the proxy with from now on.

    Returns:
        Path of ``report.html``.
    """
    if check:
        # The open study keeps a second process from training the same networks.
        with (
            Study.open(run.directory, run.recipe.storage),
            run.books.open(),
            run.books.activity("allocations trained alone"),
        ):
            check_ranking(run, check, progress)
    if truth is not None:
        run.write_json(TRUTH, {"phases": [one.to_dict() for one in rank_run(run, read_table(truth))]})
    return write_page(collect(run, progress.say), run.directory)


def collect(run: Run, say: Say | None = None) -> ReportData:
    """Everything a report says of a run.

    Args:
        run: finished or not.
        say: see :func:`trainers.data.catalog.open_split`.
    """
    torch.set_num_threads(run.recipe.threads)
    trials = histories(run)
    size = _image_size(run)
    winner, rivals = run.read_winner(), run.read_rivals()
    baseline = baseline_of(run.recipe)
    networks = {"baseline": baseline}
    if winner is not None:
        networks = {"winner": winner, **networks}
        networks |= {name: one for name, one in rivals.items() if name in ("random", *run.recipe.ablated)}
    by_hand = hand_made(run) if winner is not None else {}
    contenders = _contenders(run, networks, by_hand, size, _scores(trials))
    val = open_split(run.recipe.data, "val", say=say) if winner is not None else None
    return ReportData(
        title=f"{method_of(run.recipe).title}: {run.recipe.name}",
        run=str(run.directory),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        state=state_of(run, trials),
        baseline=contenders["baseline"],
        winner=contenders.get("winner"),
        random=contenders.get("random"),
        hand_made=tuple(contenders[name] for name in by_hand),
        ablations={name: contenders[name] for name in run.recipe.ablated if name in contenders},
        trials=tuple(
            _trial(record, size, ranks.get(record.number))
            for history in trials.values()
            for ranks in [mean_ranks(history)]
            for record in history
        ),
        cost_objective=cost_objective(run),
        allocation_chosen_by=allocation_chosen_by(run.recipe),
        front=tuple(record.number for record in pareto_front(run, trials)),
        erf=_erf(run, baseline, winner, val) if winner is not None and val is not None else None,
        detections=_samples(run, baseline, winner, val) if winner is not None and val is not None else (),
        ranks=read_ranking(run),
        truth=read_reports((run.read_json(TRUTH) or {}).get("phases", ())),
        cost=(*phase_costs(run, trials, size), *table_costs(run, size)),
        data=_data_facts(run, val),
        reproduction=_reproduction(run),
        notes=_notes(run, rivals, winner, by_hand),
    )


def _image_size(run: Run) -> tuple[int, int]:
    facts = run.read_json("data.json")
    height, width = (224, 224) if facts is None else facts["image_size"]
    return height, width


def _scores(trials: Mapping[str, History]) -> dict[str, float]:
    """Digest -> the proxy's score as a fraction; the last phase that scored a network counts."""
    return {
        record.digest: record.value / 100.0
        for history in trials.values()
        for record in history
        if record.value is not None
    }


def _contenders(
    run: Run,
    networks: Mapping[str, Architecture],
    by_hand: Mapping[str, Rival],
    size: tuple[int, int],
    scores: Mapping[str, float],
) -> dict[str, Contender]:
    every = {**networks, **{name: one.architecture for name, one in by_hand.items()}}
    built = {name: family_of(one).build(one, seed=0) for name, one in every.items()}
    latencies = measure_latency(built, input_size=size, threads=run.recipe.threads)
    contenders = {}
    for name, architecture in every.items():
        found = cost(architecture, size)
        detector = by_hand[name].detector if name in by_hand else run.recipe.detector
        classes = _num_classes(run)
        whole = None if classes is None else detector_cost(architecture, detector, classes, size)
        contenders[name] = Contender(
            name=name if name in by_hand else short_text(architecture),
            architecture=architecture,
            params=found.params,
            macs=found.macs,
            detector_params=None if whole is None else whole.params,
            detector_macs=None if whole is None else whole.macs,
            input_size=size,
            levels=tuple(
                LevelFacts(name=level, channels=facts.channels, stride=facts.stride)
                for level, facts in family_of(architecture).levels(architecture).items()
            ),
            score=scores.get(architecture.digest),
            results=tuple(
                _seed_result(result) for result in results_of(run, name if name in by_hand else architecture)
            ),
            init=by_hand[name].init if name in by_hand else "scratch",
            latency=latencies[name],
            memory=measure_memory(built[name], input_size=size),
        )
    return contenders


def _num_classes(run: Run) -> int | None:
    """Categories; None before the data was opened."""
    facts = run.read_json("data.json")
    return None if facts is None else len(facts["categories"])


def _seed_result(result: Mapping[str, Any]) -> SeedResult:
    return SeedResult(
        seed=result["seed"],
        metrics=Metrics.from_coco(result["metrics"]),
        curve=tuple(CurvePoint(epoch=point["epoch"], AP=point["AP"]) for point in result["curve"]),
    )


def _trial(record: Record, size: tuple[int, int], rank: float | None) -> Trial:
    whole = isinstance(record.candidate, Architecture)
    found = cost(record.candidate, size) if isinstance(record.candidate, Architecture) else None
    return Trial(
        number=record.number,
        phase=record.phase,
        digest=record.digest,
        text=short_text(record.candidate),
        state=record.state,
        value=None if record.value is None else record.value / 100.0,
        params=None if found is None else found.params,
        macs=None if found is None else found.macs,
        prefix=not whole,
        reason=record.reason,
        stopped_at=record.stopped_at,
        latency=cost_of(record, LATENCY),
        latency_ms=quartiles(record),
        naswot=naswot_of(record),
        mean_rank=rank,
    )


def _erf(run: Run, baseline: Architecture, winner: Architecture, val: DetectionSet) -> ErfReport:
    """ERF of the first retraining's weights; of random ones where nothing was retrained."""
    trained = bool(results_of(run, winner) and results_of(run, baseline))
    images = noise(4, (ERF_CANVAS, ERF_CANVAS), seed=seed_for(run.recipe.seed, "erf"))

    def levels(architecture: Architecture) -> tuple[ErfLevel, ...]:
        if trained:
            backbone = _trained_detector(run, architecture, val).backbone.body
        else:
            backbone = family_of(architecture).build(architecture, seed=run.recipe.seed)
        calibrate_bn_on_noise(backbone, images)
        anchors = {
            name: run.recipe.detector.object_side(level.stride)
            for name, level in family_of(architecture).levels(architecture).items()
            if name in run.recipe.detector.levels
        }
        return erf_levels(architecture, measure_erf(backbone, images), anchors)

    weights = "trained weights (first seed)" if trained else "random weights"
    return ErfReport(
        canvas_px=ERF_CANVAS,
        images=len(images),
        how=f"{weights}, BN statistics and input from noise, gradient of the central cell",
        baseline=levels(baseline),
        winner=levels(winner),
    )


def _trained_detector(run: Run, architecture: Architecture, data: DetectionSet) -> Detector:
    assert run.recipe.retrain is not None
    first = results_of(run, architecture)[0]["seed"]
    recipe = job_recipe(run.recipe, run.recipe.retrain.train, first)
    return trained_detector(architecture, recipe, data, training_directory(run, architecture, first))


def _samples(
    run: Run, baseline: Architecture, winner: Architecture, val: DetectionSet
) -> tuple[DetectionSample, ...]:
    """Validation images drawn by the run's seed, so that nobody chose the flattering ones."""
    if not results_of(run, winner) or not results_of(run, baseline):
        return ()
    count = min(SAMPLES, len(val))
    chosen = val.subset(sorted(rng_for(run.recipe.seed, "samples").sample(range(len(val)), count)))
    with torch.inference_mode():
        found = {
            name: _trained_detector(run, one, val)(chosen.images[:])
            for name, one in (("winner", winner), ("baseline", baseline))
        }
    names = [category.name for category in val.categories]
    samples = []
    for index in range(count):
        target = chosen.targets[index]
        # Padding lies at the right and the bottom; the picture shows the image only.
        height, width = (
            round(side * float(scale))
            for side, scale in zip(chosen.sizes[index], chosen.scales[index].flip(0), strict=True)
        )
        truth = [
            _box(box, names[label], None)
            for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
        ]
        samples.append(
            DetectionSample(
                image_id=target["image_id"],
                file_name=chosen.file_names[index],
                width=width,
                height=height,
                jpeg=jpeg(chosen.images[index][:, :height, :width]),
                truth=tuple(truth),
                winner=_boxes(found["winner"][index], names),
                baseline=_boxes(found["baseline"][index], names),
            )
        )
    return tuple(samples)


def _boxes(found: Mapping[str, torch.Tensor], names: Sequence[str]) -> tuple[Box, ...]:
    return tuple(
        _box(box, names[label], score)
        for box, label, score in zip(
            found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True
        )
    )


def _box(corners: Sequence[float], label: str, score: float | None) -> Box:
    left, top, right, bottom = corners
    return Box(x=left, y=top, width=right - left, height=bottom - top, label=label, score=score)


def _data_facts(run: Run, val: DetectionSet | None) -> DataFacts | None:
    facts = run.read_json("data.json")
    if facts is None:
        return None
    splits = [
        Split(
            name="train",
            use="supernets, BN recalibration, final trainings",
            images=len(facts["train"]),
            objects=facts["objects"]["train"],
        ),
        Split(
            name="held out of train",
            use="candidate scores, final trainings",
            images=len(facts["held_out"]),
            objects=facts["objects"]["held_out"],
        ),
    ]
    skipped = list(facts["skipped"])
    if val is not None:
        splits.append(Split(name="val", use="the table only", images=len(val), objects=val.num_objects))
        skipped += val.skipped
    height, width = facts["image_size"]
    return DataFacts(
        name=run.recipe.data.root or run.recipe.data.source,
        digest=facts["digest"]["train"],
        image_size=f"{height}x{width}",
        categories=tuple(facts["categories"]),
        splits=tuple(splits),
        skipped=tuple(skipped),
    )


def _reproduction(run: Run) -> Reproduction:
    record = run.read_json("environment.json") or environment(run.recipe)
    retrain = run.recipe.retrain
    seeds = {"search": str(run.recipe.seed)}
    if retrain is not None:
        seeds["final table"] = f"{retrain.first_seed} to {retrain.first_seed + retrain.seeds - 1}"
    hardware = record["hardware"]
    return Reproduction(
        commands=(f"nas search {run.directory / 'recipe.yaml'} --run NEW_DIR",),
        versions=record["versions"],
        hardware=f"{hardware['processor']}, {hardware['cores']} cores, {hardware['machine']}",
        threads=run.recipe.threads,
        seeds=seeds,
        recipe=dump_yaml(run.data),
        recipe_digest=run.digest,
        recipes_tried=() if retrain is None else retrain.tried_before,
    )


def starved_level(name: str) -> str:
    """What to do about a level that no training object is assigned to."""
    return (
        f"No training object is assigned to level {name}, so its stage learns through the pyramid only and blocks "
        "there can hardly pay: lower detector.anchor_scale, enlarge data.image_size, or leave the level out."
    )


def _notes(
    run: Run,
    rivals: Mapping[str, Architecture],
    winner: Architecture | None,
    by_hand: Collection[str],
) -> tuple[str, ...]:
    by_level = (run.read_json("data.json") or {}).get("objects_by_level", {})
    notes = [starved_level(name) for name, count in by_level.items() if count == 0]
    if (own := own_proxy(run.recipe)) is not None:
        notes.append(f"Scores of the search are those of {own}, not AP; the final table is AP.")
    trials = histories(run)
    notes += [f"Phase {name}: {line}." for name, line in agreements(trials).items()]
    for name, count in several_supernets(run.recipe).items():
        notes.append(
            f"Phase {name} has {count} supernets. The images held out are those of the first; each other one holds "
            f"out as many others, listed beside it ({name}/{MEMBER}2/held_out.json and so on)."
        )
    allowance = Allowance.of(run)
    if allowance is not None and (line := allowance.last_line(trials)) is not None:
        notes.append(f"Budget: {line}.")
    stages = rivals.get("stages")
    if stages is not None and winner is not None and stages.digest != winner.digest:
        values = [100 * result["metrics"]["AP"] for result in results_of(run, stages)]
        if values:
            mean = sum(values) / len(values)
            notes.append(
                f"Stage reallocation alone ({short_text(stages)}): {mean:.2f} AP over {len(values)} seeds."
            )
    warnings = [
        f"{name}: {text}."
        for name in method_of(run.recipe).phases
        for text in (run.spent(name) or {"warnings": []})["warnings"]
    ]
    networks: list[Architecture | str] = [*([] if winner is None else [winner]), *rivals.values(), *by_hand]
    for network in networks:
        text = network if isinstance(network, str) else short_text(network)
        warnings += [
            f"{text}, seed {failure['seed']}, diverged and is missing from the table: {failure['reason']}."
            for failure in failures_of(run, network)
        ]
        for result in results_of(run, network):
            warnings += [f"{text}, seed {result['seed']}: {warning}." for warning in result["warnings"]]
    return (*notes, *dict.fromkeys(warnings))
