"""Files that jobs write and the summary reads: scores, pictures, trained tensors."""
