"""`finetune serve`."""
