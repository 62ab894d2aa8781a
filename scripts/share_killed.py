"""Print the share of mutants that the tests noticed, from the file of `mutmut export-cicd-stats`."""

import json
import sys
from pathlib import Path

stats = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
noticed = stats["killed"] + stats["timeout"]  # a change that makes a loop endless is noticed too
# Of a sample, most were not tried.
tried = noticed + sum(stats[name] for name in ("survived", "no_tests", "suspicious", "segfault"))
print(f"{noticed} of {tried} mutants killed ({noticed / max(tried, 1):.1%})")
