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
    """The methods of the JavaScript host, so that every client can speak to every host: a call's body is the list of its
    arguments, a result is an object or null."""

    @actormethod(name='eat')
    async def eat(self, arguments: object) -> object: ...

    @actormethod(name='eaten')
    async def eaten(self) -> object: ...

    @actormethod(name='add')
    async def add(self, arguments: object) -> object: ...

    @actormethod(name='remember')
    async def remember(self, arguments: object) -> None: ...

    @actormethod(name='recall')
    async def recall(self, arguments: object) -> object: ...

    @actormethod(name='forget')
    async def forget(self, arguments: object) -> None: ...

    @actormethod(name='startReminder')
    async def start_reminder(self) -> None: ...

    @actormethod(name='stopReminder')
    async def stop_reminder(self) -> None: ...

    @actormethod(name='startTimer')
    async def start_timer(self) -> None: ...

    @actormethod(name='stopTimer')
    async def stop_timer(self) -> None: ...

    @actormethod(name='comeBack')
    async def come_back(self, arguments: object) -> object: ...

    @actormethod(name='fail')
    async def fail(self) -> None: ...


class Hobbit(Actor, HobbitInterface, Remindable):
    async def _on_activate(self):
        EVENTS.append(f'activate {self.id.id}')

    async def _on_deactivate(self):
        EVENTS.append(f'deactivate {self.id.id}')

    async def eat(self, arguments):
        [meal] = arguments
        _, meals = await self._state_manager.try_get_state('meals')
        meals = (meals or []) + [meal]
        await self._state_manager.set_state('meals', meals)
        await self._state_manager.save_state()
        return {'meals': meals}

    async def eaten(self):
        _, meals = await self._state_manager.try_get_state('meals')
        return {'meals': meals}

    async def add(self, arguments):
        [one, other] = arguments
        return {'sum': one + other}

    async def remember(self, arguments):
        [name, value, seconds] = arguments
        await self._state_manager.set_state_ttl(name, value, seconds)
        await self._state_manager.save_state()

    async def recall(self, arguments):
        [name] = arguments
        # Past what the package itself has cached.
        await self._state_manager.clear_cache()
        found, value = await self._state_manager.try_get_state(name)
        return {'value': value if found else None}

    async def forget(self, arguments):
        [name] = arguments
        await self._state_manager.try_remove_state(name)
        await self._state_manager.save_state()

    async def start_reminder(self):
        second = datetime.timedelta(seconds=1)
        await self.register_reminder('breakfast', b'second', second, second)

    async def stop_reminder(self):
        await self.unregister_reminder('breakfast')

    async def receive_reminder(self, name, state, due_time, period, ttl=None):
        EVENTS.append(f'reminder {self.id.id} {state.decode()}')

    async def start_timer(self):
        second = datetime.timedelta(seconds=1)
        await self.register_timer('clock', self.tick, {'tick': 'tock'}, second, second)

    async def stop_timer(self):
        await self.unregister_timer('clock')

    async def tick(self, state):
        EVENTS.append(f'timer {self.id.id} {state["tick"]}')

    async def come_back(self, arguments):
        [times] = arguments
        if times == 0:
            return {'way': ['home']}
        own = ActorProxy.create('Hobbit', ActorId(self.id.id), HobbitInterface)
        return {'way': ['there'] + (await own.comeBack([times - 1]))['way']}

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
