"""Print the share of mutants that the tests noticed, from the file of `mutmut export-cicd-stats`."""

import json
import sys
from pathlib import Path

stats = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
noticed = stats["killed"] + stats["timeout"]  # a change that makes a loop endless is noticed too
print(f"{noticed} of {stats['total']} mutants killed ({noticed / stats['total']:.1%})")
