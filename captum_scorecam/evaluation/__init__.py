"""Many images, methods and measures: records, summary and report."""
