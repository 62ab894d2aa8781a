"""`finetune job`."""
