"""Who carries out work: this process, or others."""
