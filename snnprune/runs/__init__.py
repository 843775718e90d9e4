"""What a run leaves on file: its folder, lock, saved model, report, page, and the ONNX file that it delivers."""
