from finetune.notes import Note, as_warnings


def test_texts_become_notes_that_are_warnings_and_other_notes_are_none():
    assert as_warnings(["a", "b"]) == [Note("a", warning=True), Note("b", warning=True)]
    assert as_warnings(["a"])[0].warning is True
    assert Note("a").warning is False
