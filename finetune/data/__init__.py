"""Images: which there are, what class each has, how they are read, checked and loaded."""
