"""``python -m captum_scorecam``, the same as ``captum-scorecam``."""

from captum_scorecam.command_line import main

if __name__ == "__main__":
    main()
