"""Read one image as the reader sees it: for the model and for the page alike.

Nothing is imported here: whoever needs a header alone shall not load the decoders.
"""
