"""What is wrong with images: unreadable files, copies, look-alikes."""
