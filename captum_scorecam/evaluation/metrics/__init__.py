"""The metrics of an evaluation: their types in ``metric``, one family per file, and all by name in ``registry``."""
