"""The experiment of arXiv 1710.09180 on rendered scans; used by the command line alone."""
