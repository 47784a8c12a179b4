// The actor that host and client share: the package names types by class.
//
// Its methods are those of the Python host, so that every client can speak to every host. A call's body is the list of
// its arguments, as this package's proxy sends it. Results are objects or null: this package sends a string without quotes.
const { AbstractActor, Temporal } = require("@dapr/dapr");

const events = [];

class Hobbit extends AbstractActor {
  async onActivate() {
    events.push(`activate ${this.getActorId().getId()}`);
  }

  async onDeactivate() {
    events.push(`deactivate ${this.getActorId().getId()}`);
  }

  async eat(meal) {
    const state = this.getStateManager();
    const [, meals] = await state.tryGetState("meals");
    const all = (meals || []).concat([meal]);
    await state.setState("meals", all);
    await state.saveState();
    return { meals: all };
  }

  async eaten() {
    const [found, meals] = await this.getStateManager().tryGetState("meals");
    return { meals: found ? meals : null };
  }

  async add(one, other) {
    return { sum: one + other };
  }

  async remember(name, value, seconds) {
    // The package's state manager knows no time to live; its client does.
    const metadata = { ttlInSeconds: String(seconds) };
    const operations = [{ operation: "upsert", request: { key: name, value, metadata } }];
    await this.actorClient.actor.stateTransaction(this.getActorType(), this.getActorId(), operations);
    return null;
  }

  async recall(name) {
    const state = this.getStateManager();
    // Past what the package itself has cached.
    await state.clearCache();
    const [found, value] = await state.tryGetState(name);
    return { value: found ? value : null };
  }

  async forget(name) {
    const state = this.getStateManager();
    await state.tryRemoveState(name);
    await state.saveState();
    return null;
  }

  async startReminder() {
    const second = Temporal.Duration.from({ seconds: 1 });
    await this.registerActorReminder("breakfast", second, second, undefined, "second");
    return null;
  }

  async stopReminder() {
    await this.unregisterActorReminder("breakfast");
    return null;
  }

  async receiveReminder(data) {
    events.push(`reminder ${this.getActorId().getId()} ${data}`);
  }

  async startTimer() {
    const second = Temporal.Duration.from({ seconds: 1 });
    await this.registerActorTimer("clock", "tick", second, second, undefined, "tock");
    return null;
  }

  async stopTimer() {
    await this.unregisterActorTimer("clock");
    return null;
  }

  async tick(data) {
    events.push(`timer ${this.getActorId().getId()} ${data}`);
  }

  async fail() {
    throw new Error("second breakfast is refused");
  }
}

module.exports = { Hobbit, events };
