"""Training of any method: it receives functions and knows no network."""
