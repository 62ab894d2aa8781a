"""The script that walks a stranger's way: what it shows of a command, and when it says that it failed."""

import stranger


def test_a_step_shows_its_last_lines_and_everything_where_it_fails(tmp_path, capsys):
    assert stranger.walked("seq 5", tmp_path, last=2)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("$ seq 5    # ")
    assert printed[1:] == ["…", "4", "5"]
    assert not stranger.walked("seq 3; exit 4", tmp_path, last=1)
    assert capsys.readouterr().out.splitlines()[1:] == ["1", "2", "3", "exit code 4"]


def test_a_transcript_names_no_folder_of_this_machine(tmp_path, capsys):
    assert stranger.walked(f"pwd; ls {tmp_path}/none; true", tmp_path, 5, {str(tmp_path): "~"})
    printed = capsys.readouterr().out
    assert "\n~\n" in printed
    assert "~/none" in printed
    assert str(tmp_path) not in printed


def test_a_stranger_has_a_home_of_his_own_and_no_python_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert stranger.output("echo $HOME $PYTHONPATH", tmp_path) == str(tmp_path / "home")


def test_the_answer_of_a_server_that_never_came_is_no_class():
    assert stranger.first_class("") is None
    assert stranger.first_class('[{"predictions": [{"class": "shoes"}, {"class": "pants"}]}]') == "shoes"
