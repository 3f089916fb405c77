"""Whole-slide images: tissue, tiles, INSIGHT per tile, one score and one stitched heatmap."""
