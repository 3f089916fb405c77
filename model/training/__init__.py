"""Training that one can read: cases, sampling, augmentation, one loop, a bundle at its end."""
