"""The command `ssltransfer`: what is in a file of weights, new rows of tables, what a suite still needs, its report.

A layer over the library: everything that is computed is computed by the workflow's jobs, which Snakemake plans.
"""
