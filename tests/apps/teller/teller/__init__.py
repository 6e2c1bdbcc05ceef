"""Tells what each site is told."""
