import os

from finetune.text import counted, in_byte_order, printable, shown_size, where_paths_begin


def test_printable_text_has_no_control_characters():
    assert printable("café 猫.jpg") == "café 猫.jpg"
    assert printable("\x1b[31m\u202e\r\n") == "\\x1b[31m\\u202e\\r\\n"
    assert printable(os.fsdecode(b"\xff.jpg")) == "\\udcff.jpg"


def test_line_ends_of_a_message_can_stay():
    assert printable("a\x1b[2Jb\u202e\udce9\nd\x00", keep="\n") == "a\\x1b[2Jb\\u202e\\udce9\nd\\x00"


def test_only_the_error_of_a_relative_path_says_what_it_is_relative_to(tmp_path):
    assert where_paths_begin("photos") == " Paths are relative to the current directory."
    assert where_paths_begin(tmp_path) == where_paths_begin("~/photos") == ""


def test_what_is_counted_agrees_with_its_number():
    assert [counted(number, "file") for number in (0, 1, 2, 1438)] == [
        "0 files",
        "1 file",
        "2 files",
        "1,438 files",
    ]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]


def test_names_are_sorted_by_their_bytes():
    names = ["b", "a", "\U0001f41c", "\ud7ff", "\udcff", "ä", "B"]
    for some in (names, [name for name in names if name != "\udcff"]):
        assert in_byte_order(some) == sorted(some, key=os.fsencode)


def test_sizes_are_shown():
    assert [shown_size(size) for size in (0, 999, 12_345, 12_345_678, 5 * 10**9)] == [
        "0 B",
        "999 B",
        "12.3 kB",
        "12.3 MB",
        "5.0 GB",
    ]
