"""The one door to fastai: it runs a stage of training; everything it may not decide is handed to it.

fastai's `Learner` runs the loop and its `ParamScheduler` the schedule, that of its `fit_one_cycle`. Three
habits of it are kept out here: its default callbacks (a progress bar, a recorder whose loss is a moving
average), its own choice of device, and its rewriting of errors raised inside callbacks: the reason why the
hooks are no callbacks.
"""
