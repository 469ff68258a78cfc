"""The paper's tables and figures from the runs of a study: which sections there are, and how each is laid out."""
