"""Detectors around any backbone that declares its levels."""
