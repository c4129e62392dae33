"""Experiments that run from nothing on an ordinary CPU."""
