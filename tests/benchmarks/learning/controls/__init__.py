"""The tuned examples with RLlib's own models in attention's place, over seeds, with a report."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]
EXAMPLES = ROOT / "tuned_examples"
# The scripts, and what they share (`common`), are not part of a package.
if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))
