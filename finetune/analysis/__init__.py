"""What features of images answer by themselves, without a training: pure functions of matrices."""
