"""What a curve of AP over epochs says of a training. No torch here."""

from collections.abc import Sequence


def rise_over_last_quarter(curve: Sequence[tuple[float, float]]) -> float | None:
    """Relative rise of AP from three quarters of a training to its end; None where the curve is too short.

    The table takes a retraining for complete when this is below 0.05.

    Args:
        curve: (epoch, AP), by epoch. Without a point at three quarters, the last one before it is taken.
    """
    if len(curve) < 2 or curve[-1][0] <= 0:
        return None
    # Epochs are rounded to six digits where they are kept.
    before = [ap for epoch, ap in curve if epoch <= 0.75 * curve[-1][0] + 1e-6]
    return (curve[-1][1] - before[-1]) / before[-1] if before and before[-1] > 0 else None
