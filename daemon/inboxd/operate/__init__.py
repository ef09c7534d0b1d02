"""Questions and repairs on the store: what an operator asks, and what puts a thing right."""
