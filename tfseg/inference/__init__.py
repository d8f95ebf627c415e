"""From a network's scores to a label map at the image's own size (SPEC 7), one step a file.

Nothing here imports TensorFlow but `networks`: the processes that run the CRF start without it.
"""
