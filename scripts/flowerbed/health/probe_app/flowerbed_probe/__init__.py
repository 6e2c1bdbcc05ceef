"""Asks every site that is online to train, and writes down who did."""
