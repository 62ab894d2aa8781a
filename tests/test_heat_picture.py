import numpy as np
import torch

from finetune.report.heat_picture import heat_picture


def test_hot_places_are_coloured_and_all_others_grey():
    pixels = torch.full((3, 40, 40), 120, dtype=torch.uint8)
    heat = torch.zeros(4, 4)
    heat[0, 3] = 1
    drawn = np.asarray(heat_picture(pixels, heat)).astype(int)
    assert drawn.shape == (40, 40, 3)
    upper_right, lower_left = drawn[2, 37], drawn[37, 2]
    assert upper_right[0] > upper_right[2] + 80
    assert len(set(lower_left)) == 1
