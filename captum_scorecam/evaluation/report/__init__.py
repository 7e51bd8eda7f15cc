"""The report of a run: one HTML page with tables, curves and pictures."""
