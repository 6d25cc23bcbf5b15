"""A dry run for people."""

from nas.dry_run import DryRun, counted_images
from nas.saying import duration
from nas.schedule import SharedBatch
from search_spaces.catalog import family_of


def dry_run_lines(
    found: DryRun,
) -> tuple[list[tuple[str, str]], list[str], list[list[str]], list[str]]:
    """Facts with their names, a table's head and rows, and last lines."""
    train, batch = found.recipe.train, found.batch
    height, width = found.size
    cost = "" if found.macs is None else f", {found.macs / 1e9:,.1f} GMAC an image"
    epochs = found.learned_from / found.images
    clip = f"gradient norm at most {train.clip_norm:g}" if train.clip_norm else "gradients not clipped"
    momentum = f", momentum {train.momentum:g}" if train.optimizer == "sgd" else ""
    facts = [
        ("network", family_of(found.network).text(found.network)),
        (
            "detector",
            f"{found.recipe.detector.kind} of {found.classes} categories, {found.params / 1e6:.1f} M parameters{cost}",
        ),
        ("images", f"{found.images:,}{' (as said)' if found.given else ''} of {height}x{width} px"),
        (
            "length",
            f"{epochs:.4g} epochs, {found.steps:,} steps of {counted_images(train.batch_size)}, "
            f"{found.images / train.batch_size:,.1f} steps an epoch, {found.learned_from:,} images in all",
        ),
        ("optimiser", f"{train.optimizer}{momentum}, weight decay {train.weight_decay:g}, {clip}"),
        ("weights", "as they are" if train.ema is None else f"their moving average, decay {train.ema:g}"),
        ("GPUs", _sharing(batch)),
        ("learning rate", f"{batch.lr_per_image:.4g} an image, {train.schedule}"),
        ("normalisation", f"over {counted_images(batch.together)}{' of all GPUs' if batch.gpus > 1 else ''}"),
    ]
    if train.sizes:
        facts.append(("sizes", f"each step one of {', '.join(f'{one:g}' for one in train.sizes)}"))
    facts += [("memory", _memory(found)), *_times(found)]
    columns = ["at", "step", "epoch", "images", "learning rate"]
    rows = [
        [event.name, f"{event.step:,}", f"{event.epoch:.2f}", f"{event.images:,}", f"{event.lr:.4g}"]
        for event in found.events
    ]
    return facts, columns, rows, list(found.notes)


def _memory(found: DryRun) -> str:
    """Of the pixels, which every process holds unless they lie in a file for all."""
    size = _gigabytes(found.image_bytes) + (" without val" if found.given else "")
    if found.recipe.data.cache is not None:
        return f"images: a file of {size} in {found.recipe.data.cache}, which all processes of a machine read"
    if (ranks := found.batch.gpus) == 1:
        return f"images: {size}"
    return (
        f"images: {size} in each process, {_gigabytes(ranks * found.image_bytes)} in {ranks} of one machine; "
        "--set data.cache=DIR keeps one file for all"
    )


def _gigabytes(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def _sharing(batch: SharedBatch) -> str:
    passes = "one pass" if batch.accumulate == 1 else f"{batch.accumulate} passes of {batch.per_pass} each"
    count = "1 GPU or process" if batch.gpus == 1 else f"{batch.gpus} GPUs"
    settings = {"ranks": batch.gpus, "train.accumulate": batch.accumulate}
    words = "".join(f" --set {name}={value}" for name, value in settings.items() if value != 1)
    return f"{count}, {counted_images(batch.per_gpu)} a step on each, {passes}{':' if words else ''}{words}"


def _times(found: DryRun) -> list[tuple[str, str]]:
    pace = found.pace
    if pace is None or found.seconds is None:
        return [("time", "not measured")]
    kind = "" if pace.real else ", made up"
    each = duration(pace.seconds_an_image, fine=True)
    how = f"{each} an image, from steps of up to {counted_images(pace.images)}{kind}"
    times = [("time here", f"{duration(found.seconds)} ({how})")]
    if found.seconds_there is not None and found.place is not None:
        speed = "" if found.place.speed == 1 else f", each {found.place.speed:g} times as fast"
        times.append((f"time on {found.place.workers}", f"{duration(found.seconds_there)}{speed}"))
    return times
