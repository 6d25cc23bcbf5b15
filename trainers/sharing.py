"""How many micro-batches a step's images can be cut into for so many ranks. Torch-free."""


def most_micro_batches(batch_size: int, count: int, accumulate: int) -> int | None:
    """The largest number, at most ``accumulate``, of micro-batches of which every rank takes the same share.

    Args:
        batch_size: images of a step, those of all ranks.
        count: of the ranks.
        accumulate: of the recipe.

    Returns:
        None where so many ranks cannot share the batch in any number of them.
    """
    if count < 1 or batch_size % count:
        return None
    share = batch_size // count
    return next(parts for parts in range(min(accumulate, share), 0, -1) if share % parts == 0)


def advice(batch_size: int, count: int, accumulate: int, path: str = "train") -> str:
    """What a person may do about it, after a semicolon; nothing where no number of micro-batches helps.

    Args:
        batch_size: images of a step.
        count: of the ranks.
        accumulate: of the recipe.
        path: of the ``train`` in the recipe.
    """
    parts = most_micro_batches(batch_size, count, accumulate)
    return "" if parts in (None, accumulate) else f"; or --set {path}.accumulate={parts}"
