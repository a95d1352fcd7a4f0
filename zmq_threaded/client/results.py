# SPDX-License-Identifier: Apache-2.0
"""What a reply says: a result, or the exception of an endpoint (no I/O).

A service may be broken, or a stranger. Whatever it answers, its caller has a
result, an exception that the endpoint may have raised, RemoteError, or
Refused; and nothing is imported but what allowed_remote_exmods names.
"""

import dataclasses
import importlib
import json

from zmq_threaded import errors
from zmq_threaded import logs
from zmq_threaded import payload
from zmq_threaded import texts
from zmq_threaded import wire

LOG = logs.get(__name__)

# Characters of a message or a traceback that a caller gets.
_LONGEST = 100_000
_BUILTINS = 'builtins'
# Of Python 2, whose services have been seen to call.
_OLD_BUILTINS = 'exceptions'
# As oslo.messaging names what it has rebuilt.
_POSTFIX = '_Remote'


@dataclasses.dataclass
class _Failure:
    """A remote exception as it travels; oslo.messaging chose the form.

    :ivar args: list, of what JSON has
    :ivar kwargs: dict, or whatever the exception had under that name
    """

    name: str
    module: str
    message: str
    trace: list
    args: list
    kwargs: object


def result(reply, allowed_remote_exmods):
    """The result that a reply has.

    :param reply: wire.Message, a REPLY
    :param allowed_remote_exmods: names of the modules of which exceptions
        are rebuilt
    :raises: what the endpoint raised, RemoteError if that is not allowed or
        cannot be rebuilt, Refused if the reply cannot be read
    """
    if not reply.flags & wire.FAILURE:
        return _read(payload.load, wire.reply_result(reply), reply.flags)
    failure = _read(_failure, wire.reply_result(reply))
    raise _exception(failure, allowed_remote_exmods)


def _read(load, *args):
    try:
        return load(*args)
    except Exception as error:
        # Not to be taken for one that the endpoint raised.
        raise errors.Refused('The reply cannot be read: '
                             + texts.line(_name_and_text(error))) from None


def _name_and_text(error):
    # Most others quote what they could not read.
    return str(error) if type(error) is ValueError else type(error).__name__


def _failure(part):
    """:raises: ValueError and others when a part is no remote exception"""
    fields = json.loads(bytes(part).decode())
    if not isinstance(fields, dict):
        raise ValueError('the remote exception is no object')
    return _Failure(
        name=_field(fields, 'class', str),
        module=_field(fields, 'module', str),
        message=texts.lines(_field(fields, 'message', str, ''), _LONGEST),
        trace=_trace(_field(fields, 'tb', list, [])),
        args=[_bounded(each) for each in _field(fields, 'args', list, [])],
        kwargs=fields.get('kwargs', {}))


def _field(fields, name, kind, *default):
    value = fields.get(name, *default)
    if not isinstance(value, kind):
        raise ValueError(f'the remote exception has no sound {name!r}')
    return value


def _trace(lines):
    if not all(isinstance(line, str) for line in lines):
        raise ValueError("the remote exception has no sound 'tb'")
    # The end tells most.
    kept, left = [], _LONGEST
    for line in reversed(lines):
        left -= len(line)
        if left < 0:
            break
        kept.append(texts.lines(line, _LONGEST))
    return kept[::-1]


def _bounded(value):
    """Built-in exceptions show their arguments in place of the message."""
    return texts.lines(value, _LONGEST) if isinstance(value, str) else value


def _exception(failure, allowed_remote_exmods):
    module = (_BUILTINS if failure.module == _OLD_BUILTINS
              else failure.module)
    if module == _BUILTINS or module in allowed_remote_exmods:
        try:
            return _with_text(_rebuilt(failure, module), failure, module)
        except (Exception, SystemExit, GeneratorExit) as error:
            # Its constructor is of another version, or wants other arguments
            # than it keeps; what it says may be the peer's words.
            LOG.debug('A remote exception of class %s cannot be rebuilt, its '
                      'caller gets RemoteError: %s',
                      texts.line(failure.name), type(error).__name__)
    return errors.RemoteError(texts.line(failure.name), failure.message,
                              failure.trace)


def _rebuilt(failure, module):
    kind = getattr(importlib.import_module(module), failure.name)
    # SystemExit and its like would end threads of the caller.
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        raise TypeError('no class of exceptions')
    error = kind(*failure.args, **failure.kwargs)
    if not isinstance(error, Exception):
        raise TypeError('no exception')
    return error


def _with_text(error, failure, module):
    """An exception whose text is the remote one, with its traceback: as the
    rabbit driver's users know it.
    """
    text = failure.message + '\n' + '\n'.join(failure.trace)
    kind = type(error)
    remote = type(kind.__name__ + _POSTFIX, (kind,),
                  {'__str__': lambda self: text,
                   '__module__': module + _POSTFIX})
    try:
        error.__class__ = remote
    except TypeError:
        # Built-in ones keep their class, and show their first argument.
        error.args = (text, *error.args[1:])
    return error
