"""How good is it: mIoU as the VOC devkit computes it, and the label classifier's share of the loss."""
