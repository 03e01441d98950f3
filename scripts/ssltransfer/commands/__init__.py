"""The command `ssltransfer`: inspection of weights, new table rows, missing scores of a suite, publishing, reports.

A layer over the library: everything that is computed is computed by the workflow's jobs, which Snakemake plans.
"""
