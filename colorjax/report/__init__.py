"""Sheets of pictures, plots and HTML pages."""
