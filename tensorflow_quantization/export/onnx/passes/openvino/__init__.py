"""Passes for OpenVINO: forms that it computes in integers, and workarounds."""
