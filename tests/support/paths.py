"""Where things of the checkout are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
ARCHIVES = ROOT / "tests" / "archives"
