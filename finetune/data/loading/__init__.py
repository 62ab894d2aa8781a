"""Load batches of images: order, augmentation, workers."""
