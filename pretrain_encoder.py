"""Train TRM with an encoder on ARC-AGI, online mode (`--help` shows how)."""

import sys

from hrm.cli import guarded
from hrm.commands.pretrain import run_online

if __name__ == "__main__":
    sys.exit(guarded(run_online, sys.argv[1:]))
