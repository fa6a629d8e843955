/** A user of testcontainers that starts a session and then hangs until it is killed. Prints one line of JSON. */
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GenericContainer, getContainerRuntimeClient, getReaper, Network } from 'testcontainers';

const context = await mkdtemp(join(tmpdir(), 'context-'));
await writeFile(join(context, 'Dockerfile'), 'FROM bb\nRUN touch /built\nVOLUME /data\nCMD ["sleep", "1000"]\n');

const network = await new Network().start();
const plain = await new GenericContainer('bb').withCommand(['sleep', '1000']).withNetwork(network).start();
const image = await GenericContainer.fromDockerfile(context).build();
const built = await image.withNetwork(network).start();

const client = await getContainerRuntimeClient();
const reaper = await getReaper(client);
const { Config } = await client.container.inspect(client.container.getById(built.getId()));
const report = {
  session: reaper.sessionId,
  network: network.getName(),
  image: Config.Image,
  containers: [plain.getId(), built.getId()],
  ryuk: reaper.containerId,
};
process.stdout.write(`${JSON.stringify(report)}\n`);
setInterval(() => undefined, 1000);
