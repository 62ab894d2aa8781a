"""`finetune labels`."""
