"""`finetune doctor`."""
