"""`finetune optimizers`."""
