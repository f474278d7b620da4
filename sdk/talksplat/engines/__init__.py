"""Engines: what TensorRT makes of an avatar's graphs, kept outside the bundle.

======================  ========================================================================
:mod:`.flavours`        the two TensorRTs, their versions, and all they differ in
:mod:`.precision`       float16 written into a graph, with its float32 islands
:mod:`.profiles`        the range of sizes an engine is built for
:mod:`.build`           one engine, with progress, that can be stopped
:mod:`.log`             what TensorRT says, kept until something is refused for it
:mod:`.cache`           engines on disk, used only if nothing they depend on has changed
:mod:`.shipped`         engines built ahead of time that go out with an app
:mod:`.obtain`          from a bundle to the engines a backend runs
======================  ========================================================================
"""
