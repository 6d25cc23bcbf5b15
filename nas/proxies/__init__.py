"""Proxies: what a candidate is worth, and what can be measured of it without full training."""
