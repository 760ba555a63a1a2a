"""Training of any method: it receives functions and imports no network."""
