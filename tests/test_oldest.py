import oldest
import pytest


def test_a_lower_bound_becomes_a_pin():
    requirements = [
        "torch>=2.9",
        "pydantic>=2.11,<3",
        "joblib[extra] >= 1.4",
        "x<2,>=1.5.1",
    ]
    pins = ["torch==2.9", "pydantic==2.11", "joblib==1.4", "x==1.5.1"]
    assert list(oldest.oldest(requirements)) == pins


@pytest.mark.parametrize("requirement", ["torch", "torch<3", "torch==2.9"])
def test_what_has_no_lower_bound_has_no_oldest_release(requirement):
    with pytest.raises(ValueError, match=f"'{requirement}' has no lower bound"):
        list(oldest.oldest([requirement]))


def test_every_requirement_of_the_project_has_a_lower_bound(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["oldest.py", "test", "parquet", "timm"])
    oldest.main()
    names = [line.split("==")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"torch", "torchvision", "fastai", "pytest", "pyarrow", "timm"} <= set(names)
