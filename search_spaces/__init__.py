"""What can be built: architectures, genes, spaces, networks and their exact cost. Imports nothing of ours."""
