"""The trained network in the forms that users deploy: a module with its normalisation, and ONNX."""
