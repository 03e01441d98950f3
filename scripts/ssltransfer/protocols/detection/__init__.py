"""Object detection with Faster R-CNN on a pretrained backbone (v1 Table 3, v2 Table 4).

``objects``, ``inputs``: annotations and images; ``settings``: the protocol's settings block and its schedule;
``torchvision_backend``, ``detectron2_backend``: the detectors; ``training``: training and detecting, the same for both;
``evaluation``: the one evaluator; ``pictures``: boxes drawn into images.
"""
