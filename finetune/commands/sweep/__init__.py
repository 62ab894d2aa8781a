"""The story of `finetune sweep`: many trainings of one config, to find values of its keys."""
