"""The metrics of an evaluation: types in ``metric``, one family per file, all metrics by name in ``registry``."""
