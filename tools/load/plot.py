# SPDX-License-Identifier: Apache-2.0
"""The latency distributions as a picture."""

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot  # noqa: E402

from load import tables  # noqa: E402

_LEVELS = (0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999)


def draw(contestants, report, path):
    """Draw a line for each contestant that has latencies.

    The axes are the percentile, and the latency in milliseconds.
    """
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout='constrained')
    longest = 2.0
    for contestant in contestants:
        points = [
            (_position(level), value)
            for level, value in contestant.latencies.curve()
            if level < 100
        ]
        if points:
            axes.plot(*zip(*points), label=contestant.name, linewidth=1.8)
            longest = max(longest, points[-1][0])
    _label(axes, report['settings'], longest)
    figure.savefig(path, dpi=120, format='png')
    pyplot.close(figure)


def _position(level):
    """Return where a percentile goes: all nines are equally wide."""
    return 1 / (1 - level / 100)


def _label(axes, settings, longest):
    axes.set_xscale('log')
    axes.set_yscale('log')
    axes.set_xlim(1, longest)
    levels = [level for level in _LEVELS if _position(level) <= longest]
    axes.set_xticks([_position(level) for level in levels],
                    [f'{level:g} %' for level in levels])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter('{x:g}')
    axes.set_xlabel('percentile of the operations')
    axes.set_ylabel('latency, ms')
    axes.set_title(tables.title(settings))
    axes.grid(True, which='major', alpha=0.3)
    axes.legend(frameon=False)
