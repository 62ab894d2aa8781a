"""The package for other programs and notebooks: what `finetune.train`, `load` and the others are."""
