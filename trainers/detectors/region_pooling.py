"""Pooling of regions from a pyramid with a gradient that uses all cores of a processor."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag
from torchvision.ops import MultiScaleRoIAlign


class RegionPooling(MultiScaleRoIAlign):  # type: ignore[misc]
    """torchvision's layer; on a processor, where maps want a gradient, by weighted sums of rows instead.

    torchvision's gradient of RoIAlign runs on one thread. A cell of a region is a weighted sum of places of a map
    (He et al. 2017, section 3), so a batch of regions is one ``embedding_bag`` over the rows of all maps, whose
    gradient uses all threads. Values agree to rounding.
    Arguments are torchvision's, and ``sampling_ratio`` is above 0.
    """

    def forward(
        self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Maps of the levels, boxes x1 y1 x2 y2 px of each image, (height, width) px -> (R, C, side, side)."""
        maps = [x[name] for name in self.featmap_names]
        if not torch.is_grad_enabled() or not any(
            one.requires_grad and one.device.type == "cpu" for one in maps
        ):
            return super().forward(x, boxes, image_shapes)  # type: ignore[no-any-return]
        if self.scales is None:
            # It learns its scales from the first maps it sees.
            with torch.no_grad():
                super().forward(x, [one[:0] for one in boxes], image_shapes)
        # Of a training that diverges, so that its loss says so and not an index that is out of range.
        return self._summed(maps, [one.nan_to_num() for one in boxes])

    def _summed(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        regions = torch.cat(boxes).to(maps[0].dtype)
        images = torch.repeat_interleave(
            torch.arange(len(boxes)), torch.tensor([len(one) for one in boxes], dtype=torch.int64)
        )
        levels = self._levels(boxes)
        heights, widths = (torch.tensor([one.shape[side] for one in maps])[levels] for side in (2, 3))
        # A map's rows are behind those of the maps before it, an image's behind those of the images before it.
        counts = [one.shape[0] * one.shape[2] * one.shape[3] for one in maps]
        before = torch.tensor([sum(counts[:place]) for place in range(len(maps))])[levels]
        first = before + images * heights * widths
        scaled = regions * torch.tensor(self.scales, dtype=regions.dtype)[levels, None]
        rows, row_weights = self._along(scaled[:, 1], scaled[:, 3], heights)
        columns, column_weights = self._along(scaled[:, 0], scaled[:, 2], widths)
        places = _crossed(first[:, None, None] + rows * widths[:, None, None], columns, torch.add)
        weights = _crossed(row_weights, column_weights, torch.mul)
        channels = maps[0].shape[1]
        table = torch.cat([one.permute(0, 2, 3, 1).reshape(-1, channels) for one in maps])
        found = embedding_bag(places, table, per_sample_weights=weights, mode="sum")
        return found.view(len(regions), *self.output_size, channels).permute(0, 3, 1, 2)

    def _levels(self, boxes: list[Tensor]) -> Tensor:
        mapper: Any = self.map_levels
        if len(self.featmap_names) == 1:
            return torch.zeros(sum(len(one) for one in boxes), dtype=torch.int64)
        found: Tensor = mapper(boxes)
        return found

    def _along(self, low: Tensor, high: Tensor, extents: Tensor) -> tuple[Tensor, Tensor]:
        """Places (R, side, 2 * samples) that the cells of regions read along one axis, and their weights.

        Args:
            low: (R,), where regions begin, in cells of their map.
            high: (R,), where they end.
            extents: (R,), cells of their map.
        """
        side, samples = self.output_size[0], self.sampling_ratio
        cell = ((high - low).clamp(min=1) / side)[:, None, None]
        number = torch.arange(side, dtype=low.dtype)[None, :, None]
        within = (torch.arange(samples, dtype=low.dtype) + 0.5)[None, None, :]
        at = low[:, None, None] + number * cell + within * (cell / samples)
        last = (extents - 1)[:, None, None]
        # A sample more than a cell outside counts nothing, one less than that outside counts as the edge.
        outside = (at < -1) | (at > last + 1)
        at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
        before = at.floor().to(torch.int64)
        after = torch.minimum(before + 1, last)
        share = (at - before).masked_fill(outside, 0)
        rest = (1 - share).masked_fill(outside, 0)
        return torch.cat([before, after], 2), torch.cat([rest, share], 2) / samples


def _crossed(rows: Tensor, columns: Tensor, joined: Any) -> Tensor:
    """(R, side, n) of either axis -> (R * side * side, n * n), for every cell and pair of samples."""
    found: Tensor = joined(rows[:, :, None, :, None], columns[:, None, :, None, :])
    return found.reshape(-1, rows.shape[2] * columns.shape[2])
