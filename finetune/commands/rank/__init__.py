"""The story of `finetune rank`: which backbone suits the images."""
