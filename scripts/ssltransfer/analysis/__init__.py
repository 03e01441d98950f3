"""Statistics of the scores of a suite: averages, correlations, ranks, comparison with the paper."""
