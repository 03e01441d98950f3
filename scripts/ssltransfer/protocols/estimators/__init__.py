"""Transferability estimators: numbers computed from cached training features that may predict transfer."""
