"""Archives of images, read in place: nothing is unpacked, and nothing is written."""
