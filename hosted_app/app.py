"""Starts the app where others can reach it, as a hosted space does."""

import sys

from captum_scorecam.command_line import main

sys.argv[1:] = ["app", "--host", "0.0.0.0", "--port", "7860"]
main()
