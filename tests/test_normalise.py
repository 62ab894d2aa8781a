"""Bytes are normalised to the bits of the formula, and lie in memory as its result would."""

import pytest
import torch

from finetune.model.normalise import normalise_bytes

MEAN, STD = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(9, 3, 160, 200), (5, 3, 33, 47), (1, 3, 7, 7), (0, 3, 8, 8)])
@pytest.mark.parametrize("lies", [torch.contiguous_format, torch.channels_last])
def test_the_bits_are_those_of_the_formula(shape, channels_last, lies):
    images = torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(memory_format=lies)
    before = images.clone()
    expected = (images.to(torch.float32) / 255 - MEAN) / STD
    if channels_last:
        expected = expected.contiguous(memory_format=torch.channels_last)
    got = normalise_bytes(images, MEAN, STD, channels_last=channels_last)
    assert torch.equal(got, expected)
    assert got.stride() == expected.stride()
    assert torch.equal(images, before)
