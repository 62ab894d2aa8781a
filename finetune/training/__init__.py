"""Training, and the one door to fastai.

What fastai gives us, all of it in `loop.py`:

- `Learner.fit` goes through epochs, their training and validation batches, moves each batch to the device,
  and raises its events around all of them;
- `TrainEvalCallback` switches between training and evaluation mode;
- `Callback`, of which ours overrides `__call__` alone, because fastai's rewrites the errors raised below it;
- `CancelBatchException`, `CancelTrainException`, `CancelEpochException` and `CancelFitException` leave out
  what was trained before an interruption, end a stage early, and put our step in the place of fastai's;
- `OptimWrapper`, in which a `Learner` wants torch's optimizer.

What it does not decide: the step (`step.py`) and the schedule (`optim/schedule.py`) are those that the search
for a learning rate uses too; the schedule has the values of fastai's `fit_one_cycle`. Its default callbacks
(a progress bar, a recorder whose loss is a moving average) and its own choice of a device are kept out.
"""
