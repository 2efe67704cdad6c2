"""The mixer: layout, kernels, compositor, encoder and sound. Knows no network and no asyncio."""
