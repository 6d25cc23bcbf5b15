"""The curve of a training."""

import pytest

from trainers.curves import rise_over_last_quarter


@pytest.mark.parametrize(
    ("curve", "rise"),
    [
        ([], None),
        ([(4.0, 0.5)], None),
        ([(1.0, 0.0), (4.0, 0.5)], None),
        ([(1.0, 0.2), (2.0, 0.4), (3.0, 0.4), (4.0, 0.5)], 0.25),
        ([(1.0, 0.2), (2.0, 0.5), (3.5, 0.1), (4.0, 0.5)], 0.0),
        ([(3.0, 0.5), (4.0, 0.4)], -0.2),
        # As kept by a training of 205 steps of 16 out of 218 images: epochs are rounded.
        ([(11.229358, 0.4), (14.972477, 0.41)], 0.025),
    ],
)
def test_rise_over_the_last_quarter(curve: list[tuple[float, float]], rise: float | None) -> None:
    assert rise_over_last_quarter(curve) == (rise if rise is None else pytest.approx(rise))
