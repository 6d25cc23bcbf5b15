"""``nas erf``: fields of named architectures, and the page of their maps."""

import pytest

from nas.methods.fields import measured_fields, write_maps
from search_spaces.errors import ConfigError


def test_fields_of_two_architectures_and_their_page(tmp_path):
    found = measured_fields(["resnet18", "scr_resnet18"], canvas=128, anchor_scale=8.0)
    first, second = ({one.level: one for one in levels} for levels in found.values())
    assert first["c2"].box_px == (43, 43) and second["c2"].box_px == (27, 27)
    assert first["c3"].std_px > second["c3"].std_px, "the reallocated network sees less in its shallow levels"
    assert [one.anchor_px for one in found["resnet18"]] == [32.0, 64.0, 128.0, 256.0]
    page = write_maps(found, tmp_path / "maps.html", canvas=128).read_text()
    assert page.count("<figure>") == 8
    assert "http://" not in page and "https://" not in page


@pytest.mark.parametrize(("canvas", "scale"), [(16, 8.0), (128, 0.0)])
def test_bad_sizes_are_one_clear_error(canvas, scale):
    with pytest.raises(ConfigError, match=r"allowed are 64 px and more"):
        measured_fields(["resnet18"], canvas=canvas, anchor_scale=scale)
