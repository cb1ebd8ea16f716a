"""What extraction and training share: images, their transforms, networks and their weights.

The package itself loads no torch; of its modules only ``weight_files`` does not.
"""
