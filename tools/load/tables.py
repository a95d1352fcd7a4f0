# SPDX-License-Identifier: Apache-2.0
"""The report for people: tables and a few lines below them."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from load.report import COSTS
from load.report import PARTIES

_LATENCIES = ('p50', 'p90', 'p99', 'p99.9', 'max')
_COUNTS = ('lost', 'duplicated', 'failed', 'wrong')
_WIDTH_WITHOUT_TERMINAL = 120


def print_report(report, stream):
    """Print the report of load.report as tables."""
    console = Console(
        file=stream,
        highlight=False,
        width=None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL,
    )
    console.print(title(report['settings']), style='italic', soft_wrap=True)
    console.print(_results(report))
    console.print(_costs(report))
    if len(report['contestants']) > 1:
        baseline = report['settings']['baseline']
        console.print(
            f'times that of {baseline}', style='italic', markup=False
        )
        console.print(_ratios(report))
    for contestant in report['contestants']:
        for line in _footer(contestant):
            console.print(line, markup=False, soft_wrap=True)
    console.print(
        '[green]nothing lost, duplicated, failed or wrong[/]'
        if report['sound']
        else ('[bold red]NOT SOUND: '
              'messages lost, duplicated, failed or wrong[/]')
    )


def title(settings):
    """Return one line that says what was run."""
    size = (
        settings['size']
        if settings['size'] == 'real'
        else f'{settings["size"]} byte'
    )
    amount = (f'{settings["count"]:,} operations' if settings['count']
              else f'{settings["seconds"]:g} s')
    return (
        f'{settings["mode"]}, {_plural(settings["threads"], "thread")}, '
        f'{_plural(settings["servers"], "server")}, {size} payloads, '
        f'{_plural(settings["rounds"], "round")} of {amount}'
        + (
            ', client and servers on cores of their own'
            if settings['pin']
            else ''
        )
    )


def _results(report):
    deliveries = report['settings']['mode'] != 'call'
    table = Table(
        box=box.SIMPLE, padding=(0, 1, 0, 0), caption='latencies in ms'
    )
    table.add_column('', overflow='fold', min_width=8)
    for heading in (
        'ops/s',
        *(['delivered/s'] * deliveries),
        *_LATENCIES,
        'lost',
        'dup',
        'fail',
        'wrong',
    ):
        table.add_column(heading, justify='right', no_wrap=True)
    for contestant in report['contestants']:
        table.add_row(*_result_cells(contestant, deliveries))
    return table


def _result_cells(contestant, deliveries):
    cells = [escape(contestant['name']), _spread(contestant['ops_per_second'])]
    if deliveries:
        cells.append(_spread(contestant['delivered_per_second']))
    cells += [_figures(contestant['latency_ms'][name]) for name in _LATENCIES]
    for name in _COUNTS:
        value = contestant[name]
        cells.append(f'[bold red]{value:,}[/]' if value else '0')
    return cells


def _costs(report):
    table = Table(
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
        caption=(
            'CPU in us, and context switches that a thread asked for '
            '+ those forced on it, of one operation'
        ),
    )
    table.add_column('', overflow='fold', min_width=8)
    for party in PARTIES:
        table.add_column(f'{party} CPU', justify='right')
        table.add_column('switches', justify='right')
    table.add_column('all CPU', justify='right')
    for contestant in report['contestants']:
        table.add_row(
            escape(contestant['name']),
            *_cost_cells(contestant['cost_per_operation']),
        )
    return table


def _cost_cells(costs):
    known = []
    for party in PARTIES:
        cpu, *switches = (costs[party][what] for what in COSTS)
        known.append(cpu)
        yield _micro(cpu)
        yield '-' if None in switches else ' + '.join(map(_figures, switches))
    yield _micro(sum(filter(None, known)) if any(known) else None)


def _micro(seconds):
    return _figures(None if seconds is None else seconds * 1e6)


def _ratios(report):
    baseline = report['settings']['baseline']
    deliveries = report['settings']['mode'] != 'call'
    columns = {'ops/s': 'ops_per_second', 'p50': 'p50', 'p99': 'p99'}
    if deliveries:
        columns['delivered/s'] = 'delivered_per_second'
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column('', overflow='fold', min_width=8)
    for heading in columns:
        table.add_column(heading, justify='right')
    for contestant in report['contestants']:
        if contestant['name'] != baseline:
            table.add_row(
                escape(contestant['name']),
                *(
                    _figures(contestant['ratio'][key])
                    for key in columns.values()
                ),
            )
    return table


def _footer(contestant):
    name = contestant['name']
    if contestant['resources']:
        yield f'{name}: {_resources(contestant)}'
    if contestant['trouble']:
        yield f'{name}: ended early: {contestant["trouble"]}'
    for kind, failures in contestant['failures'].items():
        yield (f'{name}: {failures["count"]:,} x {kind}, '
               f'such as: {failures["example"]}')


def _resources(contestant):
    cpu = contestant['cpu_seconds_per_operation']
    used = contestant['resources']
    client = used['client']
    records = client['latency_records_bytes'] / 1e6
    servers = '; '.join(
        'server ' + _before_and_after(each) for each in used['servers']
    )
    text = (
        f'client {_before_and_after(client)} '
        f'({records:.1f} MB of it latency records); {servers}'
    )
    if cpu['client'] is not None:
        text += (
            f'; CPU per operation {_figures(cpu["client"] * 1000)} ms client '
            f'+ {_figures(cpu["servers"] * 1000)} ms servers'
        )
    return text


def _before_and_after(used):
    before, after = used['after_warmup'], used['end']
    return (
        f'RSS {before["rss_bytes"] / 1e6:.1f} '
        f'-> {after["rss_bytes"] / 1e6:.1f} MB, '
        f'{before["fds"]} -> {after["fds"]} fds'
    )


def _spread(values):
    if values['median'] is None:
        return '-'
    text = _figures(values['median'])
    if values['min'] != values['max']:
        text += f'\n{_figures(values["min"])}..{_figures(values["max"])}'
    return text


def _figures(value):
    """Return a number with about three significant digits."""
    if value is None:
        return '-'
    if value >= 100:
        return f'{value:,.0f}'
    return (
        f'{value:.1f}'
        if value >= 10
        else f'{value:.2f}'
        if value >= 1
        else f'{value:.3f}'
    )


def _plural(number, noun):
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
