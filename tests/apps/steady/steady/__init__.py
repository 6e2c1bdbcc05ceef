"""An app that lives through faults."""
