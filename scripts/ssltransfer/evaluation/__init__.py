"""Evaluation in memory, for notebooks and scripts: the functions behind `ssltransfer.evaluate`.

``given_data``: what the caller hands over; ``measuring``: settings blocks on it; ``evaluate``: the
functions themselves.
"""
