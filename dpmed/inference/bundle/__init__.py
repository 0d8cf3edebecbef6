"""What leaves the institution: the files of a bundle, its model card, and the network as ONNX."""
