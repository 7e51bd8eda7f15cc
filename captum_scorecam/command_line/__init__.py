"""The command line: its commands, the table and the picture."""
