"""Text towers and embeddings of class names, for zero-shot classification and retrieval."""
