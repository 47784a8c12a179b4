// Uses a host through the node, step by step; the first step that is not as expected ends it with an error.
const assert = require("node:assert");
const { ActorId, ActorProxyBuilder, CommunicationProtocolEnum, DaprClient, HttpMethod } = require("@dapr/dapr");
const { Hobbit } = require("./hobbit.js");

const [, , app, host] = process.argv;
const client = new DaprClient({
  daprHost: "127.0.0.1",
  daprPort: process.env.DAPR_HTTP_PORT,
  communicationProtocol: CommunicationProtocolEnum.HTTP,
});

function same(seen, expected, what) {
  assert.deepStrictEqual(seen, expected, `${what}: ${JSON.stringify(seen)} instead of ${JSON.stringify(expected)}`);
  console.log(`ok: ${what}`);
}

async function until(probe, seconds, what) {
  const begun = Date.now();
  while (!(await probe())) {
    if (Date.now() - begun > seconds * 1000) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  console.log(`ok: ${what}`);
}

async function main() {
  const events = () => client.invoker.invoke(app, "events", HttpMethod.GET);
  const count = async (event) => (await events()).filter((seen) => seen === event).length;
  const greeting = await client.invoker.invoke(app, "greet?a=1", HttpMethod.POST, { name: "sam" });
  same(greeting, { greeting: "hello sam", caller: app, query: "a=1" }, "service invocation");

  const builder = new ActorProxyBuilder(Hobbit, client);
  const frodo = builder.build(new ActorId("frodo"));
  // The Python package does not encode the id in its host's own calls.
  const odd = builder.build(new ActorId(host === "python" ? "sam" : "a b ü %41+"));
  const ants = { dish: "ants", n: 1 };
  same(await frodo.eat(ants), { meals: [ants] }, "a method with a result");
  same(await frodo.eat("cake"), { meals: [ants, "cake"] }, "state from call to call");
  same(await odd.eaten(), { meals: null }, "state of another actor");
  same(await odd.eat("tea"), { meals: ["tea"] }, "state of an actor with an unusual id");
  same(await frodo.add(20, 22), { sum: 42 }, "a method with two arguments");

  await frodo.remember("ring", "here", 2);
  await frodo.remember("shire", "green", 600);
  same(await frodo.recall("ring"), { value: "here" }, "state with TTL before its end");
  await until(async () => (await frodo.recall("ring")).value === null, 10, "state with TTL ends");
  same(await frodo.recall("shire"), { value: "green" }, "state with a longer TTL");
  await frodo.forget("shire");
  same(await frodo.recall("shire"), { value: null }, "removed state");

  await frodo.startReminder();
  await until(async () => (await count("reminder frodo second")) >= 2, 15, "two firings of a reminder");
  await frodo.stopReminder();
  await frodo.startTimer();
  await until(async () => (await count("timer frodo tock")) >= 2, 15, "two ticks of a timer");
  await frodo.stopTimer();

  await assert.rejects(frodo.fail());
  console.log("ok: an error in a method");

  const metadata = await client.metadata.get();
  same(metadata.id, app, "metadata");
  const active = metadata.actorRuntime.activeActors.find((entry) => entry.type === "Hobbit");
  same(active.count >= 1, true, "metadata counts active actors");
  same(await client.metadata.set("mood", "fine"), true, "a label is set");
  same((await client.metadata.get()).extended.mood, "fine", "a label is shown");
  await until(async () => (await count("deactivate frodo")) >= 1, 20, "an idle actor is deactivated");
  same(await frodo.eaten(), { meals: [ants, "cake"] }, "state after deactivation");
  same((await count("activate frodo")) >= 2, true, "the actor was activated again");
  console.log("the client is content");
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
