"""An actor host and a service, written with the published package alone."""

import datetime
from contextlib import asynccontextmanager

from dapr.actor import Actor, ActorInterface, ActorProxy, ActorRuntime, Remindable, actormethod
from dapr.actor.id import ActorId
from dapr.actor.runtime.config import ActorReentrancyConfig, ActorRuntimeConfig, ActorTypeConfig
from dapr.ext.fastapi import DaprActor
from fastapi import FastAPI, Request

EVENTS = []


class HobbitInterface(ActorInterface):
    @actormethod(name='Eat')
    async def eat(self, meal: object) -> object: ...

    @actormethod(name='Eaten')
    async def eaten(self) -> object: ...

    @actormethod(name='Remember')
    async def remember(self, thing: object) -> None: ...

    @actormethod(name='Recall')
    async def recall(self, name: str) -> object: ...

    @actormethod(name='Forget')
    async def forget(self, name: str) -> None: ...

    @actormethod(name='StartReminder')
    async def start_reminder(self) -> None: ...

    @actormethod(name='StopReminder')
    async def stop_reminder(self) -> None: ...

    @actormethod(name='StartTimer')
    async def start_timer(self) -> None: ...

    @actormethod(name='StopTimer')
    async def stop_timer(self) -> None: ...

    @actormethod(name='ComeBack')
    async def come_back(self, times: int) -> object: ...

    @actormethod(name='Fail')
    async def fail(self) -> None: ...


class Hobbit(Actor, HobbitInterface, Remindable):
    async def _on_activate(self):
        EVENTS.append(f'activate {self.id.id}')

    async def _on_deactivate(self):
        EVENTS.append(f'deactivate {self.id.id}')

    async def eat(self, meal):
        _, meals = await self._state_manager.try_get_state('meals')
        meals = (meals or []) + [meal]
        await self._state_manager.set_state('meals', meals)
        await self._state_manager.save_state()
        return meals

    async def eaten(self):
        _, meals = await self._state_manager.try_get_state('meals')
        return meals

    async def remember(self, thing):
        await self._state_manager.set_state_ttl(thing['name'], thing['value'], thing['seconds'])
        await self._state_manager.save_state()

    async def recall(self, name):
        # Past what the package itself has cached.
        await self._state_manager.clear_cache()
        found, value = await self._state_manager.try_get_state(name)
        return value if found else None

    async def forget(self, name):
        await self._state_manager.try_remove_state(name)
        await self._state_manager.save_state()

    async def start_reminder(self):
        second = datetime.timedelta(seconds=1)
        await self.register_reminder('breakfast', b'second', second, second)

    async def stop_reminder(self):
        await self.unregister_reminder('breakfast')

    async def receive_reminder(self, name, state, due_time, period, ttl=None):
        EVENTS.append(f'reminder {self.id.id} {name} {state.decode()}')

    async def start_timer(self):
        second = datetime.timedelta(seconds=1)
        await self.register_timer('clock', self.tick, {'tick': 'tock'}, second, second)

    async def stop_timer(self):
        await self.unregister_timer('clock')

    async def tick(self, state):
        EVENTS.append(f'timer {self.id.id} {state["tick"]}')

    async def come_back(self, times):
        if times == 0:
            return ['home']
        own = ActorProxy.create('Hobbit', ActorId(self.id.id), HobbitInterface)
        return ['there'] + await own.ComeBack(times - 1)

    async def fail(self):
        raise ValueError('second breakfast is refused')


@asynccontextmanager
async def lifespan(_app):
    settings = ActorTypeConfig(
        actor_type='Hobbit',
        actor_idle_timeout=datetime.timedelta(seconds=3),
        reentrancy=ActorReentrancyConfig(enabled=True),
    )
    ActorRuntime.set_actor_config(ActorRuntimeConfig(actor_type_configs=[settings]))
    await actors.register_actor(Hobbit)
    yield


app = FastAPI(lifespan=lifespan)
actors = DaprActor(app)


@app.get('/events')
async def events():
    return EVENTS


@app.post('/greet')
async def greet(request: Request):
    body = await request.json()
    return {'greeting': f'hello {body["name"]}', 'caller': request.headers.get('dapr-caller-app-id'), 'query': str(request.query_params)}
