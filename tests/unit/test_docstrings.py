# SPDX-License-Identifier: Apache-2.0
"""What the docstrings of the package have to say."""

import dataclasses
import enum
import importlib
import inspect
import pathlib

import pytest

import zmq_threaded

PACKAGE = pathlib.Path(zmq_threaded.__file__).parent

# Classes that do not say it yet; nothing is to be added here.
LEFT_OVER = {
    'zmq_threaded.net.ledger.Held',
    'zmq_threaded.net.tcp_connections.Connection',
    'zmq_threaded.receiver.route.Request',
    'zmq_threaded.registry.engines._Decoded',
    'zmq_threaded.registry.files._Done',
    'zmq_threaded.registry.patience._Worker',
    'zmq_threaded.registry.reading.Expired',
}


def _modules():
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
        yield importlib.import_module('.'.join(parts).removesuffix(
            '.__init__'))


def _has_behaviour(cls):
    """Whether there is more to it than its values, as it is for none of the
    exceptions, enumerations and plain dataclasses.
    """
    if issubclass(cls, (BaseException, enum.Enum)):
        return False
    fields = getattr(cls, '__dataclass_fields__', ())
    return not dataclasses.is_dataclass(cls) or any(
        inspect.isfunction(value) and not name.startswith('__')
        and name not in fields
        for name, value in vars(cls).items())


CLASSES = {f'{module.__name__}.{cls.__qualname__}': cls
           for module in _modules()
           for cls in vars(module).values()
           if inspect.isclass(cls) and cls.__module__ == module.__name__
           and _has_behaviour(cls)}


def test_there_are_classes():
    assert len(CLASSES) > 50


@pytest.mark.parametrize('name', sorted(CLASSES))
def test_each_class_says_which_threads_use_it(name):
    paragraphs = (inspect.cleandoc(CLASSES[name].__doc__ or '')
                  .split('\n\n'))
    says = paragraphs[-1].startswith('Thread: ')
    assert says or name in LEFT_OVER
