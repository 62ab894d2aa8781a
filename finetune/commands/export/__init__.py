"""The story of `finetune export`."""
