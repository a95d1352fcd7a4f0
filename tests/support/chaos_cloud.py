# SPDX-License-Identifier: Apache-2.0
"""The processes of a chaos run, and what is done to them.

An actor is a process with a name; each time that it is started it begins a
new life, with a journal of its own. What is done to a life is noted in the
timeline, against which its faults are held later.
"""

import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import time

from tests.support import processes
from tests.support import waiting
from zmq_threaded import endpoints

Event = collections.namedtuple('Event', 'at life action')
Step = collections.namedtuple('Step', 'number actor action steps')


class Timeline:
    """What was done to whom, and when.

    :param path: of a file in which it is kept, to be judged again later
    """

    def __init__(self, path=os.devnull):
        self.events = []
        self._path = path

    def note(self, life, action):
        self.events.append(Event(time.monotonic(), life, action))
        with open(self._path, 'a') as file:
            print(json.dumps(self.events[-1]), file=file)

    @classmethod
    def load(cls, path):
        timeline = cls()
        with open(path) as file:
            timeline.events = [Event(*json.loads(line)) for line in file]
        return timeline


class Actor:
    """A server or a client.

    :param command: called with (life, path of its journal), gives arguments
    :ivar actions: what chaos may do to it
    """

    def __init__(self, folder, name, command, timeline,
                 actions=('kill', 'pause', 'restart')):
        self.name, self.actions = name, actions
        self.lives = []
        self._folder, self._command = folder, command
        self._timeline = timeline
        self._popen = None

    def path(self, life):
        return os.path.join(self._folder, life)

    def launch(self):
        life = f'{self.name}.{len(self.lives)}'
        self.lives.append(life)
        with open(self.path(life) + '.stderr', 'w') as errors:
            self._popen = subprocess.Popen(
                [sys.executable, *self._command(life, self.path(life))],
                stdin=subprocess.PIPE, stdout=errors, stderr=errors,
                env=processes.ENVIRONMENT)
        self._note('launch')

    def _note(self, action):
        self._timeline.note(self.lives[-1], action)

    def is_up(self):
        return self._popen is not None and self._popen.poll() is None

    def is_ready(self):
        with contextlib.suppress(FileNotFoundError):
            with open(self.path(self.lives[-1])) as file:
                return '"what": "ready"' in file.read(100000)
        return False

    def kill(self):
        self._note('kill')
        self._popen.kill()
        self._popen.wait(20)
        self._popen.stdin.close()

    def pause(self):
        self._popen.send_signal(signal.SIGSTOP)
        self._note('pause')

    def resume(self):
        self._note('resume')
        self._popen.send_signal(signal.SIGCONT)

    def finish(self):
        """Let it end by itself; does not wait."""
        self._note('finish')
        self._popen.stdin.close()

    def terminate(self):
        """As finish(), by SIGTERM."""
        self._note('finish')
        self._popen.terminate()

    def exit_code(self, seconds):
        return self._popen.wait(seconds)

    def destroy(self):
        if self.is_up():
            self._popen.kill()
            self._popen.wait(20)
        if self._popen and not self._popen.stdin.closed:
            self._popen.stdin.close()


def server(node, folder, name, timeline, *topics):
    """A server that keeps a journal, launched; see chaos_server_main.py."""
    url = node.url()
    actor = Actor(folder, name, lambda life, path: [
        *processes.command('chaos_server_main.py')[1:], url, name, 'pool',
        path, *topics], timeline)
    node.closing(actor.destroy)
    actor.launch()
    return actor


class Receiver:
    """The receiver of the node, as an actor."""

    actions = ('kill', 'pause', 'restart')
    name = 'receiver'

    def __init__(self, process, timeline):
        self._process, self._timeline = process, timeline
        self.lives = ['receiver']

    def _note(self, action):
        self._timeline.note('receiver', action)

    def launch(self):
        self._note('launch')
        self._process.launch()

    def is_up(self):
        return self._process._popen.poll() is None

    def kill(self):
        self._note('kill')
        self._process.kill()

    def pause(self):
        self._process.pause()
        self._note('pause')

    def resume(self):
        self._note('resume')
        self._process.resume()

    def finish(self):
        self._note('finish')
        self._process.signal(signal.SIGTERM)


class Registry:
    """The server of a distributed registry, as an actor."""

    actions = ('kill', 'pause', 'restart')
    name = 'registry'

    def __init__(self, engine, timeline):
        self._engine, self._timeline = engine, timeline
        self._up = True
        self.lives = ['registry']

    def _note(self, action):
        self._timeline.note('registry', action)

    def launch(self):
        self._note('launch')
        self._engine.start()
        self._up = True

    def is_up(self):
        return self._up

    def kill(self):
        self._note('kill')
        self._engine.kill()
        self._up = False

    def pause(self):
        self._engine.pause()
        self._note('pause')

    def resume(self):
        self._note('resume')
        self._engine.resume()

    def finish(self):
        self._note('finish')
        self._engine.stop()
        self._up = False


def plan(rng, steps, actors):
    """What to do at each step: one thing, to somebody who is well.

    :param actors: list of (name, actions)
    :returns: list of Step; an action is over after so many steps
    """
    planned, busy_until = [], {}
    for number in range(steps):
        free = [(name, actions) for name, actions in actors
                if busy_until.get(name, 0) <= number]
        if not free:
            continue
        name, actions = rng.choice(free)
        action = rng.choice(actions)
        length = {'kill': rng.choice((0, 0, 1, 3)), 'restart': 2,
                  'pause': rng.choice((1, 1, 2, 3, 5))}[action]
        busy_until[name] = number + length + 2
        planned.append(Step(number, name, action, length))
    return planned


class Director:
    """Does what was planned, one step after another.

    :param actors: dict by name
    """

    def __init__(self, actors, every):
        self._actors, self._every = actors, every
        self._due = {}
        self.done = collections.Counter()

    def run(self, planned, steps):
        by_number = {step.number: step for step in planned}
        next_at = time.monotonic()
        for number in range(steps):
            self._revive(number)
            if number in by_number:
                self._do(by_number[number])
            next_at += self._every
            time.sleep(max(0.0, next_at - time.monotonic()))

    def _do(self, step):
        actor = self._actors[step.actor]
        if not actor.is_up():
            return      # still on its way out, or back
        {'kill': actor.kill, 'pause': actor.pause,
         'restart': actor.finish}[step.action]()
        self.done[f'{step.actor.rstrip("0123456789")} {step.action}'] += 1
        self._due[step.actor] = (step.number + step.steps, step.action)
        if step.action == 'kill' and not step.steps:
            self._revive(step.number)

    def _revive(self, number):
        for name, (due, action) in list(self._due.items()):
            if number >= due and self._back(self._actors[name], action):
                del self._due[name]

    @staticmethod
    def _back(actor, action):
        """Bring an actor back; False if it is not time yet."""
        if action == 'pause':
            actor.resume()
        elif actor.is_up():
            return False
        else:
            actor.launch()
        return True

    def revive_all(self, seconds=60):
        """Nobody is paused, stopped or dead when this returns."""
        def revived():
            self._revive(10 ** 9)
            return not self._due
        waiting.until(revived, seconds, 'all are back')


def clear_killed(ipc_dir):
    """Take away the sockets of the killed, as the sweep of a service does a
    minute later; what is alive stays.

    :returns: ids of the instances whose they were
    """
    removed = set()
    for name in os.listdir(ipc_dir):
        path = os.path.join(ipc_dir, name)
        if name.endswith('.sock') and endpoints.is_dead(f'ipc://{path}'):
            os.unlink(path)
            processes.unlink_beside(path)
            removed.add(name.removesuffix('.sock'))
    return removed
