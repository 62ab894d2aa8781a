import pytest

from finetune.errors import ConfigError
from finetune.model.catalogue import architectures, find_architecture
from finetune.model.timm_catalogue import INSTALL, timm_architectures


@pytest.fixture
def without_timm(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))


def test_without_timm_its_names_are_answered_with_how_to_install_it(without_timm):
    for ask in (lambda: find_architecture("timm:resnet50"), lambda: architectures("timm:*lite*")):
        with pytest.raises(ConfigError, match=r"need timm") as error:
            ask()
        assert str(error.value).splitlines()[1] == f"Install it: {INSTALL}"


class TestWithTimm:
    @pytest.fixture(autouse=True)
    def _timm(self):
        self.timm = pytest.importorskip("timm")

    def test_a_name_is_found_with_what_timm_knows_of_it(self):
        arch = find_architecture("timm:tf_efficientnet_lite0")
        assert (arch.name, arch.own_name, arch.of_timm) == (
            "timm:tf_efficientnet_lite0",
            "tf_efficientnet_lite0",
            True,
        )
        assert arch.family == "efficientnet"
        assert arch.image_size == 224
        assert arch.weights == ("in1k",)

    def test_the_default_tag_comes_first(self):
        arch = find_architecture("timm:resnet18")
        assert arch.weights[0] == self.timm.get_pretrained_cfg("resnet18").tag
        assert "tv_in1k" in arch.weights

    def test_a_tag_belongs_to_the_name(self):
        assert find_architecture("timm:resnet18.tv_in1k").own_name == "resnet18.tv_in1k"
        with pytest.raises(
            ConfigError, match=r"timm's resnet18 has no weights with the tag 'v9'; there is a1_in1k"
        ):
            find_architecture("timm:resnet18.v9")

    def test_an_unknown_name_is_answered_with_the_nearest(self):
        with pytest.raises(ConfigError, match=r"did you mean .*timm:tf_efficientnet_lite0"):
            find_architecture("timm:tf_eficientnet_lite0")
        with pytest.raises(ConfigError, match=r"one of them is timm:resnet50"):
            find_architecture("timm:qqqqqqq")

    def test_patterns_list_timms_names_and_count_parameters_of_a_few(self):
        found = {arch.name: arch for arch in architectures("timm:tf_efficientnet_lite?")}
        assert list(found) == [f"timm:tf_efficientnet_lite{n}" for n in range(5)]
        network = self.timm.create_model("tf_efficientnet_lite1")
        assert found["timm:tf_efficientnet_lite1"].parameters == sum(p.numel() for p in network.parameters())
        everything = timm_architectures("timm:*")
        assert len(everything) == len(self.timm.list_models())
        assert {arch.parameters for arch in everything} == {None}
        assert timm_architectures("timm:lite0")[0].name == "timm:efficientnet_lite0"
        assert architectures("timm:nothing") == []
