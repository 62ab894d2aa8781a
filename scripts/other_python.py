"""Run the quick tests on the Python of another release of Debian, in a folder of its own.

    sudo python scripts/other_python.py FOLDER [--suite trixie] [pytest's arguments]

FOLDER is made by debootstrap (minutes, and 7 GB with torch) and kept; a second run uses it again. What is
committed is copied into it, installed with what its tests need into a new environment, and tested there, with
one thread in each of two processes. It is one of the ways to have Python 3.13 where only 3.11 is installed.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
INSTALL = "python3 -m venv /env && /env/bin/pip install --quiet '/project[test,timm]'"
TEST = "cd /project && /env/bin/python -m pytest -n 2 --dist worksteal -p no:cacheprovider"


def main() -> int:
    """Make the folder where there is none, copy, install, test, and return the exit code of the tests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--suite", default="trixie")
    options, rest = parser.parse_known_args()
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        print("error: this needs root and debootstrap\nRun it as root; apt-get install debootstrap")
        return 2
    folder = options.folder.resolve()
    if not (folder / "usr").exists():
        make_root(folder, options.suite)
    copy_project(folder)
    print(inside(folder, "python3 --version", capture=True).stdout.strip(), flush=True)
    installed = inside(folder, INSTALL)
    return installed.returncode or inside(folder, " ".join([TEST, *rest])).returncode


def make_root(folder: Path, suite: str) -> None:
    """Install a small Debian into a folder, with Python and git, and the names and keys of this machine."""
    packages = "--include=python3,python3-venv,ca-certificates,git,curl"
    subprocess.run(["debootstrap", "--variant=minbase", packages, suite, str(folder)], check=True)
    for path in (Path("/etc/resolv.conf"), CERTIFICATES):
        shutil.copyfile(path, folder / path.relative_to("/"))


def copy_project(folder: Path) -> None:
    """Copy what is committed to /project of the folder."""
    project = folder / "project"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "--extract", "--directory", str(project)], input=packed, check=True)


def inside(folder: Path, command: str, *, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a command with the folder as root; /proc and /dev are there for as long as it runs."""
    mounts = f"mount -t proc proc {folder}/proc && mount --rbind /dev {folder}/dev"
    # A namespace of its own: the mounts end with the command, however it ends.
    own = ["unshare", "--mount", "bash", "-c", f'{mounts} && exec chroot {folder} "$@"', "bash"]
    environment = ["env", "-i", "PATH=/usr/bin:/bin", "HOME=/root", "LANG=C.UTF-8", "OMP_NUM_THREADS=1"]
    return subprocess.run([*own, *environment, "bash", "-c", command], text=True, capture_output=capture)


if __name__ == "__main__":
    sys.exit(main())
