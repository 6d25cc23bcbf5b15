"""Controllers propose candidates; ``catalog.py`` names them, ``base.py`` says what one is."""
