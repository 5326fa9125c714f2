"""Packs on ONNX Runtime: files inspected, sessions opened, pictures judged."""
