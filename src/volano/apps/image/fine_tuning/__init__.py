"""Classifiers of images on a pretrained network: loaded, begun, trained."""
