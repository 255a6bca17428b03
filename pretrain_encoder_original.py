"""Train TRM with an encoder on ARC-AGI, original mode (`--help` shows how)."""

import sys

from hrm.cli import guarded
from hrm.commands.pretrain import run_original

if __name__ == "__main__":
    sys.exit(guarded(run_original, sys.argv[1:]))
