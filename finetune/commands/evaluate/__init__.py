"""`finetune evaluate`."""
