"""`finetune check`."""
