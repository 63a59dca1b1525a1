"""Kernels: hash grid, ray marching, compositing, splats. Read the reference files first, call ops.py and splat.py.

Importing builds nothing.
"""
