"""The parts of tests/compose: the engine, its images, the shop as customers see it, and what is done to it."""
