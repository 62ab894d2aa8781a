"""Spreadsheets are refused with the line that makes a table of them."""

import pytest
from conftest import run_finetune, write_small_config


@pytest.mark.parametrize("command", ["init", "train", "check"])
def test_a_spreadsheet_is_refused_with_what_makes_a_table_of_it(tmp_path, command):
    file = tmp_path / "labels.XLSX"
    file.write_bytes(b"PK\3\4")
    result = run_finetune(command, file)
    assert (result.exit_code, result.stdout) == (3, "")
    assert f"{file} is a spreadsheet, of which a copy as text is read." in result.stderr
    assert "Save it as labels.csv (in Excel: CSV UTF-8), or: python -c " in result.stderr


def test_a_spreadsheet_of_decisions_is_refused_alike(tmp_path, images):
    file = tmp_path / "found.ods"
    file.write_bytes(b"PK\3\4")
    result = run_finetune("train", write_small_config(tmp_path, images), f"data.exclude={file}")
    assert result.exit_code == 3
    assert "Save it as found.csv" in result.stderr
