"""`finetune train`."""
