// The actor that host and client share: the package names types by class.
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
    return all;
  }

  async eaten() {
    const [, meals] = await this.getStateManager().tryGetState("meals");
    return meals;
  }

  async add(one, other) {
    return { sum: one + other };
  }

  async startReminder() {
    const second = Temporal.Duration.from({ seconds: 1 });
    await this.registerActorReminder("breakfast", second, second, undefined, "second");
  }

  async stopReminder() {
    await this.unregisterActorReminder("breakfast");
  }

  async receiveReminder(data) {
    events.push(`reminder ${this.getActorId().getId()} ${data}`);
  }

  async startTimer() {
    const second = Temporal.Duration.from({ seconds: 1 });
    await this.registerActorTimer("clock", "tick", second, second, undefined, "tock");
  }

  async stopTimer() {
    await this.unregisterActorTimer("clock");
  }

  async tick(data) {
    events.push(`timer ${this.getActorId().getId()} ${data}`);
  }

  async fail() {
    throw new Error("second breakfast is refused");
  }
}

module.exports = { Hobbit, events };
