"""Encoders that run an exported file: ONNX Runtime, OpenVINO, ExecuTorch, LiteRT, torch.export."""
