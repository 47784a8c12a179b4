"""Uses the host through the node, step by step; the first step that is not as expected ends it with an error."""

import asyncio
import json
import os
import sys
import time
import urllib.request

from dapr.actor import ActorProxy
from dapr.actor.id import ActorId
from dapr.aio.clients import DaprClient
from dapr.clients.exceptions import DaprInternalError
from host import HobbitInterface

APP = sys.argv[1]


def same(seen, expected, what):
    if seen != expected:
        raise SystemExit(f'{what}: {seen!r} instead of {expected!r}')
    print(f'ok: {what}')


def hobbit(name):
    return ActorProxy.create('Hobbit', ActorId(name), HobbitInterface)


async def events(dapr):
    return (await dapr.invoke_method(APP, 'events', b'', http_verb='GET')).json()


async def until(probe, within, what):
    begun = time.monotonic()
    while not await probe():
        if time.monotonic() - begun > within:
            raise SystemExit(f'not within {within} s: {what}')
        await asyncio.sleep(0.1)
    print(f'ok: {what}')


def metadata():
    with urllib.request.urlopen(f'http://127.0.0.1:{os.environ["DAPR_HTTP_PORT"]}/v1.0/metadata') as answer:
        return json.load(answer)


async def main():
    async with DaprClient() as dapr:

        async def seen(event, times):
            return (await events(dapr)).count(event) >= times

        answer = await dapr.invoke_method(
            APP, 'greet', json.dumps({'name': 'sam'}), 'application/json', http_verb='POST', http_querystring=(('a', '1'),)
        )
        same(answer.json(), {'greeting': 'hello sam', 'caller': APP, 'query': 'a=1'}, 'service invocation')

        frodo, sam = hobbit('frodo'), hobbit('sam')
        same(await frodo.Eat({'dish': 'ants', 'n': 1}), [{'dish': 'ants', 'n': 1}], 'a method with a result')
        same(await frodo.Eat('cake'), [{'dish': 'ants', 'n': 1}, 'cake'], 'state from call to call')
        same(await sam.Eaten(), None, 'state of another actor')
        raw = await ActorProxy.create('Hobbit', ActorId('frodo')).invoke_method('Eaten')
        same(json.loads(raw), [{'dish': 'ants', 'n': 1}, 'cake'], 'a call without an interface')

        await frodo.Remember({'name': 'ring', 'value': 'here', 'seconds': 2})
        await frodo.Remember({'name': 'shire', 'value': 'green', 'seconds': 600})
        same(await frodo.Recall('ring'), 'here', 'state with TTL before its end')
        await asyncio.sleep(2.5)
        same(await frodo.Recall('ring'), None, 'state with TTL after its end')
        same(await frodo.Recall('shire'), 'green', 'state with a longer TTL')
        await frodo.Forget('shire')
        same(await frodo.Recall('shire'), None, 'removed state')

        await frodo.StartReminder()
        await until(lambda: seen('reminder frodo breakfast second', 2), 15, 'two firings of a reminder')
        await frodo.StopReminder()
        await frodo.StartTimer()
        await until(lambda: seen('timer frodo tock', 2), 15, 'two ticks of a timer')
        await frodo.StopTimer()

        same(await frodo.ComeBack(5), ['there'] * 5 + ['home'], 'a call chain that comes back to its actor')

        try:
            await frodo.Fail()
            raise SystemExit('a method that raises succeeded')
        except DaprInternalError as error:
            same('second breakfast is refused' in str(error), True, 'the text of an error in a method')

        active = [entry for entry in metadata()['actorRuntime']['activeActors'] if entry['type'] == 'Hobbit']
        same(active[0].get('count', 0) >= 1, True, 'metadata counts active actors')
        for name in ['frodo', 'sam']:
            await until(lambda: seen(f'deactivate {name}', 1), 20, f'{name} is deactivated when idle')
        same(await frodo.Eaten(), [{'dish': 'ants', 'n': 1}, 'cake'], 'state after deactivation')
        same(await seen('activate frodo', 2), True, 'the actor was activated again')
    print('the client is content')


asyncio.run(main())
