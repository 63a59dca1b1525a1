"""Kernels: hash grid, ray marching, compositing, splats, meshes, textures.

Read the reference files first, call ops.py, splat.py, mesh.py and texture.py. Importing builds nothing.
"""
