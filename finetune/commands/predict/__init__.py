"""`finetune predict`."""
