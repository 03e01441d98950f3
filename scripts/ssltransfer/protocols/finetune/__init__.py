"""Finetuning of whole networks for classification (v2 section 4.1 and appendix)."""
