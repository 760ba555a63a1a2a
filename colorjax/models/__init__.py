"""Network architectures; no loss and no color constant lives here."""
