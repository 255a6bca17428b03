"""`python -m hrm` is `hrm`."""

from hrm.cli import main

raise SystemExit(main())
