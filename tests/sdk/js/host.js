// An actor host and a service.
const { DaprServer, HttpMethod, CommunicationProtocolEnum } = require("@dapr/dapr");
const { Hobbit, events } = require("./hobbit.js");

async function main() {
  const server = new DaprServer({
    serverHost: "127.0.0.1",
    serverPort: process.env.APP_PORT,
    communicationProtocol: CommunicationProtocolEnum.HTTP,
    clientOptions: {
      daprHost: "127.0.0.1",
      daprPort: process.env.DAPR_HTTP_PORT,
      communicationProtocol: CommunicationProtocolEnum.HTTP,
      actor: { actorIdleTimeout: "3s", reentrancy: { enabled: false } },
    },
  });
  await server.actor.init();
  server.actor.registerActor(Hobbit);
  await server.invoker.listen("events", async () => events, { method: HttpMethod.GET });
  await server.invoker.listen(
    "greet",
    async (data) => {
      const caller = data.headers["dapr-caller-app-id"];
      const query = data.query.split("?")[1];
      return { greeting: `hello ${JSON.parse(data.body).name}`, caller, query };
    },
    { method: HttpMethod.POST },
  );
  await server.start();
  console.log("the host is open");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
