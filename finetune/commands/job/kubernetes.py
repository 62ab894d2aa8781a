"""The job as a manifest for `kubectl apply`: the configs, and a Job for each training.

A Job is one pod, so one node. The pod's exit code decides what happens next, so nothing may stand between the
pod and the training that loses it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from finetune.commands.job.request import Request
from finetune.commands.job.trainings import Training, absolute_paths, data_folder
from finetune.config.yaml_writer import write_value
from finetune.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergenceError,
    FinetuneError,
    ResourceError,
    Stopped,
)
from finetune.text import printable
from finetune.version import VERSION

_MOST_BYTES = 1_000_000  # of a ConfigMap, which may have a MiB
_LONGEST_NAME = 52  # characters of a Job, whose pods get more

_FINAL = (FinetuneError, ConfigError, DataError, DivergenceError, CheckpointError, ResourceError)
"""what another try cannot change; a device, a network or a busy run directory it can"""

_JOB = """\
---
apiVersion: batch/v1
kind: Job
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: finetune}}
spec:
{deadline}\
  backoffLimit: {retries}                 # failures that are not in podFailurePolicy
  podFailurePolicy:
    rules:
      - action: Ignore             # {stopped}: stopped by a signal and saved; a new pod resumes it
        onExitCodes: {{containerName: train, operator: In, values: [{stopped}]}}
      - action: FailJob            # bug, config, data, divergence, damaged run, memory: it would fail again
        onExitCodes: {{containerName: train, operator: In, values: [{final}]}}
      - action: Ignore             # the node was drained, or a pod of higher priority took its place
        onPodConditions: [{{type: DisruptionTarget, status: "True"}}]
  template:
    metadata:
      labels: {{app.kubernetes.io/name: finetune}}
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: {notice}
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000            # must be able to write the volume of the runs
        runAsGroup: 1000
        fsGroup: 1000
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: train
          image: {image}
          command: {command}
          workingDir: {folder}
          env:
            - {{name: OMP_NUM_THREADS, value: "{cpus}"}}
            - {{name: HOME, value: /tmp}}
            - {{name: XDG_CACHE_HOME, value: /cache}}
            - {{name: TORCH_HOME, value: /runs/.weights/torch}}       # downloaded once
            - {{name: HF_HOME, value: /runs/.weights/huggingface}}
          resources:
            requests: {{cpu: {all_cpus}, memory: {memory}}}
            limits: {{{gpu}memory: {memory}}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: configs, mountPath: /configs, readOnly: true}}
{data_mount}\
            - {{name: runs, mountPath: /runs}}
            - {{name: shared-memory, mountPath: /dev/shm}}
            - {{name: cache, mountPath: /cache}}
            - {{name: temporary, mountPath: /tmp}}
      volumes:
        - name: configs
          configMap: {{name: {config_map}}}
{data_volume}\
        - name: runs
          persistentVolumeClaim: {{claimName: finetune-runs}}
        - name: shared-memory      # by which loader processes hand over batches; counts as memory of the pod
          emptyDir: {{medium: Memory, sizeLimit: {shared_memory}}}
        - name: cache
          emptyDir: {{}}
        - name: temporary
          emptyDir: {{}}
"""

_DATA_MOUNT = """\
            - {{name: data, mountPath: {folder}, readOnly: true}}
"""
_DATA_VOLUME = """\
        - name: data
          persistentVolumeClaim: {claimName: finetune-data, readOnly: true}
"""


def manifest(name: str, trainings: Sequence[Training], request: Request, image: str) -> str:
    """Return the manifest: a ConfigMap with the configs, and a Job for each training.

    Args:
        name: of the ConfigMap.
        trainings: one at least.
        request: what each of them asks for.
        image: the container image.

    Raises:
        ConfigError: what a pod cannot do, or paths that its volumes do not have.
    """
    if request.nodes > 1:
        raise ConfigError(
            f"--nodes {request.nodes}: a Job of Kubernetes is one pod on one node.\n"
            "Take more --gpus, or your cluster's operator for distributed training."
        )
    if request.at_once is not None:
        raise ConfigError(
            "--at-once: each training is a Job of its own here; a quota of the namespace bounds them."
        )
    config_map = f"{label(name)}-configs"
    keys = _config_keys(trainings)
    names = [label(training.name) for training in trainings]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise ConfigError(
            f"Two trainings would be Jobs called {twice[0]}.\nRename a config: case is no difference."
        )
    jobs = [
        _job(job, _in_pod(training, keys), request, image, config_map)
        for job, training in zip(names, trainings, strict=True)
    ]
    return _config_map(config_map, keys) + "".join(jobs)


def label(text: str) -> str:
    """Return a name that Kubernetes takes: small letters, digits and dashes."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST_NAME].strip("-")
    return plain or "finetune"


def _config_keys(trainings: Sequence[Training]) -> dict[Path, str]:
    """Return what each config is called in the ConfigMap."""
    keys: dict[Path, str] = {}
    for training in trainings:
        if training.config not in keys:
            plain = re.sub(r"[^A-Za-z0-9_-]+", "-", training.config.stem).strip("-") or "config"
            taken = {key.removesuffix(".yaml") for key in keys.values()}
            number = 2
            stem = plain
            while stem in taken:
                stem, number = f"{plain}-{number}", number + 1
            keys[training.config] = f"{stem}.yaml"
    return keys


def _in_pod(training: Training, keys: dict[Path, str]) -> Training:
    """Return the training with the paths that it has in the pod.

    Raises:
        ConfigError: its run directory is not in the volume of the runs.
    """
    volume = Path("/runs")
    written = training.run_dir if training.run_dir.is_absolute() else Path("/") / training.run_dir
    run_dir = written if written.is_relative_to(volume) else volume / training.run_dir
    if ".." in run_dir.parts or not run_dir.is_relative_to(volume) or run_dir == volume:
        raise ConfigError(
            f"The run directory {printable(str(training.run_dir))} is outside of {volume}, where the pod has "
            "the volume finetune-runs.\nName one in it: --run-dir photos"
        )
    return replace(training, config=Path("/configs", keys[training.config]), run_dir=run_dir)


def _config_map(name: str, keys: dict[Path, str]) -> str:
    """Write the configs as they are.

    Raises:
        ConfigError: they are more than a ConfigMap may hold.
    """
    texts = {key: path.read_text(encoding="utf-8") for path, key in keys.items()}
    if (size := sum(len(text.encode()) for text in texts.values())) > _MOST_BYTES:
        raise ConfigError(
            f"The configs have {size:,} bytes; one manifest holds {_MOST_BYTES:,}. Write several."
        )
    entries = "".join(f"  {key}: {block(text)}\n" for key, text in texts.items())
    files = ", ".join(printable(str(path)) for path in keys)
    return f"""\
# finetune {VERSION} wrote this for {files}. Give it to your cluster with kubectl apply --filename.
# It needs the claims finetune-data, with the images, and finetune-runs, for what the trainings leave.
# Put in what your cluster asks for: namespace, node selector, tolerations, priority. See docs/jobs.md.
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: finetune}}
immutable: true                    # a run is not resumed with another config
data:
{entries}"""


def block(text: str) -> str:
    """Return a text as the value of a key that is indented by two blanks: as it stands, or else in quotes."""
    lines = text.split("\n")
    starts_plainly = text[:1] not in ("", " ", "\n") and text.endswith("\n") and not text.endswith("\n\n")
    if not starts_plainly or not all(line.isprintable() for line in lines) or "\ufeff" in text:
        return write_value(text)
    return "|\n" + "\n".join(f"    {line}" if line else "" for line in lines[:-1])


def _job(name: str, training: Training, request: Request, image: str, config_map: str) -> str:
    folder, has_data = _data_folder(training)
    values = {
        "name": name,
        "deadline": f"  activeDeadlineSeconds: {request.seconds()}\n" if request.time else "",
        "retries": min(request.restarts, 3),
        "stopped": Stopped.exit_code,
        "final": ", ".join(str(error.exit_code) for error in _FINAL),
        "notice": request.notice,
        "image": write_value(image),
        "command": write_value(_command(training, request)),
        "folder": write_value(folder),
        "cpus": request.cpus,
        "all_cpus": request.cpus * request.processes,
        "memory": f"{request.memory.upper()}i",
        "gpu": f"nvidia.com/gpu: {request.gpus}, " if request.gpus else "",
        "shared_memory": f"{max(request.bytes_of_memory() // 4 // 2**20, 1)}Mi",
        "config_map": config_map,
        "data_mount": _DATA_MOUNT.format(folder=write_value(folder)) if has_data else "",
        "data_volume": _DATA_VOLUME if has_data else "",
    }
    return _JOB.format(**values)


def _command(training: Training, request: Request) -> list[str]:
    command = training.command()
    return [*command, "--devices", str(request.processes)] if request.processes > 1 else command


def _data_folder(training: Training) -> tuple[str, bool]:
    """Return where the volume with the images is mounted, and whether there is one.

    Raises:
        ConfigError: the config names files elsewhere.
    """
    written = training.settings.data.path
    if written.startswith("builtin:"):
        return "/tmp", False
    paths = dict(absolute_paths(training.settings))
    folder = data_folder(paths["data.path"]) if "data.path" in paths else Path("/data")
    for key, path in paths.items():
        if not path.is_relative_to(folder):
            raise ConfigError(
                f"{key}: {path} is outside of {folder}, where the pod has the volume finetune-data.\n"
                "Put the file beside the images, and name it relative to the folder that has both."
            )
    return str(folder), True
