from finetune.config.config import Config
from finetune.config.docstrings import key_docstrings, sections_by_name
from finetune.config.sections import Section, StageConfig


def test_every_key_of_every_section_has_its_docstring():
    sections = sections_by_name(Section)
    assert sections["Config"] is Config
    for section in sections.values():
        assert set(key_docstrings(section)) == set(section.model_fields), section


def test_a_docstring_is_the_text_below_its_field():
    texts = key_docstrings(StageConfig)
    assert texts["epochs"] == "Passes over the training images."
    assert texts["lr"].startswith("Peak learning rate: `1e-3` for all groups")
    assert "\n" in texts["lr"]
    assert "\n " not in texts["lr"]  # dedented


def test_what_a_base_class_documents_holds_below_it():
    class Above(Section):
        key: int = 1
        """Above."""
        other: int = 2
        """Of above."""

    class Below(Above):
        key: int = 3
        """Below."""

    assert key_docstrings(Below) == {"key": "Below.", "other": "Of above."}
