"""A local web page on which a person colors photographs; see README.md here."""
