"""Trains and exports the bundle ``chatxray-base``: ``python -m train all``."""
