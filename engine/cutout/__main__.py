"""`python -m engine.cutout [fast|standard|best]`: fetch the background remover's weights now."""

from __future__ import annotations

import argparse
import sys

from engine.cutout import QUALITIES, prepare
from engine.surroundings import settle

if __name__ == "__main__":
    settle()
    parser = argparse.ArgumentParser(prog="python -m engine.cutout", description="Fetch the background remover.")
    parser.add_argument("quality", nargs="?", default="fast", choices=tuple(QUALITIES))
    sys.exit(0 if prepare(parser.parse_args().quality) else 1)
