"""Training that one can read: cases, sampling, augmentation, one loop, and the bundle at its end."""
