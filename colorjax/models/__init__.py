"""Network architectures; no loss and no colour constant lives here."""
