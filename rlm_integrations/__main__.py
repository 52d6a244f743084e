"""`python -m rlm_integrations`: the command line."""

import sys

from rlm_integrations.cli import main

sys.exit(main())
