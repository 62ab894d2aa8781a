"""Features of evaluation views: the model's own, of every image of a split, in the order of the index."""

import torch
from conftest import write_small_config
from several import draw_several

from finetune.config.load import load_config
from finetune.data.index import load_sample
from finetune.data.loading.transforms import eval_transform
from finetune.experiment.build import build_experiment
from finetune.experiment.image_features import image_features
from finetune.experiment.read_data import read_data


def experiment_of(folder, path, *overrides):
    config = load_config(write_small_config(folder, path), list(overrides))
    return build_experiment(config, torch.device("cpu"), read_data(config))


def test_features_are_the_models_own_of_what_evaluation_shows(images, tmp_path):
    experiment = experiment_of(tmp_path, images)
    for split in ("train", "val"):
        found = image_features(experiment, split)
        assert found.samples == experiment.index.of_split(split)
        assert found.targets.tolist() == [sample.target for sample in found.samples]
        transform = eval_transform(experiment.model.preprocessing)
        shown = [transform(load_sample(experiment.index, s, experiment.limits)) for s in found.samples]
        with torch.no_grad():
            expected = experiment.model.eval().features(torch.stack(shown))
        assert found.features.dtype == torch.float32
        assert torch.allclose(found.features, expected, atol=1e-4)


def test_targets_are_rows_of_0_and_1_for_images_of_one_class_and_of_several(images, tmp_path):
    one = image_features(experiment_of(tmp_path, images), "val")
    assert one.one_hot(3).argmax(1).tolist() == one.targets.tolist()
    assert one.one_hot(3).sum(1).tolist() == [1.0] * len(one.samples)
    table = draw_several(tmp_path / "several")
    experiment = experiment_of(tmp_path, table, "data.label_separator=;", "data.columns.label=label")
    several = image_features(experiment, "val")
    assert torch.equal(several.one_hot(3), several.targets.float())
    assert set(several.one_hot(3).sum(1).tolist()) > {1.0}
