"""Index the images of a data set: class folders, tables, splits."""
