"""A training of seconds and a prediction, through the code that every training takes."""

import io
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from finetune.commands.doctor.privacy import without_names
from finetune.commands.doctor.trouble import Trouble
from finetune.commands.predict.predict import predict
from finetune.commands.settings import RunOptions
from finetune.commands.train.train import train
from finetune.config.load import parse_config
from finetune.display import Display
from finetune.errors import FinetuneError, Interrupted, Stopped

_CONFIG = """
data: {path: "builtin:digits", images_per_class: 16, val: 0.25, image_size: 32, batch_size: 32, workers: 0}
model: {arch: shufflenet_v2_x0_5, weights: "builtin:glyphs", head: {hidden: [32]}}
stages:
  - {name: frozen, train: head, epochs: 12, lr: 1e-2}
  - {name: unfrozen, train: all, epochs: 1, lr: 1e-3}
"""


@dataclass(frozen=True)
class SelfTest:
    """What came of it."""

    train_seconds: float
    predict_seconds: float
    accuracy: float
    """on the validation images; 0.1 is chance"""


def run_self_test() -> SelfTest | Trouble:
    """Train on a few drawn digits in a temporary folder, and classify a picture from a file.

    What is wrong with the machine comes back as trouble.

    Raises:
        Interrupted: a signal came.
        Stopped: a signal came while it trained.
    """
    from PIL import Image

    quiet = Display(io.StringIO(), quiet=True)
    try:
        with tempfile.TemporaryDirectory(prefix="finetune-doctor-") as folder:
            run, picture = Path(folder, "run"), Path(folder, "digit.png")
            Image.radial_gradient("L").resize((64, 64)).save(picture)  # a ring, as a 0 is
            began = time.monotonic()
            config = parse_config(_CONFIG, "the self-test")
            outcome = train(config, RunOptions(run), name="doctor", display=quiet)
            trained = time.monotonic()
            (answer,) = predict(run, [picture], top_k=1, device="auto", display=quiet)
            predicted = time.monotonic()
    except (Interrupted, Stopped):
        raise
    except FinetuneError as error:
        first, _, rest = without_names(str(error)).partition("\n")
        return Trouble(
            f"the self-test ended: {first}", rest or "See above for what is wrong.", error.exit_code
        )
    if answer.error is not None:
        return Trouble(f"the self-test could not read a picture: {answer.error}", "Install Pillow anew.", 7)
    return SelfTest(trained - began, predicted - trained, outcome.val_accuracy)
