"""Entry point of ``python -m captum_scorecam``."""

from captum_scorecam.command_line import main

if __name__ == "__main__":
    main()
