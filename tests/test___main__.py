import os
import subprocess
import sys

import pytest

# Stands in for the command line: leaves a thread, a handler, and what only Python's own end takes apart.
PROGRAM = """
import atexit, sys, threading, time, types
from finetune import __main__

class Library:
    def __del__(self):
        print("taken apart")

def main():
    __main__.library = Library()
    atexit.register(print, "handler")
    threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
    {ends}

__main__.main = main
{before}
__main__.program()
"""


# Python alone: whatever measures coverage in processes of tests would come first.
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
ALONE["PYTHONUNBUFFERED"] = ""


def ended(ends, before="", **options):
    """Return what a process printed that ended like this, and how."""
    program = PROGRAM.format(ends=ends, before=before)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ALONE} | options
    return subprocess.run([sys.executable, "-c", program], check=False, text=True, **options)


@pytest.mark.parametrize(("ends", "code"), [("sys.exit(5)", 5), ("sys.exit()", 0), ("pass", 0)])
def test_the_program_ends_after_threads_and_handlers_and_before_libraries_are_taken_apart(ends, code):
    process = ended(ends)
    assert (process.returncode, process.stdout, process.stderr) == (code, "thread\nhandler\n", "")


@pytest.mark.parametrize(
    ("ends", "code", "said"), [("sys.exit('words')", 1, "words"), ("raise ValueError('a bug')", 1, "a bug")]
)
def test_python_ends_a_program_whose_exit_code_is_its_own(ends, code, said):
    process = ended(ends)
    assert (process.returncode, process.stdout) == (code, "thread\nhandler\ntaken apart\n")
    assert said in process.stderr


def test_a_tool_that_came_first_is_called_last():
    process = ended("sys.exit(5)", before="atexit.register(print, 'coverage')")
    assert (process.returncode, process.stdout) == (5, "thread\nhandler\ncoverage\ntaken apart\n")


def test_a_process_that_used_a_gpu_ends_as_ever():
    cuda = "types.SimpleNamespace(is_initialized=lambda: True)"
    process = ended("sys.exit(5)", before=f"sys.modules['torch'] = types.SimpleNamespace(cuda={cuda})")
    assert (process.returncode, process.stdout) == (5, "thread\nhandler\ntaken apart\n")


def test_what_cannot_be_printed_is_no_success():
    with open("/dev/full", "w") as full:
        process = ended("sys.exit(0)", stdout=full)
    assert process.returncode == 120  # Python's own code for it
    assert "No space left on device" in process.stderr


# Python tells what it takes apart, if it is asked to be verbose.
@pytest.mark.parametrize(("ends", "code"), [(["--version"], 0), (["no-such-command"], 2)])
def test_the_command_itself_ends_so(ends, code):
    command = [sys.executable, "-v", "-m", "finetune", *ends]
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=ALONE)
    assert process.returncode == code
    assert "import 'finetune.cli'" in process.stderr
    assert "# destroy" not in process.stderr
