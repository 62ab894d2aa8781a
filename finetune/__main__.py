"""Run the command line as `python -m finetune`."""

from finetune.cli import main

main()
