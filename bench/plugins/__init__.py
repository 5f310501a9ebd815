"""From a text to a method: how methods are written, found, built and composed; no method is named here."""
