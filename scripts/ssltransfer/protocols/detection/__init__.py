"""Object detection with Faster R-CNN on a pretrained backbone (v1 Table 3, v2 Table 4).

``objects``, ``inputs``: annotations and images; ``settings``: the settings block and its schedule;
``torchvision_backend``, ``detectron2_backend``: the detectors; ``training``: training and detection for both backends;
``average_precision``: the VOC metric; ``evaluation``: scores and example images; ``pictures``: boxes drawn into images.
"""
