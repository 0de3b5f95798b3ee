"""What chips can do at most, from the public data sheets of their makers."""

from typing import NamedTuple


class Chip(NamedTuple):
    """What one chip can do at most."""

    memory: int  # bytes
    flops: float  # bfloat16 operations per second, without sparsity
    bandwidth: float  # bytes per second between its memory and its cores
    wire: float  # bytes per second that it sends, all links to other chips of a slice or machine together
    clock: float | None = None  # cycles per second; None: not needed, as nothing can be compiled for it here
    network: float | None = None  # bytes per second to other slices, its share of its host's; None: unknown

    def part(self, share: float) -> "Chip":
        """A device that is such a share of the chip; it has the same clock."""
        network = None if self.network is None else self.network * share
        return Chip(
            int(self.memory * share),
            self.flops * share,
            self.bandwidth * share,
            self.wire * share,
            self.clock,
            network,
        )


# Source: the page of each version at cloud.google.com/tpu/docs; clocks: the peak over what matrix units do in a cycle.
# The network of v5e and v6e is that of a host over its 8 chips, 2 and 8 x 100 Gbit/s; of v5p 50 Gbit/s a chip.
TPUS = {
    "v4": Chip(32 << 30, 275e12, 1228e9, 300e9, 1.05e9),
    "v5e": Chip(16 << 30, 197e12, 819e9, 200e9, 1.5e9, 3.125e9),
    "v5p": Chip(95 << 30, 459e12, 2765e9, 600e9, 1.75e9, 6.25e9),
    "v6e": Chip(32 << 30, 918e12, 1638e9, 400e9, 1.75e9, 12.5e9),
}
# Source: NVIDIA's data sheets of A100 (SXM, 40 and 80 GB), H100 (SXM), H200 (SXM) and L4. Peaks are those without
# sparsity, memory is in GB as printed, links are one direction of NVLink, or of PCI Express 4.0 x16 for L4.
GPUS = {
    "a100-40gb": Chip(40 * 10**9, 312e12, 1555e9, 300e9),
    "a100": Chip(80 * 10**9, 312e12, 2039e9, 300e9),
    "h100": Chip(80 * 10**9, 989e12, 3350e9, 450e9),
    "h200": Chip(141 * 10**9, 989e12, 4800e9, 450e9),
    "l4": Chip(24 * 10**9, 121e12, 300e9, 32e9),
}
# An assumed laptop: 16 GB of which 12 are free, two channels of DDR4-3200, eight cores at 3 GHz with AVX2, 32 float32
# operations a cycle each.
LAPTOP = Chip(12 * 10**9, 8 * 3e9 * 32, 51.2e9, 51.2e9)
