"""The story of `finetune auto`: choose everything, train, and write the config that repeats it."""
